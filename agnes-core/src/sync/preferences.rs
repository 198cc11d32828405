//! Which tables a person wants on their laptop.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a person gets without asking for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TableMode {
    /// Every table they may pull, but those they switched off.
    #[default]
    All,
    /// Only what they switched on.
    Explicit,
}

impl TableMode {
    /// The text in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Explicit => "explicit",
        }
    }

    /// The mode stored as `text`; anything but `explicit` is `all`.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        if text == "explicit" { Self::Explicit } else { Self::All }
    }
}

/// One table that a person switched on or off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPreference {
    /// Id or name of the table.
    pub dataset: String,
    /// Whether they want it.
    pub enabled: bool,
    /// When they said so.
    pub updated_at: Option<DateTime<Utc>>,
}

/// What a person wants to pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPreferences {
    /// What holds for tables they said nothing about.
    pub table_mode: TableMode,
    /// By name.
    pub settings: Vec<SyncPreference>,
}

impl SyncPreferences {
    /// Whether the table with this id and name is wanted.
    #[must_use]
    pub fn wants(&self, id: &str, name: &str) -> bool {
        let said = |wanted: &str| self.settings.iter().find(|one| one.dataset.eq_ignore_ascii_case(wanted));
        said(name).or_else(|| said(id)).map_or(self.table_mode == TableMode::All, |one| one.enabled)
    }
}

/// Keeps preferences by user.
#[async_trait]
pub trait PreferenceRepository: Send + Sync {
    /// Those of one user; of an unknown one the default.
    async fn of(&self, user_id: &str) -> Result<SyncPreferences>;
    /// Switches tables on and off, and changes the mode where one is given; all or nothing.
    async fn set(
        &self,
        user_id: &str,
        entries: &[(String, bool)],
        table_mode: Option<TableMode>,
        now: DateTime<Utc>,
    ) -> Result<()>;
}
