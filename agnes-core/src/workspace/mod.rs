//! An analyst's folder: the tables they were granted as files, and everything around them.
//!
//! A [`Workspace`] belongs to one person and one server. [`Workspace::pull`] brings it to exactly
//! one generation of what the server publishes for them: files are fetched by content hash
//! (`fetch`), checked before they count, and one switch (`switch`) changes what the folder
//! holds. Whoever is killed on the way leaves the old data as it was, and what has arrived for the
//! next attempt. [`Workspace::query`] asks the files behind the walls of the engine.
//!
//! How bytes come from a server is an [`Origin`]'s business: nothing here knows HTTP.

mod assets;
mod error;
mod fetch;
mod layout;
mod origin;
mod plan;
mod pull;
mod push;
mod query;
mod readers;
mod sessions;
mod setup;
mod snapshots;
mod state;
mod switch;
mod template;
mod views;

pub use error::WorkspaceError;
pub use fetch::PullLimits;
pub use layout::Workspace;
pub use origin::{FileBody, FileOf, FileRef, Opened, Origin};
pub use plan::{Reason, WouldDownload};
pub use pull::{PullError, PullOptions, PullReport};
pub use push::{PushReport, SessionSink, WouldPush};
pub use query::{Answerable, Glance, GlanceColumn, Named, NamedKind};
pub use sessions::{Captured, WaitingSession};
pub use setup::{Setup, SetupError};
pub use snapshots::{SnapshotError, SnapshotMeta};
pub use state::{KnownTable, LocalFile, LocalTable, SyncState};
pub use template::{Taken, Template};
