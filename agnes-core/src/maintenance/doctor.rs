//! What is wrong, and what to do about it.

use serde::{Deserialize, Serialize};

use super::Maintenance;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::orchestrator::SourceStatus;
use crate::query::Isolation;
use crate::rbac::{AuthMethod, ClientKind, Principal};
use crate::sync::{JobState, SyncStatus};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warning,
    /// Does not work.
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How it is.
    pub status: CheckStatus,
    /// In words.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DoctorReport {
    /// `healthy`, `degraded` or `unhealthy`: the worst finding.
    pub overall: String,
    /// The findings.
    pub checks: Vec<Check>,
}

impl Maintenance<'_> {
    /// Looks at everything that can be wrong with a data folder.
    ///
    /// # Errors
    /// `admin_required`; a thing that is wrong is a finding, not an error.
    pub async fn doctor(&self, ctx: &CallContext) -> Result<DoctorReport> {
        self.admin(ctx).await?;
        let checks = vec![
            self.engine_check(),
            self.state_check().await,
            self.broken_state_check(),
            self.disk_check().await,
            self.generation_check().await,
            self.sources_check(),
            self.sync_check().await,
            self.jobs_check().await,
            self.admins_check().await,
            self.audit_check(),
            runtime_check(self.engine).await,
        ];
        let worst = checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Ok);
        let overall = match worst {
            CheckStatus::Ok => "healthy",
            CheckStatus::Warning => "degraded",
            CheckStatus::Error => "unhealthy",
        };
        Ok(DoctorReport { overall: overall.to_owned(), checks })
    }

    fn engine_check(&self) -> Check {
        match crate::duck::version() {
            Ok(version) => ok("engine", format!("Agnes {} on DuckDB {version}", env!("CARGO_PKG_VERSION"))),
            Err(error) => bad("engine", error.to_string(), "run `make duckdb`, or reinstall Agnes"),
        }
    }

    async fn state_check(&self) -> Check {
        match self.engine.store().schema().await {
            Ok(schema) if schema.writable => ok("state", format!("schema version {}", schema.version)),
            Ok(schema) => bad("state", format!("schema version {} cannot be written", schema.version), "upgrade Agnes"),
            Err(error) => bad("state", error.to_string(), "restore a backup"),
        }
    }

    /// Files that a recovery of the state kept aside.
    fn broken_state_check(&self) -> Check {
        let broken = format!("{}.broken.", name_of(&self.engine.folder().state_db()));
        let entries = std::fs::read_dir(self.engine.folder().state_dir()).into_iter().flatten().flatten();
        let mut kept: Vec<String> =
            entries.map(|entry| name_of(&entry.path())).filter(|name| name.starts_with(&broken)).collect();
        kept.sort();
        match kept.as_slice() {
            [] => ok("state_recovery", "the state never had to be recovered".to_owned()),
            [.., last] => warn(
                "state_recovery",
                format!("a damaged write-ahead log was put aside, {} files, the last is `{last}`", kept.len()),
                "see `state.recovered` in `agnes admin audit list`, check the last changes, then move the files away",
            ),
        }
    }

    pub(super) async fn disk_check(&self) -> Check {
        let folder = self.engine.folder().clone();
        // The disk of a network may take its time.
        match crate::duck::blocking(move || crate::sync::free_bytes(folder.root())).await {
            Ok(free) if free < 1 << 30 => {
                warn("disk", format!("{} MiB are free", free >> 20), "free some space, or run `agnes gc`")
            }
            Ok(free) => ok("disk", format!("{} GiB are free", free >> 30)),
            Err(error) => warn("disk", error.to_string(), "check the data folder"),
        }
    }

    async fn generation_check(&self) -> Check {
        let generation = self.engine.generation();
        if generation.number == 0 {
            return warn("catalog", "nothing is published yet".to_owned(), "add a source and run `agnes sync`");
        }
        let folder = self.engine.folder().clone();
        let tables = generation.tables().count();
        let missing = crate::duck::blocking(move || {
            let parts = generation.tables().flat_map(|t| &t.parts);
            Ok(parts
                .filter(|part| !folder.blob(&part.sha256).metadata().is_ok_and(|m| m.len() == part.size_bytes))
                .count())
        })
        .await
        .unwrap_or(0);
        match missing {
            0 => ok("catalog", format!("generation {}, tables: {tables}", self.engine.generation().number)),
            n => bad(
                "catalog",
                format!("published files that are missing or damaged: {n}"),
                "run `agnes rebuild`, or restore a backup",
            ),
        }
    }

    fn sources_check(&self) -> Check {
        let generation = self.engine.generation();
        let troubled: Vec<String> = generation
            .outcome
            .sources
            .iter()
            .filter(|s| {
                matches!(s.status, SourceStatus::Unreadable | SourceStatus::RejectedName) || !s.skipped.is_empty()
            })
            .map(|s| format!("`{}`", s.source))
            .collect();
        if troubled.is_empty() {
            ok("sources", format!("{} published", generation.sources.len()))
        } else {
            warn(
                "sources",
                format!("not everything of {} is published", troubled.join(", ")),
                "`agnes rebuild` says why",
            )
        }
    }

    async fn sync_check(&self) -> Check {
        match self.engine.store().sync().all().await {
            Ok(states) => {
                let failed: Vec<String> = states
                    .iter()
                    .filter(|s| s.status == SyncStatus::Error)
                    .map(|s| format!("`{}`", s.table_id))
                    .collect();
                if failed.is_empty() {
                    ok("sync", format!("tables: {}, none failed last", states.len()))
                } else {
                    let shown = failed.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
                    warn(
                        "sync",
                        format!("failed last, {} of {}: {shown}", failed.len(), states.len()),
                        "`agnes sync TABLE` tries again and says why",
                    )
                }
            }
            Err(error) => bad("sync", error.to_string(), "restore a backup"),
        }
    }

    async fn jobs_check(&self) -> Check {
        match self.engine.store().jobs().list(None, &[JobState::Queued, JobState::Running], 1000).await {
            Ok(jobs) => {
                // Those of the scheduler come back for ever.
                let waiting = jobs.iter().filter(|job| job.kind != crate::scheduler::SCHEDULED_JOB).count();
                ok("jobs", format!("{waiting} unfinished"))
            }
            Err(error) => bad("jobs", error.to_string(), "restore a backup"),
        }
    }

    async fn admins_check(&self) -> Check {
        let access = match self.engine.access().await {
            Ok(access) => access,
            Err(error) => return bad("admins", error.to_string(), "restore a backup"),
        };
        if access.admin_group.is_none() {
            return bad(
                "admins",
                "the group `Admin` is missing".to_owned(),
                "open the data folder once with a newer Agnes",
            );
        }
        let admins = access
            .active_users
            .keys()
            .filter(|id| access.is_admin(&Principal::user(id.as_str(), AuthMethod::Local, ClientKind::Cli)))
            .count();
        match admins {
            0 => warn("admins", "no active user is an admin".to_owned(), "`agnes admin group add-member Admin EMAIL`"),
            n => ok("admins", format!("{n} active")),
        }
    }

    fn audit_check(&self) -> Check {
        match self.engine.audit().failures() {
            0 => ok("audit", "every event is recorded".to_owned()),
            n => bad("audit", format!("{n} events were lost since the start"), "the log has the cause"),
        }
    }
}

