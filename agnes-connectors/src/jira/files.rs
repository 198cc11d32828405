//! Files of issues, from the site and from nowhere else.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use agnes_core::duck::blocking;
use agnes_core::error::{Error, Result};
use agnes_core::push::Documents;
use serde_json::Value;
use std::time::Duration;

use super::api::Api;
use super::reconcile::Known;
use crate::calls::until_cancelled;

/// How long one file may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Begins the names of files that are arriving, and how old one is that a kill left.
const ARRIVING: &str = ".arriving-";
const LEFT: Duration = Duration::from_secs(3600);

/// Deletes what a process that died was fetching.
fn forget_cut_off(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|meta| meta.modified()).ok();
        let old = changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > LEFT);
        if old && entry.file_name().to_string_lossy().starts_with(ARRIVING) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Which hosts may serve files, and how large these may be.
pub(crate) struct Rules {
    pub(crate) hosts: Vec<String>,
    pub(crate) most: u64,
}

/// A file as its issue tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    id: String,
    name: String,
    size: Option<u64>,
}

/// The files that an issue tells of.
pub(crate) fn of(document: &Value) -> impl Iterator<Item = File> {
    document["fields"]["attachment"].as_array().into_iter().flatten().filter_map(|file| {
        let name = file["filename"].as_str().unwrap_or_default().to_owned();
        Some(File { id: file["id"].as_str()?.to_owned(), name, size: file["size"].as_u64() })
    })
}

/// Issues with files that are not here and may be fetched. Blocks.
pub(crate) fn lacking(known: &HashMap<String, Known>, documents: &Documents, most: u64) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, known) in known.iter().filter(|(_, known)| !known.deleted) {
        for file in known.files.iter().filter(|file| file.size.is_none_or(|size| size <= most)) {
            // A name that no file can have is no file that is lacking.
            if documents.attachment(key, &file.id, &file.name).is_ok_and(|(path, _)| !path.is_file()) {
                keys.push(key.clone());
                break;
            }
        }
    }
    keys.sort();
    keys
}

/// Fetches the files of an issue that are not here yet; whether any came. What cannot be had is
/// left out.
pub(crate) async fn of_issue(api: &Api, rules: &Rules, documents: &Documents, key: &str) -> bool {
    let (kept, name) = (documents.clone(), key.to_owned());
    let Ok(Some(document)) = blocking(move || kept.read(&name)).await else { return false };
    let mut any = false;
    for file in document["fields"]["attachment"].as_array().into_iter().flatten() {
        if api.cancel.is_cancelled() {
            break;
        }
        match until_cancelled(&api.cancel, one(api, rules, documents, key, file)).await {
            Ok(came) => any |= came,
            Err(error) => {
                tracing::warn!(issue = key, code = error.code(), "a file of an issue is not fetched: {error}");
            }
        }
    }
    any
}

async fn one(api: &Api, rules: &Rules, documents: &Documents, key: &str, file: &Value) -> Result<bool> {
    let (Some(id), Some(url)) = (file["id"].as_str(), file["content"].as_str()) else { return Ok(false) };
    let (path, _) = documents.attachment(key, id, file["filename"].as_str().unwrap_or_default())?;
    if path.is_file() || file["size"].as_u64().is_some_and(|size| size > rules.most) {
        return Ok(false);
    }
    // The file's own words about where it is are no reason to send the token there.
    let same = url::Url::parse(url).is_ok_and(|url| url.origin().ascii_serialization() == api.base);
    let request = api.outbound.get(url).only_at(&rules.hosts).timeout(TIMEOUT).body_limit(rules.most);
    let request = if same { request.header("Authorization", api.authorization()) } else { request };
    let mut answer = request.send().await?.ok()?;
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    let staged = blocking(move || {
        std::fs::create_dir_all(&folder).map_err(|e| Error::io("make a folder for files", e))?;
        forget_cut_off(&folder);
        let mut builder = tempfile::Builder::new();
        builder.prefix(ARRIVING).tempfile_in(&folder).map_err(|e| Error::io("keep a file", e))
    });
    let mut staged = staged.await?;
    while let Some(chunk) = answer.chunk().await? {
        staged = blocking(move || {
            staged.write_all(&chunk).map_err(|e| Error::io("keep a file", e))?;
            Ok(staged)
        })
        .await?;
    }
    blocking(move || {
        staged.as_file().sync_all().map_err(|e| Error::io("keep a file", e))?;
        staged.persist(&path).map_err(|e| Error::io("keep a file", e.error))?;
        Ok(true)
    })
    .await
}
