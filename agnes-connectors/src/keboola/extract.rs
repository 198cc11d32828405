//! One table: everything, what changed, or part by part.

use std::time::Duration;

use agnes_core::connector::{ExtractReport, ExtractRequest, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits, blocking};
use agnes_core::error::Result;
use agnes_core::extract::{ExtractAttach, RemoteRelation, TableWriter};
use agnes_core::ident::{nearest, printable, quote_literal};
use agnes_core::registry::{QueryMode, RegisteredTable, SyncStrategy};
use chrono::{DateTime, Utc};

use super::KeboolaConnector;
use super::config::{KeboolaConfig, TableOptions, variable};
use super::cursor::{self, Cursor};
use super::delta::{Delta, all_there};
use super::download::{How, turn};
use super::error::KeboolaError;
use super::export::{ExportSpec, FileType};
use super::filters;
use super::load::{Load, Shape};
use super::merge::{Keys, parquet};
use super::model::Table;
use super::partitions;
use super::pull::{Pull, Pulled};
use super::types::{self, Column};

/// Days that an incremental sync reads again, unless the table says otherwise.
const WINDOW_DAYS: i64 = 7;
/// From this many rows on the log says that merging into them costs as much as reading them.
const LARGE: u64 = 5_000_000;
const DAY: i64 = 86_400;
/// Seconds that are read again whatever the window.
const OVERLAP: i64 = 300;
/// Age of a cut-off export, seconds, from which on it is not gone on with.
const MAX_AGE: u64 = 3600;

/// One table of one run.
pub(crate) struct Run<'a> {
    pub(crate) connector: &'a KeboolaConnector,
    pub(crate) source: &'a SourceContext,
    pub(crate) request: &'a ExtractRequest,
    pub(crate) pull: Pull<'a>,
    pub(crate) options: &'a TableOptions,
    pub(crate) spec: ExportSpec,
    pub(crate) columns: Vec<Column>,
    pub(crate) keys: Vec<String>,
    pub(crate) last: Option<Cursor>,
    /// See [`Cursor::counts_table`].
    pub(crate) counts_table: bool,
    pub(crate) settings: String,
    /// See [`Cursor::project`].
    pub(crate) project: String,
    pub(crate) now: DateTime<Utc>,
    pub(crate) notes: Vec<String>,
}

/// Reads one table into `writer`.
pub(crate) async fn extract(
    connector: &KeboolaConnector,
    source: &SourceContext,
    request: &ExtractRequest,
    writer: TableWriter,
) -> Result<(TableWriter, ExtractReport)> {
    let config = KeboolaConfig::parse(&source.config)?;
    let secrets = source.secrets.as_ref();
    let api = connector.api(source, &config)?;
    let options = TableOptions::parse(request.table.options.as_ref())?;
    let (now, id) = (Utc::now(), table_id(&request.table)?);
    let mut notes = Vec::new();
    let spec = spec(&request.table, &options, &config, now, &mut notes)?;
    // Another project may have a table of the same name.
    let project = super::project(&config, secrets, &super::identity(&api, &config).await?)?;
    let detail = api.table(&id).await?;
    let names = spec.columns.clone().unwrap_or_else(|| detail.columns.clone());
    check_columns(&detail, &names, &spec, &options)?;
    if request.table.query_mode == QueryMode::Remote {
        return Ok((writer, remote(source, &config, &id, &types::columns(&detail, &names))?));
    }
    let how = How {
        endpoints: config.endpoints.clone(),
        timeout: config.slice_timeout(secrets),
        slots: connector.slots.clone(),
        writing: None,
        may_be_empty: false,
    };
    let strategy = match request.table.query_mode {
        QueryMode::Materialized => SyncStrategy::FullRefresh,
        _ => request.table.sync_strategy,
    };
    let keys = request.table.primary_key.clone().filter(|keys| !keys.is_empty()).unwrap_or(detail.primary_key.clone());
    let settings = cursor::settings(&[
        &id,
        strategy.as_str(),
        &format!("{:?} {keys:?}", spec.form()),
        &format!("{:?} {:?}", request.table.partition_by, request.table.partition_granularity),
        &format!("{:?} {:?}", request.table.max_history_days, options.deleted_column),
    ]);
    let last = Cursor::usable(request, &settings, &project);
    let run = Run {
        connector,
        source,
        request,
        columns: types::columns(&detail, &names),
        counts_table: last.as_ref().is_some_and(|last| last.counts_table),
        last,
        pull: Pull {
            api: &api,
            how: &how,
            source,
            project: project.clone(),
            table: request.name.as_str(),
            detail: &detail,
            stamp: cursor::stamp(&detail, now).filter(|_| !spec.moves()),
            poll: config.poll_interval(secrets),
            timeout: config.export_timeout(secrets),
            max_age: Duration::from_secs(variable(secrets, "AGNES_SCRATCH_MAX_AGE_SEC").unwrap_or(MAX_AGE)),
        },
        options: &options,
        spec,
        keys,
        settings,
        project,
        now,
        notes,
    };
    run.go(strategy, writer).await
}

