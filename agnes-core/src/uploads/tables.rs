//! Files that become tables.
//!
//! The file is kept as `uploads/<table>/<table>.<8 hex digits>.<ending>` and belongs to the
//! source `uploads`, which Agnes makes when the first file comes: of kind `files`, over that
//! folder. So an uploaded table is a table like every other: registered, synced, published,
//! granted, profiled. A file that cannot be read changes nothing: the table keeps the file and
//! the data it had.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Incoming, UploadError, Uploads};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::ident::{SourceName, TableName, printable};
use crate::registry::{self, RegisteredSource, RegisteredTable, RegistryError, table_slug};
use crate::sync::{SyncRequest, SyncRun, TableOutcome, TableStatus};

/// Name of the source that uploaded tables belong to.
const SOURCE: &str = "uploads";

/// Who adds that source: one that a person called so is theirs.
const ADDED_BY: &str = "system:uploads";

/// Kind of that source.
const KIND: &str = "files";

/// How often a sync is tried again that waits for another one of the source, and how long
/// between.
const TRIES: usize = 150;
const BETWEEN: Duration = Duration::from_millis(200);

/// How often it is looked whether a sync has ended.
const LOOK: Duration = Duration::from_millis(25);

/// What a file shall become.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableUpload {
    /// Name of the table.
    pub table: String,
    /// Name of the file; its ending says the format.
    pub file_name: String,
    /// For people and their assistants; an earlier one stays without it.
    pub description: Option<String>,
    /// How to read it, as for a table of a source of files: `delimiter`, `header`, `columns`,
    /// `sheet` and so on.
    pub options: Option<Map<String, Value>>,
}

/// The path of a file without the endings of format and compression: `a/b.2024.csv.gz` is
/// `a_b.2024`. Tables are named by it.
#[must_use]
pub fn file_stem(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let lower = name.to_ascii_lowercase();
    let packed = [".gz", ".zst"].into_iter().find(|ending| lower.ends_with(ending)).map_or(0, str::len);
    let plain = &name[..name.len() - packed];
    let plain = plain.rsplit_once('.').map_or(plain, |(stem, _)| stem);
    if folder.is_empty() { plain.to_owned() } else { format!("{folder}_{plain}") }
}

/// The name of a table for a file that somebody sends by this name: of its last piece, with `_`
/// for what a table cannot have.
#[must_use]
pub fn table_name_of(file_name: &str) -> String {
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    file_stem(base).chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// A table made of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableUploaded {
    /// What grants name.
    pub id: String,
    /// What SQL names.
    pub name: String,
    /// Rows now.
    pub rows: u64,
    /// Rows put aside because they do not fit.
    pub rejected_rows: u64,
    /// The file, as it was called.
    pub filename: String,
    /// Bytes of the file.
    pub size: u64,
    /// Whether the table was there before.
    pub replaced: bool,
    /// What was noticed, one sentence each.
    pub notes: Vec<String>,
    /// Sync run that read it.
    pub run_id: String,
}

/// The settings of a source as they are now: the folder of uploads may have moved with the
/// data folder.
pub(crate) fn config_of(engine: &Engine, source: &RegisteredSource) -> Value {
    let mut config = source.config.clone();
    if is_ours(source)
        && let Value::Object(map) = &mut config
    {
        map.insert("path".to_owned(), folder(engine).to_string_lossy().into());
    }
    config
}

/// Whether a table was made of an uploaded file.
pub(crate) fn is_upload(table: &RegisteredTable) -> bool {
    table.source.as_deref() == Some(SOURCE) && file_of(table).is_some()
}

/// Deletes the file that a table was made of.
pub(crate) async fn forget_file(engine: &Engine, table: &RegisteredTable) -> Result<()> {
    if table.source.as_deref() != Some(SOURCE)
        || !engine.store().sources().get(SOURCE).await?.is_some_and(|s| is_ours(&s))
    {
        return Ok(());
    }
    delete_but(engine, &table.name, None).await
}

