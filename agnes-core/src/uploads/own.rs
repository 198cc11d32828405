//! What people keep here for themselves: sessions, artefacts, notes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Incoming, UploadError, Uploads};
use crate::context::CallContext;
use crate::error::Result;
use crate::ident::printable;
use crate::redaction::redacted;

/// Longest name of a session, in characters.
const LONGEST: usize = 200;
/// What keeping a session is called.
const SESSION: &str = "session.upload";

/// A file that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// What it is called.
    pub filename: String,
    /// Bytes.
    pub size: u64,
}

/// Where a file of a person goes.
#[derive(Debug, Clone)]
struct Place {
    folder: PathBuf,
    name: String,
    action: &'static str,
    /// Whether it arrives packed by gzip.
    is_packed: bool,
}

/// A file of a person that is arriving.
#[derive(Debug)]
pub struct OwnUpload {
    incoming: Incoming,
    place: Place,
}

impl OwnUpload {
    /// What is arriving.
    pub fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }
}

/// A file of a person's sessions, open. It stays as it is when another takes its name.
#[derive(Debug)]
pub struct OwnSession {
    /// Bytes.
    pub size: u64,
    file: Arc<File>,
}

impl OwnSession {
    /// At most `length` bytes from `offset` on; fewer only where the file ends.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        crate::catalog::read_piece(self.file.clone(), self.size, offset, length).await
    }
}

impl Uploads<'_> {
    /// Begins a file of the caller's session, which replaces one of that name. One whose name ends in
    /// `.gz` arrives packed, and is kept unpacked without that end; its content, too, may have no more
    /// bytes than a file may. [`keep`](Self::keep) fails with `invalid_gzip` otherwise.
    ///
    /// # Errors
    /// `invalid_upload_name`, `too_many_uploads`, `disk_full`, `inactive_user`, `scope_denied`.
    pub async fn session(&self, ctx: &CallContext, name: &str) -> Result<OwnUpload> {
        self.require(ctx).await?;
        let (is_packed, kept) = name.strip_suffix(".gz").map_or((false, name), |kept| (true, kept));
        if !is_session_name(name) || !is_session_name(kept) {
            return Err(UploadError::Name { name: printable(name, 80) }.into());
        }
        let folder = self.engine.folder().user_sessions().join(folder_of(ctx.principal().user_id()));
        self.begin(ctx, Place { folder, name: kept.to_owned(), action: SESSION, is_packed }).await
    }

    /// Opens a file of the caller's own sessions.
    ///
    /// # Errors
    /// `session_not_found`, also for a file of somebody else; `read_only_view` (who looks on as
    /// somebody sees no files of theirs), `inactive_user`, `scope_denied`.
    pub async fn own_session(&self, ctx: &CallContext, name: &str) -> Result<OwnSession> {
        self.require(ctx).await?;
        let missing = || UploadError::NoSession { name: printable(name, 80) };
        if !is_session_name(name) {
            return Err(missing().into());
        }
        let path = self.engine.folder().user_sessions().join(folder_of(ctx.principal().user_id())).join(name);
        let found = crate::duck::blocking(move || {
            // A link could lead anywhere.
            match std::fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_file() => {
                    let opened = File::open(&path).and_then(|file| {
                        // An upload may have replaced it since it was looked at.
                        let meta = file.metadata()?;
                        Ok(meta.is_file().then_some((file, meta.len())))
                    });
                    opened.map_err(|error| crate::Error::io("open a session's file", error))
                }
                Ok(_) => Ok(None),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(crate::Error::io("look for a session's file", error)),
            }
        })
        .await?;
        let (file, size) = found.ok_or_else(missing)?;
        self.engine
            .audit()
            .event(ctx, "session_download")
            .resource(format!("file:{}", printable(name, 200)))
            .params(json!({"size": size}))
            .later();
        Ok(OwnSession { size, file: Arc::new(file) })
    }

    /// Begins another file of the caller. Of the name the last piece counts; one that is no
    /// name for a file is replaced by a new one.
    ///
    /// # Errors
    /// `too_many_uploads`, `disk_full`, `inactive_user`, `scope_denied`.
    pub async fn artifact(&self, ctx: &CallContext, name: &str) -> Result<OwnUpload> {
        self.require(ctx).await?;
        let folder = self.engine.folder().user_artifacts().join(folder_of(ctx.principal().user_id()));
        let name = artifact_name(name);
        self.begin(ctx, Place { folder, name, action: "artifact.upload", is_packed: false }).await
    }

    /// Keeps the notes of the caller, in place of earlier ones.
    ///
    /// # Errors
    /// `upload_too_large`, `upload_quota_exceeded`, `too_many_uploads`, `disk_full`,
    /// `inactive_user`, `scope_denied`.
    pub async fn notes(&self, ctx: &CallContext, content: &str) -> Result<Uploaded> {
        self.require(ctx).await?;
        let access = self.engine.access().await?;
        let user = ctx.principal().user_id();
        let email = access.active_users.get(user).map_or(user, String::as_str).trim().to_lowercase();
        let digest = crate::orchestrator::hex(&Sha256::digest(email.as_bytes()));
        let name = format!("{}.md", &digest[..24]);
        let folder = self.engine.folder().user_local_md();
        let place = Place { folder, name, action: "local_md.upload", is_packed: false };
        let mut upload = self.begin(ctx, place).await?;
        upload.incoming.write(redacted(content).as_bytes()).await?;
        self.keep(ctx, upload).await
    }

    async fn begin(&self, ctx: &CallContext, place: Place) -> Result<OwnUpload> {
        let incoming = Incoming::begin(self.engine, ctx.principal().user_id(), &place.folder.join(&place.name)).await?;
        Ok(OwnUpload { incoming, place })
    }

    /// Keeps a file that has arrived.
    ///
    /// # Errors
    /// `upload_quota_exceeded`, `upload_too_large`, `invalid_gzip`, `disk_full`.
    pub async fn keep(&self, ctx: &CallContext, upload: OwnUpload) -> Result<Uploaded> {
        let OwnUpload { mut incoming, place } = upload;
        let mut size = incoming.size();
        let done = async {
            if place.action == SESSION {
                incoming.redact(place.is_packed).await?;
                size = incoming.size();
            }
            self.place(ctx, incoming, &place).await
        };
        let done = done.await;
        self.engine
            .audit()
            .event(ctx, place.action)
            .resource(format!("file:{}", printable(&place.name, 200)))
            .params(json!({"size": size}))
            .outcome(&done)
            .record()
            .await;
        done.map(|()| Uploaded { filename: place.name, size })
    }

    async fn place(&self, ctx: &CallContext, incoming: Incoming, place: &Place) -> Result<()> {
        let (target, size) = (place.folder.join(&place.name), incoming.size());
        let limit = self.engine.config().uploads.quota_bytes;
        // One at a time, so that two files cannot both be the last that fits.
        let _turn = self.engine.upload_state().placing.lock().await;
        let own = folder_of(ctx.principal().user_id());
        let folder = self.engine.folder();
        let (folders, replaced) =
            ([folder.user_sessions().join(&own), folder.user_artifacts().join(&own)], target.clone());
        let used =
            crate::duck::blocking(move || Ok(folders.iter().map(|folder| size_of(folder, &replaced)).sum::<u64>()));
        if used.await?.saturating_add(size) > limit {
            return Err(UploadError::Quota { limit }.into());
        }
        incoming.publish(&target).await
    }
}