/// Where a table is that stays in Keboola, for the engine's extension.
fn remote(source: &SourceContext, config: &KeboolaConfig, id: &str, columns: &[Column]) -> Result<ExtractReport> {
    let (bucket, table) = id.rsplit_once('.').unwrap_or(("", id));
    let attach = ExtractAttach {
        alias: "kbc".to_owned(),
        extension: "keboola".to_owned(),
        url: config.url(source.secrets.as_ref())?,
        token_env: config.token_env().to_owned(),
    };
    let columns = columns.iter().map(|column| (column.name.clone(), column.kind.sql())).collect();
    let remote = RemoteRelation { attach, schema: bucket.to_owned(), table: table.to_owned(), columns };
    Ok(ExtractReport { remote: Some(remote), ..ExtractReport::default() })
}

/// `bucket.table`. A bucket that stands before the table's name too is taken off there.
pub(crate) fn table_id(row: &RegisteredTable) -> Result<String, KeboolaError> {
    let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
    let table = given(&row.source_table).ok_or(KeboolaError::TableId { reason: "`source_table` is not set" })?;
    let id = match given(&row.bucket) {
        Some(bucket) => {
            let table = table.strip_prefix(&format!("{bucket}.")).unwrap_or(&table);
            format!("{bucket}.{table}")
        }
        None => table,
    };
    let relaxed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if id.len() > 257 || !id.bytes().all(relaxed) {
        return Err(KeboolaError::TableId {
            reason: "it holds other characters than letters, digits, `_`, `.` and `-`",
        });
    }
    if id.split('.').count() < 3 || id.split('.').any(str::is_empty) {
        return Err(KeboolaError::TableId { reason: "it is not `stage.bucket.table`" });
    }
    Ok(id)
}

/// What is asked of the export, times of change left aside.
fn spec(
    row: &RegisteredTable,
    options: &TableOptions,
    config: &KeboolaConfig,
    now: DateTime<Utc>,
    notes: &mut Vec<String>,
) -> Result<ExportSpec, KeboolaError> {
    let file_type = options.file_type.or(config.file_type);
    if options.columns.as_ref().is_some_and(|columns| columns.is_empty() || columns.iter().any(|c| c.contains(','))) {
        return Err(KeboolaError::invalid("options.columns", "it is no list of names"));
    }
    let (materialized, today) = (row.query_mode == QueryMode::Materialized, now.date_naive());
    let mut spec = match materialized {
        true => ExportSpec::of_query(row, file_type.unwrap_or(FileType::Parquet), today, notes)?,
        false => ExportSpec::whole(file_type.unwrap_or(FileType::Csv)),
    };
    if materialized && row.sync_strategy != SyncStrategy::FullRefresh {
        notes.push("it is materialized, so read whole: `sync_strategy` is for local tables".to_owned());
    }
    // What a query says stands over what the row says.
    spec.columns = spec.columns.or_else(|| options.columns.clone());
    if spec.filters.is_empty() {
        spec.filters = filters::parse(row.where_filters.as_ref(), materialized, today)?;
    }
    Ok(spec)
}