fn is_ours(source: &RegisteredSource) -> bool {
    source.created_by.as_deref() == Some(ADDED_BY)
}

fn folder(engine: &Engine) -> PathBuf {
    let folder = engine.folder().uploads();
    std::path::absolute(&folder).unwrap_or(folder)
}

/// The file of an uploaded table below the folder of uploads: only what Agnes named so.
fn file_of(table: &RegisteredTable) -> Option<&str> {
    let file = table.options.as_ref()?.get("files")?.as_str()?;
    let (folder, name) = file.split_once('/')?;
    (folder == table.name && is_made(&table.name, name)).then_some(file)
}

/// Whether Agnes named a file so that is in the folder of this table.
fn is_made(table: &str, name: &str) -> bool {
    let rest = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('.'));
    let id = rest.and_then(|rest| rest.split('.').next()).unwrap_or_default();
    id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()) && !name.contains('/')
}

/// Deletes the files that a table was made of, all but `kept`.
async fn delete_but(engine: &Engine, table: &str, kept: Option<&str>) -> Result<()> {
    let root = engine.folder().uploads();
    let (table, kept) = (table.to_owned(), kept.map(|file| root.join(file)));
    crate::duck::blocking(move || {
        let folder = root.join(&table);
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if is_made(&table, &entry.file_name().to_string_lossy()) && Some(entry.path()) != kept {
                std::fs::remove_file(entry.path()).map_err(|e| Error::io("delete an uploaded file", e))?;
            }
        }
        // Unless something else is in it.
        drop(std::fs::remove_dir(&folder));
        Ok(())
    })
    .await
}

/// The ending of a file's name in lower case, with that of a packed file: `csv`, `csv.gz`.
fn ending(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let mut pieces =
        lower.rsplit('.').take_while(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
    // The first piece of a name is no ending.
    let count = lower.matches('.').count();
    let last = pieces.next().filter(|_| count > 0).unwrap_or("dat").to_owned();
    match pieces.next().filter(|_| count > 1 && matches!(last.as_str(), "gz" | "zst")) {
        Some(format) => format!("{format}.{last}"),
        None => last,
    }
}

impl Uploads<'_> {
    /// Begins a file that becomes a table. For admins.
    ///
    /// # Errors
    /// `too_many_uploads`, `disk_full`, `admin_required`.
    pub async fn table_file(&self, ctx: &CallContext) -> Result<Incoming> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        Incoming::begin(self.engine, ctx.principal().user_id(), &self.engine.folder().uploads().join("upload")).await
    }

    /// Makes a table of a file that has arrived, or gives the table of that name other data. It
    /// goes on to its end when nobody waits for it any more. For admins.
    ///
    /// # Errors
    /// `invalid_field`, `table_exists` where a table of that name has another source,
    /// `source_exists` where somebody has a source `uploads` of their own, those of reading the
    /// file (`file_damaged`, `file_empty`, `unknown_format`, `invalid_config` and others),
    /// `sync_already_in_progress`, `disk_full`, `admin_required`.
    pub async fn make_table(
        &self,
        ctx: &CallContext,
        incoming: Incoming,
        upload: TableUpload,
    ) -> Result<TableUploaded> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let (engine, ctx) = (self.engine.clone(), ctx.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        self.engine.sync_runs().spawn(async move {
            let size = incoming.size();
            let (name, file) = (printable(&upload.table, 80), printable(&upload.file_name, 120));
            let done = make(&engine, &ctx, incoming, upload).await;
            let event = engine.audit().event(&ctx, "data.upload").resource(format!("table:{name}"));
            event.params(json!({"file": file, "size": size})).outcome(&done).record().await;
            let _ = tell.send(done);
        });
        told.await.map_err(|_| crate::connector::Cancelled)?
    }
}

