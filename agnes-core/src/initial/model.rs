//! What is told of an initial workspace, and asked for.

use serde::{Deserialize, Serialize};

use super::TreeFile;
use crate::secret::Secret;

/// What of a repository is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its address, which was checked as text and by name.
    pub url: String,
    /// The branch; that which the repository names itself where there is none.
    pub branch: Option<String>,
    /// The token to ask with.
    pub token: Option<Secret>,
    /// The folder in it that is wanted.
    pub folder: &'static str,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The commit, in hex.
    pub commit: String,
    /// Whether the folder is there, and in the archive.
    pub has_folder: bool,
}

/// The repository as admins see it.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InitialView {
    /// Whether there is one.
    pub configured: bool,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The branch, where it is not the one that the repository names itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Whether a token is kept for it.
    pub has_token: bool,
    /// When the commit came, ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_synced_at: Option<String>,
    /// The commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_sha: Option<String>,
    /// Why the last try to bring one did not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// Markdown files that are no templates, and are given as they stand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unrendered: Vec<String>,
}

/// The repository as everybody sees it.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InitialOffer {
    /// Whether there is one.
    pub configured: bool,
    /// Whether its files are here.
    pub synced: bool,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_source: Option<String>,
    /// The commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_sha: Option<String>,
    /// When it came, ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synced_at: Option<String>,
    /// The files.
    pub files: Vec<String>,
}

/// What a sync did.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InitialSynced {
    /// `clone` where nothing was here, else `update`.
    pub action: &'static str,
    /// The commit.
    pub commit: String,
    /// How many files it has.
    pub files: usize,
}

/// The files of a commit, for one address of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialFiles {
    /// The commit.
    pub commit: String,
    /// They, by path.
    pub files: Vec<TreeFile>,
}

/// What a laptop did with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// Some took the place of others.
    ForceOverwrite,
    /// The folder was empty.
    FreshInstall,
}