fn name_of(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What the query runtime in force guarantees.
async fn runtime_check(engine: &Engine) -> Check {
    const NAME: &str = "query_runtime";
    match engine.queries().isolation().await {
        Ok(Isolation::InProcess) => {
            let detail = "queries run in this process: parser, catalog and engine walls hold; a query that \
                          breaks the engine itself ends this process";
            ok(NAME, detail.to_owned())
        }
        Ok(Isolation::Process { missing }) if missing.is_empty() => {
            let detail = "queries run in confined processes: no other file, no network, no program, a ceiling on \
                          memory; each was tried from inside";
            ok(NAME, detail.to_owned())
        }
        Ok(Isolation::Process { missing }) => warn(
            NAME,
            format!("queries run in processes of their own, but not guaranteed here: {}", missing.join(", ")),
            "use a newer kernel; `query.strict: true` refuses to start without",
        ),
        Err(error) => bad(NAME, error.to_string(), "the log has the cause; `query.isolation: in_process` goes without"),
    }
}

fn ok(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), status: CheckStatus::Ok, detail, hint: None }
}

fn warn(name: &str, detail: String, hint: &str) -> Check {
    Check { name: name.to_owned(), status: CheckStatus::Warning, detail, hint: Some(hint.to_owned()) }
}

fn bad(name: &str, detail: String, hint: &str) -> Check {
    Check { name: name.to_owned(), status: CheckStatus::Error, detail, hint: Some(hint.to_owned()) }
}