async fn make(engine: &Engine, ctx: &CallContext, incoming: Incoming, upload: TableUpload) -> Result<TableUploaded> {
    let refuse = |field, reason: String| RegistryError::InvalidField { field, reason };
    let name = table_slug(&upload.table).map_err(|error| refuse("table", error.to_string()))?;
    if upload.options.as_ref().is_some_and(|options| options.contains_key("files")) {
        return Err(refuse("options", "`files` is the uploaded file".to_owned()).into());
    }
    let size = incoming.size();
    let filename = printable(upload.file_name.rsplit(['/', '\\']).next().unwrap_or_default(), 200);
    let _turn = engine.upload_state().making.lock().await;
    let source = managed_source(engine).await?;
    let before = engine.store().tables().find(name.as_str()).await?;
    if before.as_ref().is_some_and(|row| row.source.as_deref() != Some(SOURCE)) {
        return Err(RegistryError::TableExists { table: name.to_string() }.into());
    }
    let id: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
    let name = before.as_ref().map_or(Ok(name), |row| TableName::parse(&row.name))?;
    let file = format!("{name}/{name}.{id}.{}", ending(&upload.file_name));
    let mut options = upload.options.unwrap_or_default();
    options.insert("files".to_owned(), file.clone().into());
    let mut row = match &before {
        Some(before) => before.clone(),
        None => RegisteredTable::new(&name, KIND, &source),
    };
    row.source_table = Some(filename.clone());
    row.description = upload.description.or(row.description).or_else(|| Some(format!("From {filename}")));
    row.options = Some(Value::Object(options));
    incoming.publish(&engine.folder().uploads().join(&file)).await?;
    let read = async {
        match &before {
            None => {
                row.registered_by = Some(ctx.principal().user_id().to_owned());
                engine.registry().insert(row.clone()).await?;
            }
            Some(_) => engine.store().tables().upsert(&row).await?,
        }
        engine.tables_changed();
        read(engine, ctx, &name).await
    }
    .await;
    match read {
        Ok((run_id, outcome)) => {
            if let Err(error) = delete_but(engine, &row.name, Some(&file)).await {
                tracing::warn!(code = error.code(), "an uploaded file that was replaced stays: {error}");
            }
            Ok(TableUploaded {
                id: row.id,
                name: row.name,
                rows: outcome.rows,
                rejected_rows: outcome.rejected_rows,
                filename,
                size,
                replaced: before.is_some(),
                notes: outcome.notes,
                run_id,
            })
        }
        Err(error) => {
            if let Err(failed) = undo(engine, &name, before).await {
                tracing::error!(code = failed.code(), "an upload that failed was not undone: {failed}");
            }
            Err(error)
        }
    }
}

/// As it was before the file came.
async fn undo(engine: &Engine, name: &TableName, before: Option<RegisteredTable>) -> Result<()> {
    match &before {
        Some(before) => {
            engine.store().tables().upsert(before).await?;
            engine.store().sync().clear_error(name.as_str()).await?;
        }
        None => {
            engine.store().tables().delete(&name.as_str().to_lowercase()).await?;
        }
    }
    engine.tables_changed();
    delete_but(engine, name.as_str(), before.as_ref().and_then(file_of)).await
}

/// Syncs the table, which reads its file and publishes it.
async fn read(engine: &Engine, ctx: &CallContext, name: &TableName) -> Result<(String, TableOutcome)> {
    let request = SyncRequest { tables: vec![name.to_string()], full: true, ..SyncRequest::default() };
    let mut tries = 0;
    let started: SyncRun = loop {
        match engine.sync().trigger(ctx, request.clone()).await {
            Err(error) if error.code() == "sync_already_in_progress" && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(BETWEEN).await;
            }
            other => break other?,
        }
    };
    let run = loop {
        let run = engine.sync().get(ctx, &started.id).await?;
        if run.finished_at.is_some() {
            break run;
        }
        // What a shutdown cuts off goes on at the next start, but nobody waits for it here.
        if engine.sync_runs().is_stopping() {
            return Err(crate::connector::Cancelled.into());
        }
        tokio::time::sleep(LOOK).await;
    };
    let tables = run.outcome.map(|outcome| outcome.tables).unwrap_or_default();
    let Some(outcome) = tables.into_iter().find(|table| table.table.eq_ignore_ascii_case(name.as_str())) else {
        return Err(crate::connector::Cancelled.into());
    };
    match outcome.status {
        TableStatus::Ok | TableStatus::Unchanged => Ok((run.id, outcome)),
        TableStatus::Skipped => Err(crate::connector::Cancelled.into()),
        TableStatus::Error => Err(failure(outcome)),
    }
}

