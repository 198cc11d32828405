//! What the messages of [`super::frame`] carry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::orchestrator::{AttachPolicy, CheckedFile, checked_files};
use crate::query::{Asked, Attached, GrantSet, Params, QueryLimits};
use crate::sandbox::CheckedWire;
use crate::secret::FixedSecrets;

/// What a worker's confinement is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guarantee {
    /// No file but its own can be opened.
    Files,
    /// No file can be cut short.
    Truncation,
    /// No socket can be made.
    Network,
    /// A source is reached at its own port only.
    Ports,
    /// No program is started, no process traced, no device, mount or name space made.
    SystemCalls,
    /// Memory, file sizes and core dumps have a ceiling.
    Memory,
}

impl Guarantee {
    /// For people: what is not guaranteed where this is missing, and what would.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Files => "files (Landlock, Linux 5.13 or newer)",
            Self::Truncation => "truncation of files (Landlock ABI 3, Linux 6.2 or newer)",
            Self::Network => "network (seccomp)",
            Self::Ports => "ports of a source (Landlock ABI 4, Linux 6.7 or newer)",
            Self::SystemCalls => "system calls (seccomp)",
            Self::Memory => "memory limits",
        }
    }
}

/// What a worker is told before anything else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    /// Process that must be its parent.
    pub(super) parent: u32,
    /// What the engine may use.
    pub(super) limits: QueryLimits,
    /// Its own folder for spill files.
    pub(super) spill: PathBuf,
    /// Folders of blobs that assignments choose from.
    pub(super) blobs: Vec<PathBuf>,
    /// A file that can be read before the assignment and not after it.
    pub(super) canary: PathBuf,
    /// Where extension files lie.
    pub(super) extensions: Option<PathBuf>,
    /// What it asks besides, if it is a worker for one query of sources.
    pub(super) reach: Option<Reach>,
    /// Walls to leave out in tests.
    #[serde(default)]
    pub(super) hooks: Hooks,
}

/// What a worker needs that asks sources. Its extensions are loaded before the lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reach {
    pub(super) policy: AttachPolicy,
    pub(super) extensions: Vec<String>,
    /// Their files, where the signatures of all of them were checked before.
    pub(super) checked: Option<Vec<CheckedFile>>,
    /// TCP ports of the sources; without any it makes no socket.
    pub(super) ports: Vec<u16>,
    /// Files of the sources, to read.
    pub(super) files: Vec<PathBuf>,
}

impl Reach {
    pub(super) fn of(remote: &Attached) -> Self {
        let (mut ports, mut files, mut extensions) = (Vec::new(), Vec::new(), Vec::new());
        for (_, _, row) in &remote.asked {
            let (port, file) = crate::orchestrator::reach(row);
            ports.extend(port);
            files.extend(file);
            extensions.push(row.extension.clone());
        }
        let checked = checked_files(&extensions, &remote.policy);
        Self { policy: remote.policy.clone(), extensions, checked, ports, files }
    }

    /// Whether it makes sockets at all.
    pub(super) fn network(&self) -> bool {
        !self.ports.is_empty()
    }
}

/// Walls that a worker leaves out, to show that the others hold. Only builds with the
/// feature `testing` look at them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// No Landlock layer.
    pub no_landlock: bool,
    /// The base layer alone: an assignment does not narrow.
    pub no_narrowing: bool,
    /// No filter of system calls.
    pub no_seccomp: bool,
    /// The engine's own settings stay open.
    pub no_engine_wall: bool,
    /// As on a kernel that cannot guard files against being cut short.
    pub older_kernel: bool,
}

impl Hooks {
    /// What counts in this build.
    pub(super) fn in_force(self) -> Self {
        if cfg!(feature = "testing") { self } else { Self::default() }
    }
}

/// A worker that is confined and proved it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ready {
    /// What this kernel cannot enforce.
    pub(super) missing: Vec<Guarantee>,
    /// Files of extensions whose signatures it has checked.
    #[serde(default)]
    pub(super) checked: Vec<CheckedFile>,
}

/// A worker that will not serve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refused {
    /// What it could not prove.
    pub(super) guarantee: Option<Guarantee>,
    /// Words for the log.
    pub(super) cause: String,
    /// For the caller, where it is an error of theirs.
    pub(super) error: Option<WireError>,
}

/// What a worker serves from now on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Assign {
    /// Its relations.
    pub(super) set: GrantSet,
    /// Tables whose rows follow, each in one message: name and `CREATE TABLE`.
    pub(super) loads: Vec<(String, String)>,
    /// Sources to attach.
    pub(super) sources: Option<Sources>,
}

/// Sources to attach, with the tokens they need: they go to this worker alone, over a socket
/// that nobody else has.
#[derive(Serialize, Deserialize)]
pub(super) struct Sources {
    pub(super) asked: Vec<Asked>,
    tokens: BTreeMap<String, String>,
}

impl Sources {
    pub(super) fn of(remote: &Attached) -> Self {
        let names = remote.asked.iter().map(|(_, _, row)| row.token_env.as_str()).filter(|name| !name.is_empty());
        let tokens = names.filter_map(|name| Some((name.to_owned(), remote.secrets.get(name)?.expose().to_owned())));
        Self { asked: remote.asked.clone(), tokens: tokens.collect() }
    }

    /// In the worker: what to attach.
    pub(super) fn into_attached(self, policy: AttachPolicy) -> Attached {
        let secrets = Arc::new(FixedSecrets::new(self.tokens));
        Attached { policy, secrets, asked: self.asked }
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// A query to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) query: CheckedWire,
    pub(super) params: Params,
    /// Time until it is stopped.
    pub(super) left: Duration,
}