fn check_columns(
    detail: &Table,
    names: &[String],
    spec: &ExportSpec,
    options: &TableOptions,
) -> Result<(), KeboolaError> {
    let known = |column: &str| match detail.columns.iter().any(|known| known == column) {
        true => Ok(()),
        false => Err(KeboolaError::NoColumn {
            column: printable(column, 60),
            suggestion: nearest(column, detail.columns.iter().map(String::as_str)).map(str::to_owned),
        }),
    };
    if names.is_empty() {
        return Err(KeboolaError::NotUnderstood { call: "describe the table", reason: "it names no columns" });
    }
    names.iter().try_for_each(|name| known(name))?;
    spec.filters.iter().try_for_each(|filter| known(&filter.column))?;
    options.deleted_column.iter().try_for_each(|column| known(column))
}

/// Whether rows that are gone at the source are still here, and when everything is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    No,
    Now,
    /// By a later run, which is to look although nothing changed.
    Later,
}

impl Run<'_> {
    async fn go(mut self, strategy: SyncStrategy, writer: TableWriter) -> Result<(TableWriter, ExtractReport)> {
        if strategy != SyncStrategy::FullRefresh && self.keys.is_empty() {
            return Err(KeboolaError::NoKey.into());
        }
        let days_full = self.options.full_refresh_days.map(|days| i64::from(days) * DAY);
        if let Some(last) = &self.last {
            if !last.has_columns(&self.columns) {
                self.notes.push("the columns changed at the source: everything is read again".to_owned());
                self.last = None;
            } else if days_full.is_some_and(|days| {
                strategy != SyncStrategy::FullRefresh && self.now.timestamp() - last.full_at >= days
            }) {
                self.notes.push("everything is read again, as `full_refresh_days` says".to_owned());
                self.last = None;
            } else if last.stamp.is_some() && last.stamp == self.pull.stamp {
                let cursor = Cursor { started_at: self.now.timestamp(), ..last.clone() };
                return Ok((writer, self.report(true, cursor)));
            }
        }
        for key in self.keys.iter().chain(&self.options.deleted_column) {
            if strategy != SyncStrategy::FullRefresh && !self.columns.iter().any(|column| column.name == *key) {
                let suggestion = nearest(key, self.columns.iter().map(|c| c.name.as_str())).map(str::to_owned);
                return Err(KeboolaError::NoColumn { column: printable(key, 60), suggestion }.into());
            }
        }
        match (strategy, self.last.clone()) {
            (SyncStrategy::Incremental, Some(last)) => self.incremental(last, writer).await,
            (SyncStrategy::Partitioned, last) => partitions::run(self, last, writer).await,
            (SyncStrategy::FullRefresh, _) => {
                let spec = self.spec.clone();
                self.whole(spec, None, writer, None).await
            }
            (SyncStrategy::Incremental, None) => self.everything(writer).await,
        }
    }

    /// Reads all of the history that the table is to have.
    async fn everything(self, writer: TableWriter) -> Result<(TableWriter, ExtractReport)> {
        let days = self.request.table.max_history_days.map(i64::from);
        let since = days.map(|days| self.now.timestamp() - days * DAY);
        let (spec, deleted) = (self.spec.changed(since, None), self.options.deleted_column.clone());
        self.whole(spec, deleted, writer, None).await
    }

    pub(crate) fn report(&mut self, unchanged: bool, cursor: Cursor) -> ExtractReport {
        let notes = std::mem::take(&mut self.notes);
        ExtractReport { unchanged, cursor: cursor.to_value(), notes, ..ExtractReport::default() }
    }

    /// After an export that began at `started_at`, when the table had changed last at `stamp`.
    pub(crate) fn cursor(&self, shape: &Shape, started_at: i64, stamp: Option<String>, full_at: i64) -> Cursor {
        let columns = cursor::columns(&self.columns, shape);
        let (settings, counts_table) = (self.settings.clone(), self.counts_table);
        let project = Some(self.project.clone());
        Cursor { settings, project, columns, started_at, full_at, stamp, marked: 0, counts_table }
    }

    /// When the next export of changes has to begin: the last one's begin less the window.
    pub(crate) fn since(&self, last: &Cursor) -> i64 {
        let days = self.request.table.incremental_window_days.map_or(WINDOW_DAYS, i64::from).max(0);
        // Keboola's clock may be behind, and seconds have an inside; keys make it harmless.
        last.started_at - (days * DAY).max(OVERLAP)
    }

    /// Reads everything anew, but for rows that the column `deleted` marks; again where it brought only
    /// so many rows `before`.
    async fn whole(
        mut self,
        spec: ExportSpec,
        deleted: Option<String>,
        mut writer: TableWriter,
        before: Option<u64>,
    ) -> Result<(TableWriter, ExtractReport)> {
        let what = format!("whole\n{}\n{:?}", self.settings, self.last.as_ref().map(|last| last.started_at));
        let pulled = self.pull.pull(&what, &spec, self.now.timestamp()).await?;
        let (columns, scratch, cancel) =
            (self.columns.clone(), self.source.scratch.clone(), self.source.cancel.clone());
        let (file_type, announced, perhaps) = (spec.file_type, pulled.rows, pulled.perhaps);
        let (stamp, marks) = (pulled.stamp.clone(), deleted.clone());
        let one = turn(&self.connector.convert, &self.source.cancel).await?;
        let (shape, started_at, notes, (rows, found), mut writer) = blocking(move || {
            let Pulled { mut workspace, files, started_at, .. } = pulled;
            let db = ScratchDb::open(&scratch, &ScratchLimits::default())?;
            cancel.interrupts(db.interrupter());
            let load = Load { db: &db, files: &files, file_type, columns: &columns, stored: None, keys: &[] };
            let mut notes = Vec::new();
            let alive = Keys { keys: &[], deleted: deleted.as_deref() }.alive();
            let done = load.read(&mut notes, |select, shape| {
                let part = writer.write_query(&db, &format!("SELECT * FROM ({select}) WHERE {alive}"), None)?;
                // What is announced, and counted there, are rows with those that are marked.
                let found = match &deleted {
                    Some(_) => first_number(&db.rows(&format!("SELECT count(*) FROM ({select})"))?),
                    None => part.rows,
                };
                Ok((part, found, shape.clone()))
            });
            let (part, found, shape) = ended(done, &cancel, &mut workspace)?;
            workspace.finish();
            all_there(found, announced)?;
            if part.rows == 0 {
                notes.push("there are no rows".to_owned());
            }
            Ok((shape, started_at, notes, (part.rows, found), writer))
        })
        .await?;
        drop(one);
        if self.lacks(found, perhaps, before)? {
            writer.restart();
            return Box::pin(self.whole(spec, marks, writer, Some(found))).await;
        }
        self.notes.extend(notes);
        let marked = found.saturating_sub(rows);
        let cursor = Cursor { marked, ..self.cursor(&shape, started_at, stamp, started_at) };
        Ok((writer, self.report(false, cursor)))
    }

    /// Reads what changed and puts it into what is there.
    async fn incremental(mut self, last: Cursor, mut writer: TableWriter) -> Result<(TableWriter, ExtractReport)> {
        let before = writer
            .published_files()?
            .filter(|files| !files.partitioned)
            .and_then(|files| files.files.into_iter().next());
        let Some(before) = before else {
            self.last = None;
            return self.everything(writer).await;
        };
        let delta = self.delta(&last).await?;
        let (changed, started_at, stamp) = (delta.rows, delta.pulled.started_at, delta.pulled.stamp.clone());
        let counted = delta.pulled.counted;
        let (keys, deleted) = (self.keys.clone(), self.options.deleted_column.clone());
        let (scratch, cancel) = (self.source.scratch.clone(), self.source.cancel.clone());
        let one = turn(&self.connector.convert, &self.source.cancel).await?;
        let (rows, newly, mut writer) = blocking(move || {
            let Delta { mut pulled, path, rows } = delta;
            let db = ScratchDb::open(&scratch, &ScratchLimits::default())?;
            cancel.interrupts(db.interrupter());
            if rows == 0 {
                let found = db.rows(&format!("SELECT count(*) FROM {}", parquet(&before)))?;
                return Ok((first_number(&found), 0, writer));
            }
            let keys = Keys { keys: &keys, deleted: deleted.as_deref() };
            let changed = format!("read_parquet({}, file_row_number=true)", quote_literal(&path.to_string_lossy()));
            let old = keys.without(&parquet(&before), &parquet(&path));
            let (latest, alive) = (keys.last(&changed, "file_row_number"), keys.alive());
            let new = format!("SELECT * EXCLUDE (file_row_number) FROM ({latest}) WHERE {alive}");
            let went = format!("(SELECT * FROM ({latest}) WHERE NOT ({alive}))");
            let done = writer.write_query(&db, &format!("{old} UNION ALL BY NAME {new}"), None).and_then(|part| {
                let newly = match &deleted {
                    Some(_) => db.rows(&keys.also_in("count(*)", &parquet(&before), &went))?,
                    None => Vec::new(),
                };
                Ok((part.rows, first_number(&newly)))
            });
            let (rows, newly) = ended(done, &cancel, &mut pulled.workspace)?;
            pulled.workspace.finish();
            Ok((rows, newly, writer))
        })
        .await?;
        drop(one);
        let marked = last.marked + newly;
        let behind = self.behind(rows + marked, counted, &last);
        if behind == Behind::Now {
            writer.restart();
            return self.everything(writer).await;
        }
        let stamp = stamp.filter(|_| behind == Behind::No);
        if rows > LARGE && changed > 0 {
            self.notes.push(format!("merging rewrites all {rows} rows: consider `partitioned`"));
        }
        let cursor = Cursor { marked, ..self.cursor(&last.shape(), started_at, stamp, last.full_at) };
        Ok((writer, self.report(changed == 0, cursor)))
    }

    /// What to do where the source has fewer rows than the `rows` that came of it: an export of
    /// changes does not tell which are gone.
    pub(crate) fn behind(&mut self, rows: u64, counted: Option<u64>, last: &Cursor) -> Behind {
        // The rows of a linked table are counted elsewhere.
        let counted = counted.filter(|_| !self.pull.detail.is_alias).unwrap_or(u64::MAX);
        let Some(gone) = rows.checked_sub(counted).filter(|gone| *gone > 0) else { return Behind::No };
        let (behind, then) = if self.request.table.max_history_days.is_some() {
            // All that can be read again is the last days: the older rows would go, too.
            (Behind::No, "they stay here, as `max_history_days` keeps older rows from being read again")
        } else if self.now.timestamp() - last.full_at >= DAY {
            (Behind::Now, "everything is read again")
        } else {
            (Behind::Later, "everything is read again within a day")
        };
        self.notes.push(format!("{gone} rows were deleted at the source: {then}"));
        behind
    }
}

