//! The files of a source: walked, matched, and what each looked like.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use agnes_core::connector::SourceContext;
use agnes_core::error::Result;
use agnes_core::ident::printable;
use agnes_core::orchestrator::FileSignature;
use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use super::config::FilesConfig;
use super::error::{FilesError, io_reason};
use super::objects::Object;

/// Deepest folder that is searched.
const MAX_DEPTH: usize = 32;

/// One file of a source.
#[derive(Debug, Clone)]
pub(crate) struct FileEntry {
    /// Path inside the source's folder, `/`-separated; for people, settings and cursors.
    pub(crate) rel: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it looked like when it was listed.
    pub(crate) signature: FileSignature,
    /// Where it comes from, when it is not on this machine: see [`FileEntry::fetch`].
    pub(crate) object: Option<Object>,
}

/// The files of a source, by relative path.
#[derive(Debug)]
pub(crate) struct Listing {
    /// By path inside the source's folder.
    pub(crate) files: BTreeMap<String, FileEntry>,
    /// Whether `path` is one file.
    pub(crate) single: bool,
    /// What was left out, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// What `file` looks like now.
pub(crate) fn signature(meta: &std::fs::Metadata) -> FileSignature {
    let modified = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    #[cfg(unix)]
    let (ctime_ns, inode) = {
        use std::os::unix::fs::MetadataExt;
        (i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()), meta.ino())
    };
    #[cfg(not(unix))]
    let (ctime_ns, inode) = (0, 0);
    FileSignature {
        size: meta.len(),
        mtime_ns: modified.and_then(|d| i128::try_from(d.as_nanos()).ok()).unwrap_or(0),
        ctime_ns,
        inode,
    }
}

/// A glob over relative paths: `*` stays inside a folder, `**` crosses folders.
pub(crate) fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| error.kind().to_string())
}

/// Whether a text is a glob rather than a name.
pub(crate) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// Lists the files of a source: those below a folder (all levels), of a glob, or the one.
pub(crate) fn list(config: &FilesConfig, source: &SourceContext) -> Result<Listing> {
    if let Some(place) = &config.place {
        return place.list(source);
    }
    let (base, pattern) = split(&config.path)?;
    let single = pattern.is_some() && config.path.is_file();
    let matcher = match (&pattern, single) {
        (Some(pattern), true) => Some(glob(&globset::escape(pattern))),
        (Some(pattern), false) => Some(glob(pattern)),
        (None, _) => None,
    };
    let matcher = matcher.transpose().map_err(|reason| FilesError::invalid("path", reason))?;
    let root = std::fs::canonicalize(&base).map_err(|e| FilesError::PathUnreadable { reason: io_reason(&e) })?;
    std::fs::read_dir(&root).map_err(|e| FilesError::PathUnreadable { reason: io_reason(&e) })?;
    let mut files = BTreeMap::new();
    let mut notes = Vec::new();
    let depth = if single { 1 } else { MAX_DEPTH };
    let walk = WalkDir::new(&root).follow_links(true).max_depth(depth).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(&entry.file_name().to_string_lossy())) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let name =
                    error.path().and_then(|path| path.strip_prefix(&root).ok()).map(relative).unwrap_or_default();
                let reason = error.io_error().map_or("it leads back to itself", io_reason);
                if matcher.as_ref().is_none_or(|matcher| matcher.is_match(&name)) {
                    notes.push(format!("`{}` was left out: {reason}", printable(&name, 120)));
                }
                continue;
            }
        };
        let Ok(rel) = entry.path().strip_prefix(&root).map(relative) else { continue };
        if !entry.file_type().is_file() || matcher.as_ref().is_some_and(|matcher| !matcher.is_match(&rel)) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        let Ok(path) = std::fs::canonicalize(entry.path()) else { continue };
        if !config.follow_symlinks && !path.starts_with(&root) {
            notes.push(format!("`{}` was left out: it links to outside the folder", printable(&rel, 120)));
            continue;
        }
        files.insert(rel.clone(), FileEntry { rel, path, signature: signature(&meta), object: None });
    }
    Ok(Listing { files, single, notes })
}

impl Listing {
    /// The files that match any of `patterns` (names or globs), in path order.
    pub(crate) fn matching(&self, patterns: &[String]) -> Result<Vec<FileEntry>, FilesError> {
        let mut found = BTreeMap::new();
        for pattern in patterns {
            let name = pattern.strip_prefix("./").unwrap_or(pattern);
            // A name that is there wins over its reading as a glob.
            if let Some(entry) = self.files.get(name) {
                found.insert(entry.rel.clone(), entry.clone());
                continue;
            }
            let matcher = glob(name).map_err(|reason| FilesError::invalid("files", reason))?;
            for entry in self.files.values().filter(|entry| matcher.is_match(&entry.rel)) {
                found.insert(entry.rel.clone(), entry.clone());
            }
        }
        Ok(found.into_values().collect())
    }
}

/// Hidden files, and the lock files Excel leaves beside open workbooks.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name.starts_with("~$")
}

fn relative(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The folder to list, and the pattern inside it: none for a folder.
fn split(path: &Path) -> Result<(PathBuf, Option<String>), FilesError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok((path.to_owned(), None)),
        Ok(_) => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            return Ok((path.parent().unwrap_or(path).to_owned(), Some(name)));
        }
        Err(error) if !is_glob(&path.to_string_lossy()) => {
            return Err(FilesError::PathUnreadable { reason: io_reason(&error) });
        }
        Err(_) => {}
    }
    let mut base = PathBuf::new();
    let mut pattern = Vec::new();
    for part in path.components() {
        let text = part.as_os_str().to_string_lossy();
        if pattern.is_empty() && !is_glob(&text) {
            base.push(part);
        } else {
            pattern.push(text.into_owned());
        }
    }
    Ok((base, Some(pattern.join("/"))))
}
