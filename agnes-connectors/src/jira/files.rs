//! Files of issues, from the site and from nowhere else.

use std::io::Write as _;
use std::path::Path;

use agnes_core::duck::blocking;
use agnes_core::error::{Error, Result};
use agnes_core::push::Documents;
use serde_json::Value;
use std::time::Duration;

use super::api::Api;

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
        match one(api, rules, documents, key, file).await {
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
