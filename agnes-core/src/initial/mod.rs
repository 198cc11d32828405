//! The initial workspace: a git repository whose folder `workspace/` takes the place of the files
//! that `agnes init` writes otherwise.
//!
//! An admin names the repository; [`Initial::sync`] brings its newest commit, of which the files
//! below `workspace/` are kept, and nothing else. What is in it is untrusted: links, long files and
//! names that leave the folder are refused. Markdown files are templates of what the installation is
//! called and where it is; what does not render is left as it stands, and admins are told which.
//!
//! Git itself is spoken by whoever brings a [`Repositories`].

mod error;
mod model;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

pub use error::InitialError;
pub use model::{Applied, Fetched, InitialFiles, InitialOffer, InitialSynced, InitialView, Wanted};
pub use tree::TreeFile;
pub(crate) use tree::{is_reserved, plain};

use crate::Engine;
use crate::config::write_secrets;
use crate::context::CallContext;
use crate::duck::blocking;
use crate::error::{Error, Result};
use crate::extract::write_atomically;
use crate::ident::printable;
use crate::rbac::Ability;
use crate::registry::RegistryError;
use crate::secret::Secret;
use crate::templates::Place;

/// Variable of the repository's token.
const TOKEN: &str = "AGNES_INITIAL_WORKSPACE_TOKEN";
/// Key of the record among the texts of the installation.
const KEY: &str = "initial_workspace";
/// Folder of the repository that is taken.
pub const FOLDER: &str = "workspace";
/// What `agnes init` writes last; no repository may bring it.
pub const RESERVED: &str = ".claude/init-complete";

/// Brings what is in repositories of git.
#[async_trait]
pub trait Repositories: Send + Sync + std::fmt::Debug {
    /// Brings the newest commit of a branch into `scratch`, and writes the wanted folder of it to
    /// `archive`, a tar file. In words why that did not work, without any secret or path.
    async fn fetch(&self, wanted: &Wanted, scratch: &Path, archive: &Path) -> Result<Fetched, String>;
}

/// What an engine keeps for it.
#[derive(Debug, Default)]
pub(crate) struct InitialState {
    pub(crate) repositories: Option<Arc<dyn Repositories>>,
    /// Held by who brings a commit.
    turn: tokio::sync::Mutex<()>,
}

/// What is kept about the repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    url: String,
    branch: Option<String>,
    commit: String,
    synced_at: DateTime<Utc>,
    error: Option<String>,
    files: Vec<String>,
    unrendered: Vec<String>,
    /// Where the token that is kept may go.
    #[serde(default)]
    token_for: Option<String>,
}

/// The initial workspace of an engine; made by [`Engine::initial_workspace`].
#[derive(Debug, Clone, Copy)]
pub struct Initial<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// The files that take the place of those of `agnes init`.
    #[must_use]
    pub fn initial_workspace(&self) -> Initial<'_> {
        Initial { engine: self }
    }
}

