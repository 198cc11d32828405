//! What a rebuild has to read, decided from what is on disk. Pure but for the listing.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::blobs::{hex, signature_of};
use super::{Generation, SourceOutcome, SourceStatus};
use crate::error::{Error, Result};
use crate::ident::{SourceName, printable};
use crate::layout::DataFolder;

/// Which sources a rebuild is asked to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    Everything,
    /// These, by name.
    Sources(std::collections::BTreeSet<String>),
}

impl Scope {
    pub(super) fn holds(&self, source: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Sources(names) => names.contains(source),
        }
    }

    pub(super) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Sources(mut a), Self::Sources(b)) => {
                a.extend(b);
                Self::Sources(a)
            }
            _ => Self::Everything,
        }
    }
}

/// What is in `extracts/`: a fingerprint for each source, and folders that are none.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) sources: BTreeMap<SourceName, Fingerprint>,
    pub(super) rejected: Vec<String>,
}

/// Changes whenever a file of the extract changes that a generation may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Of everything that is seen of the files.
    pub(super) full: String,
    /// Without the time of the last status change, which a link to a file moves.
    pub(super) content: String,
}

/// Lists the extracts within `scope`.
pub(super) fn list(folder: &DataFolder, scope: &Scope) -> Result<Listing> {
    let mut listing = Listing::default();
    let entries = match std::fs::read_dir(folder.extracts()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(listing),
        Err(e) => return Err(Error::io("list the extracts", e)),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !path.is_dir() || !path.join("extract.duckdb").is_file() {
            tracing::debug!(folder = printable(&name, 64), "not an extract");
            continue;
        }
        match SourceName::parse(&name) {
            Ok(source) if scope.holds(&name) => {
                listing.sources.insert(source, fingerprint(&path));
            }
            Ok(_) => {}
            Err(_) => listing.rejected.push(printable(&name, 64)),
        }
    }
    listing.rejected.sort_unstable();
    Ok(listing)
}

/// What the folder of an extract looks like now.
pub(super) fn fingerprint(extract: &Path) -> Fingerprint {
    let mut seen = Vec::new();
    let mut look = |path: &Path, label: String| {
        if let Ok(meta) = path.metadata()
            && meta.is_file()
        {
            let s = signature_of(&meta);
            seen.push((label, s));
        }
    };
    look(&extract.join("extract.duckdb"), "extract.duckdb".to_owned());
    for entry in std::fs::read_dir(extract.join("data")).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.ends_with(".parquet") {
            look(&path, name);
        } else if path.is_dir() {
            for part in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let part_name = part.file_name().to_string_lossy().into_owned();
                if part_name.ends_with(".parquet") {
                    look(&part.path(), format!("{name}/{part_name}"));
                }
            }
        }
    }
    seen.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let sum = |ctime: bool| {
        let mut digest = Sha256::new();
        for (label, s) in &seen {
            let ctime = if ctime { s.ctime_ns } else { 0 };
            digest.update(format!("{label}|{}|{}|{ctime}|{}\n", s.size, s.mtime_ns, s.inode));
        }
        hex(&digest.finalize())
    };
    Fingerprint { full: sum(true), content: sum(false) }
}

/// What to do with each source.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Read again.
    pub(super) read: Vec<SourceName>,
    /// Nothing changed.
    pub(super) unchanged: Vec<SourceName>,
    /// The folder is gone.
    pub(super) removed: Vec<SourceName>,
}

/// Compares the last generation with the listing.
pub(super) fn plan(last: &Generation, listing: &Listing, scope: &Scope) -> Plan {
    let mut plan = Plan::default();
    for (source, fingerprint) in &listing.sources {
        match last.sources.get(source) {
            Some(known)
                if known.signature == fingerprint.full
                    && !known.degraded
                    && !collided(last, source)
                    && !unattached(last, source) =>
            {
                plan.unchanged.push(source.clone());
            }
            _ => plan.read.push(source.clone()),
        }
    }
    for source in last.sources.keys() {
        if scope.holds(source.as_str()) && !listing.sources.contains_key(source) {
            plan.removed.push(source.clone());
        }
    }
    plan
}

/// Sources that lost a name to another one: they may get it whenever that one changes.
pub(super) fn all_collided(last: &Generation) -> std::collections::BTreeSet<String> {
    last.sources.keys().filter(|source| collided(last, source)).map(ToString::to_string).collect()
}

/// Whether a source lost a name to another one: it may get it this time.
fn collided(last: &Generation, source: &SourceName) -> bool {
    left_out(last, source, |reason| reason == "collision")
}

/// Whether tables of a source were left out because where they stay could not be attached: what is
/// missing for that (an extension, a permission, a variable) may be there this time.
fn unattached(last: &Generation, source: &SourceName) -> bool {
    left_out(last, source, |reason| reason.starts_with("attach_"))
}

fn left_out(last: &Generation, source: &SourceName, why: impl Fn(&str) -> bool) -> bool {
    let outcome = last.outcome.sources.iter().find(|s| s.source == source.as_str());
    outcome.is_some_and(|s| s.skipped.iter().any(|row| why(&row.reason)))
}

/// The outcome of a folder whose name is not a source's.
pub(super) fn rejected(name: &str) -> SourceOutcome {
    SourceOutcome {
        source: name.to_owned(),
        status: SourceStatus::RejectedName,
        error: Some("the folder's name is not a source name".to_owned()),
        views: Vec::new(),
        skipped: Vec::new(),
        alerts: Vec::new(),
        duration_ms: 0,
    }
}
