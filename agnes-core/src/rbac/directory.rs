//! Groups of the company's directory, as they become groups here.

use serde::{Deserialize, Serialize};

use super::{ADMIN_GROUP, EVERYONE_GROUP};

/// A group that the directory says somebody belongs to, as it is called here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirectoryGroup {
    /// The system group `Admin`.
    Admin,
    /// The system group `Everyone`.
    Everyone,
    /// The group named by this address, made on sight.
    Named(String),
}

impl DirectoryGroup {
    /// Its name here.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Admin => ADMIN_GROUP,
            Self::Everyone => EVERYONE_GROUP,
            Self::Named(address) => address,
        }
    }
}

/// What one replacement of somebody's directory groups changed: names of groups, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryChange {
    /// They belong there now.
    pub added: Vec<String>,
    /// They no longer do.
    pub removed: Vec<String>,
    /// Left alone: a group of that name was made here, by an admin, and is theirs.
    pub ignored: Vec<String>,
}

impl DirectoryChange {
    /// Whether anybody's rights may have changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}