impl Initial<'_> {
    async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())
    }

    async fn record(&self) -> Result<Option<Record>> {
        let kept = self.engine.store().templates().find(KEY).await?;
        let read = |text: String| serde_json::from_str(&text).map_err(|_| InitialError::Unreadable);
        Ok(kept.content.map(read).transpose()?)
    }

    async fn keep(&self, ctx: &CallContext, record: Option<&Record>) -> Result<()> {
        let text = record.map(serde_json::to_string).transpose();
        let text = text.map_err(|e| Error::internal("write the initial workspace", e))?;
        let (by, at) = (ctx.principal().user_id(), self.engine.clock().now());
        self.engine.store().templates().put(KEY, text.as_deref(), by, at).await
    }

    fn archive(&self, commit: &str) -> std::path::PathBuf {
        self.engine.folder().initial_workspace().join(format!("{commit}.tar"))
    }

    /// The token that is kept, if it was given for where this goes.
    fn token(&self, record: &Record) -> Option<Secret> {
        if record.token_for.is_none() || record.token_for != origin(&record.url) {
            return None;
        }
        self.engine.source_secrets().get(TOKEN).filter(|token| !token.expose().is_empty())
    }

    /// The repository, for admins.
    ///
    /// # Errors
    /// `admin_required`, `access_admin_required`.
    pub async fn view(&self, ctx: &CallContext) -> Result<InitialView> {
        self.admin(ctx).await?;
        Ok(self.shown(self.record().await?))
    }

    fn shown(&self, record: Option<Record>) -> InitialView {
        let record = record.as_ref();
        let (configured, has_token) = (record.is_some(), record.and_then(|record| self.token(record)).is_some());
        InitialView {
            configured,
            url: record.map(|record| record.url.clone()),
            branch: record.and_then(|record| record.branch.clone()),
            has_token,
            last_synced_at: record.map(|record| iso(record.synced_at)),
            commit_sha: record.map(|record| record.commit.clone()),
            last_error: record.and_then(|record| record.error.clone()),
            files: record.map(|record| record.files.clone()),
            unrendered: record.map(|record| record.unrendered.clone()).unwrap_or_default(),
        }
    }

    /// Takes the files of a repository from now on, once its newest commit is here. A token that
    /// is kept goes to the host that it was given for, to no other; the empty one is forgotten.
    /// Audited as `initial_workspace.register`.
    ///
    /// # Errors
    /// `private_url`, `invalid_field`, `bad_branch`, `git_failed`, `git_not_available`,
    /// `initial_workspace_invalid`; then
    /// nothing is changed. `admin_required`, `access_admin_required`, `settings_not_kept`.
    pub async fn register(
        &self,
        ctx: &CallContext,
        url: &str,
        branch: Option<&str>,
        token: Option<Secret>,
    ) -> Result<InitialView> {
        self.admin(ctx).await?;
        let done = self.register_held(ctx, url, branch, token).await;
        let seen = Url::parse(url).ok().map(|url| printable(bare(&url).as_str(), 200));
        let params = json!({"url": seen, "branch": branch.map(|branch| printable(branch, 80))});
        self.engine.audit().event(ctx, "initial_workspace.register").params(params).outcome(&done).record().await;
        Ok(self.shown(Some(done?)))
    }

    async fn register_held(
        &self,
        ctx: &CallContext,
        url: &str,
        branch: Option<&str>,
        token: Option<Secret>,
    ) -> Result<Record> {
        let _only_one = self.engine.initial_state().turn.lock().await;
        self.engine.settings().check_url("url", url).await?;
        let invalid = |field, reason: &str| RegistryError::InvalidField { field, reason: reason.to_owned() };
        if !Url::parse(url).is_ok_and(|url| bare(&url) == url) {
            return Err(invalid("url", "give the address alone, without user, query and `#`").into());
        }
        if token.as_ref().is_some_and(|token| token.expose().chars().any(char::is_control)) {
            return Err(invalid("token", "it is one line").into());
        }
        let branch = branch.map(str::trim).filter(|branch| !branch.is_empty());
        if branch.is_some_and(|branch| !is_branch(branch)) {
            return Err(InitialError::BadBranch.into());
        }
        let before = self.record().await?;
        let same_host = before.as_ref().is_some_and(|before| origin(&before.url) == origin(url));
        let used = match &token {
            Some(given) => Some(given.clone()).filter(|given| !given.expose().is_empty()),
            None if same_host => before.as_ref().and_then(|before| self.token(before)),
            None => None,
        };
        let record = self.bring(url, branch, used.clone()).await?;
        let is_new = token.is_some() || !same_host;
        if is_new {
            // At no moment does a token stand beside the address of another host.
            self.enter(None).await?;
        }
        self.keep(ctx, Some(&record)).await?;
        if is_new {
            self.enter(used).await?;
        }
        self.tidy(Some(record.commit.clone())).await;
        Ok(record)
    }

    /// Keeps a token beside the other secrets, or none.
    async fn enter(&self, token: Option<Secret>) -> Result<()> {
        if token.is_none() && self.engine.source_secrets().get(TOKEN).is_none() {
            return Ok(());
        }
        let (folder, now) = (self.engine.folder().clone(), self.engine.clock().now());
        let changes = BTreeMap::from([(TOKEN.to_owned(), token)]);
        blocking(move || write_secrets(&folder, &changes, now)).await?;
        self.engine.settings().reload_secrets().await
    }

    /// Brings the newest commit. Audited as `initial_workspace.sync`, or `.sync_failed`: then the files stay
    /// as they were.
    ///
    /// # Errors
    /// `initial_workspace_not_configured`, `git_failed`, `git_not_available`, `initial_workspace_invalid`,
    /// `private_url`, `admin_required`, `access_admin_required`.
    pub async fn sync(&self, ctx: &CallContext) -> Result<InitialSynced> {
        self.admin(ctx).await?;
        let _only_one = self.engine.initial_state().turn.lock().await;
        let before = self.record().await?.ok_or(InitialError::NotConfigured)?;
        let was_here = self.archive(&before.commit).is_file();
        let brought = match self.engine.settings().check_url("url", &before.url).await {
            Ok(()) => self.bring(&before.url, before.branch.as_deref(), self.token(&before)).await,
            Err(error) => Err(error),
        };
        let action = if brought.is_ok() { "initial_workspace.sync" } else { "initial_workspace.sync_failed" };
        let event = self.engine.audit().event(ctx, action).outcome(&brought);
        let done = match brought {
            Ok(record) => self.keep(ctx, Some(&record)).await.map(|()| record),
            Err(error) => {
                let failed = Record { error: Some(error.to_string()), ..before };
                self.keep(ctx, Some(&failed)).await.and(Err(error))
            }
        };
        event.record().await;
        let record = done?;
        self.tidy(Some(record.commit.clone())).await;
        let action = if was_here { "update" } else { "clone" };
        Ok(InitialSynced { action, commit: record.commit, files: record.files.len() })
    }

    /// Goes back to the usual files of `agnes init`; with `purge` what is here of the repository goes
    /// too. Its token is forgotten. Audited as `initial_workspace.delete`.
    ///
    /// # Errors
    /// `initial_workspace_not_configured`, `admin_required`, `access_admin_required`.
    pub async fn remove(&self, ctx: &CallContext, purge: bool) -> Result<()> {
        self.admin(ctx).await?;
        let _only_one = self.engine.initial_state().turn.lock().await;
        self.record().await?.ok_or(InitialError::NotConfigured)?;
        let done = match self.enter(None).await {
            Ok(()) => self.keep(ctx, None).await,
            Err(error) => Err(error),
        };
        let event = self.engine.audit().event(ctx, "initial_workspace.delete").params(json!({"purge": purge}));
        event.outcome(&done).record().await;
        done?;
        if purge {
            self.tidy(None).await;
        }
        Ok(())
    }

    /// What there is for a workspace of the caller.
    ///
    /// # Errors
    /// `scope_denied`.
    pub async fn offer(&self, ctx: &CallContext) -> Result<InitialOffer> {
        ctx.principal().require(Ability::Workspace)?;
        let Some(record) = self.record().await? else {
            let nothing = InitialOffer {
                configured: false,
                synced: false,
                template_source: None,
                template_sha: None,
                synced_at: None,
                files: Vec::new(),
            };
            return Ok(nothing);
        };
        Ok(InitialOffer {
            configured: true,
            synced: self.archive(&record.commit).is_file(),
            template_source: Some(record.url),
            template_sha: Some(record.commit),
            synced_at: Some(iso(record.synced_at)),
            files: record.files,
        })
    }

    /// The commit that [`Initial::files`] would be of.
    ///
    /// # Errors
    /// `initial_workspace_not_configured`, `initial_workspace_not_synced`, `scope_denied`.
    pub async fn commit(&self, ctx: &CallContext) -> Result<String> {
        let offer = self.offer(ctx).await?;
        match (offer.template_sha, offer.synced) {
            (Some(commit), true) => Ok(commit),
            (Some(_), false) => Err(InitialError::NotSynced.into()),
            (None, _) => Err(InitialError::NotConfigured.into()),
        }
    }

    /// The files, rendered. Audited as `initial_workspace.fetch_started`.
    ///
    /// # Errors
    /// As [`Initial::commit`].
    pub async fn files(&self, ctx: &CallContext, place: Place<'_>) -> Result<InitialFiles> {
        let commit = self.commit(ctx).await?;
        let archive = self.archive(&commit);
        let files = blocking(move || tree::read(&archive)).await.map_err(|error| {
            tracing::warn!("the files of the initial workspace: {error}");
            InitialError::NotSynced
        })?;
        let values = self.values(place);
        let files = blocking(move || Ok(tree::rendered(files, &values).0)).await?;
        let event = self.engine.audit().event(ctx, "initial_workspace.fetch_started");
        event.params(json!({"template_sha": commit})).later();
        Ok(InitialFiles { commit, files })
    }

    /// Notes what a laptop did with them: audited as `initial_workspace.applied`, and nothing else.
    ///
    /// # Errors
    /// `scope_denied`, `invalid_field`.
    pub async fn applied(
        &self,
        ctx: &CallContext,
        mode: Applied,
        template_sha: &str,
        files_overwritten: u32,
        files_created: u32,
    ) -> Result<()> {
        ctx.principal().require(Ability::Workspace)?;
        let mode = if mode == Applied::ForceOverwrite { "force_overwrite" } else { "fresh_install" };
        let params = json!({
            "mode": mode, "template_sha": printable(template_sha, 64),
            "files_overwritten": files_overwritten, "files_created": files_created,
        });
        self.engine.audit().event(ctx, "initial_workspace.applied").params(params).record().await;
        Ok(())
    }

    fn values(&self, place: Place<'_>) -> Value {
        let mut values = self.engine.templates().common(place);
        // Of a commit there is one archive for everybody, at any time.
        if let Some(values) = values.as_object_mut() {
            values.retain(|name, _| matches!(name.as_str(), "instance" | "server"));
        }
        values
    }

    /// Brings the newest commit of a repository beside those that are here.
    async fn bring(&self, url: &str, branch: Option<&str>, token: Option<Secret>) -> Result<Record> {
        let state = self.engine.initial_state();
        let repositories = state.repositories.as_ref().ok_or(InitialError::NoGit)?;
        let wanted =
            Wanted { url: url.to_owned(), branch: branch.map(ToOwned::to_owned), token: token.clone(), folder: FOLDER };
        let root = self.engine.scratch().to_owned();
        let scratch = blocking(move || {
            std::fs::create_dir_all(&root).map_err(|e| Error::io("make the scratch folder", e))?;
            tempfile::tempdir_in(&root).map_err(|e| Error::io("make a scratch folder", e))
        })
        .await?;
        let archive = scratch.path().join("tree.tar");
        let fetched = repositories.fetch(&wanted, &scratch.path().join("git"), &archive).await.map_err(|reason| {
            let reason = token.as_ref().map_or(reason.clone(), |token| token.scrub(&reason));
            InitialError::GitFailed { reason: printable(&reason, 300) }
        })?;
        if !fetched.has_folder {
            return Err(InitialError::invalid("it has no folder `workspace/`").into());
        }
        if fetched.commit.len() < 40 || !fetched.commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InitialError::GitFailed { reason: "it names no commit".to_owned() }.into());
        }
        let (kept, place) = (
            self.archive(&fetched.commit),
            Place { origin: "https://agnes.example.com", offers: true, authority: None },
        );
        let values = self.values(place);
        let (files, unrendered) = blocking(move || {
            let files = tree::read(&archive)?;
            let names: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
            let (_, unrendered) = tree::rendered(files, &values);
            let bytes = std::fs::read(&archive).map_err(|e| Error::io("read the repository's files", e))?;
            if let Some(folder) = kept.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|e| Error::io("make the folder of the initial workspace", e))?;
            }
            write_atomically(&kept, &bytes)?;
            drop(scratch);
            Ok((names, unrendered))
        })
        .await?;
        Ok(Record {
            url: url.to_owned(),
            branch: branch.map(ToOwned::to_owned),
            commit: fetched.commit,
            synced_at: self.engine.clock().now(),
            error: None,
            files,
            unrendered,
            token_for: token.and_then(|_| origin(url)),
        })
    }

    /// Deletes what is here of every commit but one. What stays is no harm.
    async fn tidy(&self, keep: Option<String>) {
        let (folder, keep) = (self.engine.folder().initial_workspace(), keep.map(|commit| format!("{commit}.tar")));
        let done = blocking(move || {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if Some(entry.file_name().to_string_lossy().as_ref()) != keep.as_deref() {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
            Ok(())
        });
        let _ = done.await;
    }
}

fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// What a token is for: scheme, host and port.
/// An address without user, query and what follows `#`: what of it may be seen.
fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    // Those of schemes that have no user are refused here.
    let _ = bare.set_username("").and_then(|()| bare.set_password(None));
    bare
}

fn origin(url: &str) -> Option<String> {
    Some(Url::parse(url).ok()?.origin().ascii_serialization())
}

/// Whether git takes it for the name of a branch, and for nothing else.
fn is_branch(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    !name.is_empty()
        && name.len() <= 200
        && name.bytes().all(plain)
        && !name.starts_with(['-', '/', '.'])
        && !name.contains("..")
        && !name.contains("//")
        && !name.ends_with(['/', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_no_option_and_no_range() {
        for good in ["main", "feature/a-b", "v1.2", "a_b"] {
            assert!(is_branch(good), "{good}");
        }
        for bad in ["", "-main", "--upload-pack=x", "a..b", "a b", "a\n", "/a", "a/", "a//b", "a:b", "@{u}", ".a"] {
            assert!(!is_branch(bad), "{bad}");
        }
    }

    #[test]
    fn a_token_is_for_one_origin() {
        assert_eq!(origin("https://git.example.com/a/b.git"), origin("https://git.example.com:443/c"));
        for other in ["https://git.example.org/a", "http://git.example.com/a", "https://git.example.com:8443/a"] {
            assert_ne!(origin("https://git.example.com/a/b.git"), origin(other), "{other}");
        }
    }
}
