//! One export from the request to its files here. A run that was cut off goes on: with the same
//! job, the same file, and the slices that are here already.

use std::time::Duration;

use agnes_core::connector::SourceContext;
use agnes_core::duck::blocking;
use agnes_core::error::Result;

use super::api::Api;
use super::download::{Files, How, download};
use super::error::KeboolaError;
use super::export::ExportSpec;
use super::model::Table;
use super::workspace::Workspace;

/// A table at the source, and how its exports are made.
pub(crate) struct Pull<'a> {
    pub(crate) api: &'a Api,
    pub(crate) how: &'a How,
    pub(crate) source: &'a SourceContext,
    /// See [`super::project`].
    pub(crate) project: String,
    /// The name it is published under.
    pub(crate) table: &'a str,
    /// As it was when the run began.
    pub(crate) detail: &'a Table,
    /// When it had changed last by then.
    pub(crate) stamp: Option<String>,
    pub(crate) poll: Duration,
    pub(crate) timeout: Duration,
    pub(crate) max_age: Duration,
}

/// The rows of one export, here.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) workspace: Workspace,
    pub(crate) files: Files,
    /// When the export began, Unix seconds.
    pub(crate) started_at: i64,
    /// When the table had changed last by then.
    pub(crate) stamp: Option<String>,
    /// Rows, where the job says so of the export itself.
    pub(crate) rows: Option<u64>,
    /// Rows that the job says where these may be the export's or the table's.
    pub(crate) perhaps: Option<u64>,
    /// Most rows that the table had before the export and after it.
    pub(crate) counted: Option<u64>,
}

/// Rows of a table before an export and after it, where they are its own.
type Counted = Vec<u64>;

impl Pull<'_> {
    /// A folder for the work that `what` identifies.
    pub(crate) async fn workspace(&self, what: &str) -> Result<Workspace> {
        let (scratch, table, max_age) = (self.source.scratch.clone(), self.table.to_owned(), self.max_age);
        let what = format!("{}\n{}\n{}\n{what}", self.source.name, self.project, self.detail.id);
        blocking(move || Workspace::open(&scratch, &table, &what, max_age)).await
    }

    /// Exports `spec`, which `what` identifies from one run to the next, and brings it here.
    /// What the spec says of times counts only where the export begins now.
    pub(crate) async fn pull(&self, what: &str, spec: &ExportSpec, now: i64) -> Result<Pulled> {
        let mut workspace = self.workspace(what).await?;
        if !workspace.state.columns.is_empty() && workspace.state.columns != self.detail.columns {
            workspace = blocking(move || workspace.restart().map(|()| workspace)).await?;
        }
        let resumed = workspace.state.job.is_some();
        match self.through(&mut workspace, spec, now).await {
            // The job or its file may be gone by now: that is no reason to fail.
            Err(error) if resumed && matches!(error.code(), "keboola_not_found" | "keboola_job_failed") => {
                tracing::warn!(table = self.table, "an export cannot be gone on with, it is made anew: {error}");
                workspace = blocking(move || workspace.restart().map(|()| workspace)).await?;
                let files = self.through(&mut workspace, spec, now).await;
                self.pulled(workspace, spec, files)
            }
            files => self.pulled(workspace, spec, files),
        }
    }

    fn pulled(&self, mut workspace: Workspace, spec: &ExportSpec, done: Result<(Files, Counted)>) -> Result<Pulled> {
        match done {
            Ok((files, counted)) => {
                let told = workspace.state.rows;
                let rows = told.filter(|rows| is_of_export(*rows, spec, &counted));
                let perhaps = told.filter(|_| rows.is_none());
                let (started_at, stamp) = (workspace.state.started_at, workspace.state.stamp.clone());
                let counted = counted.into_iter().max();
                Ok(Pulled { workspace, files, started_at, stamp, rows, perhaps, counted })
            }
            Err(error) => {
                // Kept for the next attempt, unless that has to begin anew.
                let again = error.is_retryable() || error.code() == "cancelled";
                let spoiled = ["keboola_file_invalid", "keboola_slice_invalid", "keboola_schema_changed"];
                if !again || spoiled.contains(&error.code()) {
                    workspace.finish();
                }
                Err(error)
            }
        }
    }

    async fn through(&self, workspace: &mut Workspace, spec: &ExportSpec, now: i64) -> Result<(Files, Counted)> {
        let state = &mut workspace.state;
        let job = match state.job.clone() {
            Some(job) => job,
            None => {
                let form = spec.form();
                let job = self.api.export(&self.detail.id, &form).await?.id;
                (state.started_at, state.form, state.job) = (now, form, Some(job.clone()));
                state.columns.clone_from(&self.detail.columns);
                state.stamp.clone_from(&self.stamp);
                workspace.save()?;
                job
            }
        };
        let file = match workspace.state.file.clone() {
            Some(file) => file,
            None => {
                let done = self.api.finished(&job, self.poll, self.timeout).await?;
                let reason = "the job names no file";
                let file =
                    done.file().ok_or(KeboolaError::NotUnderstood { call: "look at the export's job", reason })?;
                (workspace.state.file, workspace.state.rows) = (Some(file.clone()), done.rows());
                workspace.save()?;
                file
            }
        };
        // Slices have no header: the columns have to be those of before the export.
        let after = self.api.table(&self.detail.id).await?;
        if after.columns != self.detail.columns {
            return Err(KeboolaError::SchemaChanged.into());
        }
        let counted: Counted = [self.detail, &after].into_iter().filter_map(|table| table.rows_count).collect();
        // Nothing to export leaves nothing; any other empty list of slices is one that was cut.
        let may_be_empty = match workspace.state.rows.filter(|rows| is_of_export(*rows, spec, &counted)) {
            Some(rows) => rows == 0,
            None => !spec.is_whole() || counted.contains(&0),
        };
        let how = How { may_be_empty, ..self.how.clone() };
        let files = download(self.api, &how, workspace, &file, spec.file_type, self.source, self.table).await?;
        Ok((files, counted))
    }
}

/// Whether the rows that a job tells are those of its export: some of Keboola's backends count the
/// table whatever part of it was asked for.
fn is_of_export(rows: u64, spec: &ExportSpec, counted: &Counted) -> bool {
    spec.is_whole() || counted.iter().min().is_some_and(|all| rows < *all) || rows == 0
}