/// Why a file did not become a table: mostly that of the file.
fn failure(outcome: TableOutcome) -> Error {
    let code = outcome.reason.unwrap_or_else(|| "internal".to_owned());
    let reason = outcome.error.unwrap_or_default();
    match outcome.kind.unwrap_or(ErrorKind::Internal) {
        kind @ (ErrorKind::Unavailable | ErrorKind::Internal | ErrorKind::ConfigInvalid | ErrorKind::LimitExceeded) => {
            crate::error::WireError {
                kind,
                code,
                message: reason,
                hint: outcome.hint,
                retryable: kind.is_retryable(),
                facts: None,
            }
            .into()
        }
        _ => UploadError::Unusable { code, reason, advice: outcome.hint }.into(),
    }
}

/// The source of uploaded tables, made when it is first needed.
async fn managed_source(engine: &Engine) -> Result<SourceName> {
    let name = SourceName::parse(SOURCE)?;
    match engine.store().sources().get(SOURCE).await? {
        Some(source) if is_ours(&source) => Ok(source.name),
        Some(_) => Err(RegistryError::SourceExists { source_name: SOURCE.to_owned() }.into()),
        None => {
            let connector = registry::connector(engine, KIND)?;
            let config = connector.normalise_config(&json!({"path": folder(engine)}))?;
            let source = RegisteredSource {
                name: name.clone(),
                kind: KIND.to_owned(),
                config,
                schedule: None,
                created_at: Some(engine.clock().now()),
                created_by: Some(ADDED_BY.to_owned()),
            };
            engine.store().sources().insert(&source).await?;
            Ok(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_by_their_files() {
        for (file, name) in [
            ("orders.csv", "orders"),
            ("a.2024.csv", "a_2024"),
            ("C:\\data\\my orders.CSV.GZ", "my_orders"),
            ("x/y.json.zst", "y"),
            ("plain", "plain"),
            (".gz", ""),
        ] {
            assert_eq!(table_name_of(file), name, "{file}");
        }
        assert_eq!(file_stem("a/b.2024.csv.gz"), "a_b.2024");
    }

    #[test]
    fn endings_say_the_format() {
        for (name, expected) in [
            ("orders.csv", "csv"),
            ("Orders.2026.CSV.gz", "csv.gz"),
            ("orders.ndjson.zst", "ndjson.zst"),
            ("orders.parquet", "parquet"),
            ("orders.gz", "gz"),
            ("orders", "dat"),
            ("", "dat"),
            ("orders.", "dat"),
            ("orders.c/v", "dat"),
            (".csv", "csv"),
            ("a.what is this", "dat"),
        ] {
            assert_eq!(ending(name), expected, "{name}");
        }
    }

    #[test]
    fn only_files_that_agnes_named_are_its_own() {
        let Ok(source) = SourceName::parse(SOURCE) else { panic!("a valid name") };
        let Ok(name) = TableName::parse("orders") else { panic!("a valid name") };
        for (file, own) in [
            ("orders/orders.0123abcd.csv", true),
            ("orders/orders.0123abcd.csv.gz", true),
            ("orders/mine.csv", false),
            ("orders/orders.0123abc.csv", false),
            ("other/orders.0123abcd.csv", false),
            ("orders/orders.0123abcd/../../x", false),
            ("../orders.0123abcd.csv", false),
        ] {
            let mut table = RegisteredTable::new(&name, KIND, &source);
            table.options = Some(json!({ "files": file }));
            assert_eq!(is_upload(&table), own, "{file}");
        }
    }
}