pub(crate) fn first_number(rows: &[Vec<Option<String>>]) -> u64 {
    rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(0)
}

/// The result of reading an export. Damaged slices are not read again as they are.
pub(crate) fn ended<T>(
    done: Result<T>,
    cancel: &agnes_core::connector::Cancel,
    workspace: &mut super::workspace::Workspace,
) -> Result<T> {
    if cancel.is_cancelled() {
        return Err(agnes_core::connector::Cancelled.into());
    }
    if done.as_ref().is_err_and(|error| !matches!(error.code(), "disk_full" | "interrupted" | "out_of_memory")) {
        workspace.finish();
    }
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use agnes_core::ident::{SourceName, TableName};

    #[test]
    fn tables_are_named_by_bucket_and_table() {
        let id = |bucket: Option<&str>, table: &str| {
            let name = TableName::parse("t").unwrap();
            let mut row = RegisteredTable::new(&name, "keboola", &SourceName::parse("k").unwrap());
            (row.bucket, row.source_table) = (bucket.map(str::to_owned), Some(table.to_owned()));
            table_id(&row).ok()
        };
        assert_eq!(id(Some("in.c-crm"), "orders").as_deref(), Some("in.c-crm.orders"));
        assert_eq!(id(Some("in.c-crm"), "in.c-crm.orders").as_deref(), Some("in.c-crm.orders"));
        assert_eq!(id(None, "in.c-crm.orders").as_deref(), Some("in.c-crm.orders"));
        for (bucket, table) in [
            (None, "orders"),
            (Some("in.c-crm"), ""),
            (Some("in.c-crm"), "a/b"),
            (Some("in..x"), "a"),
            (Some("in.c?x"), "a"),
        ] {
            assert_eq!(id(bucket, table), None, "{bucket:?} {table}");
        }
    }
}