/// Bytes of the files in a folder, but those of `replaced` and of files that are arriving.
fn size_of(folder: &Path, replaced: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let kept = entries.filter(|entry| entry.path() != *replaced && !is_arriving(&entry.file_name().to_string_lossy()));
    kept.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

fn is_arriving(name: &str) -> bool {
    crate::extract::fsio::is_temporary(name)
}

/// The folder of a person: their id, which is hex digits, or a digest of an id that is no name
/// for a folder.
fn folder_of(user_id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'@' | b'.');
    if (1..=128).contains(&user_id.len()) && !user_id.starts_with('.') && user_id.bytes().all(plain) {
        return user_id.to_owned();
    }
    crate::orchestrator::hex(&Sha256::digest(user_id.as_bytes()))
}

/// `[A-Za-z0-9._-]{1,200}`, but what means a folder or a file that is arriving.
fn is_session_name(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !name.bytes().all(|b| b == b'.')
        && !is_arriving(name)
}

/// The last piece of a name, or a new one.
fn artifact_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default().trim();
    let base: String = base.chars().filter(|c| !c.is_control()).collect();
    if base.is_empty() || base.starts_with('.') || base.len() > LONGEST || is_arriving(&base) {
        let id: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
        return format!("upload_{id}");
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["a.jsonl", "A-1_b.json", &"x".repeat(200), "-x", ".hidden"] {
            assert!(is_session_name(good), "{good}");
        }
        let arriving = format!("a.{}.tmp", "0".repeat(32));
        for bad in ["", ".", "..", "a/b", "a\\b", "a b", "é", "a\n", &"x".repeat(201), &arriving] {
            assert!(!is_session_name(bad), "{bad:?}");
        }
        for (name, kept) in [
            ("/etc/passwd", "passwd"),
            ("..\\..\\a.txt", "a.txt"),
            ("report žluť.pdf", "report žluť.pdf"),
            ("a\u{0}\n.txt", "a.txt"),
        ] {
            assert_eq!(artifact_name(name), kept);
        }
        for name in ["", "..", ".", "a/", ".bashrc", " ", &"x".repeat(300), &arriving] {
            assert!(artifact_name(name).starts_with("upload_"), "{name:?}");
        }
        for id in ["../x", "", ".", "a/b", "a\0"] {
            assert_eq!(folder_of(id).len(), 64, "{id:?}");
        }
        assert_eq!(folder_of("0f3a"), "0f3a");
    }
}
