//! Exports of a part of a table: their rows with types, in one file, all of them.

use agnes_core::duck::{ScratchDb, ScratchLimits, blocking};
use agnes_core::error::Result;
use agnes_core::ident::quote_literal;

use super::cursor::Cursor;
use super::download::turn;
use super::error::KeboolaError;
use super::export::{ExportSpec, FileType};
use super::extract::{Run, ended, first_number};
use super::load::{Load, Shape};
use super::merge::parquet;
use super::pull::Pulled;

/// Rows that changed, typed, in one file in their order.
pub(crate) struct Delta {
    pub(crate) pulled: Pulled,
    pub(crate) path: std::path::PathBuf,
    pub(crate) rows: u64,
}

impl Run<'_> {
    /// What changed since the last run, typed, in one file in the order of its rows.
    pub(crate) async fn delta(&mut self, last: &Cursor) -> Result<Delta> {
        let since = self.since(last);
        let spec = self.spec.changed(Some(since), None);
        let what = format!("since\n{}\n{since}", self.settings);
        let (delta, notes) = self.part(&what, &spec, self.now.timestamp(), last.shape()).await?;
        self.notes.extend(notes);
        Ok(delta)
    }

    /// The rows of an export of a part of the table; made anew, once, where it seems to lack some. What
    /// `what` and `now` are is said at [`super::pull::Pull::pull`].
    pub(crate) async fn part(
        &mut self,
        what: &str,
        spec: &ExportSpec,
        now: i64,
        shape: Shape,
    ) -> Result<(Delta, Vec<String>)> {
        let mut before = None;
        loop {
            let pulled = self.pull.pull(what, spec, now).await?;
            let (mut delta, notes) = self.typed(pulled, spec.file_type, shape.clone()).await?;
            let lacks = self.lacks(delta.rows, delta.pulled.perhaps, before);
            if matches!(lacks, Ok(false)) {
                return Ok((delta, notes));
            }
            // The next one is of another export.
            delta.pulled.workspace.finish();
            lacks?;
            before = Some(delta.rows);
        }
    }

    /// The rows of an export with the types that are there already, in one file.
    async fn typed(&self, pulled: Pulled, file_type: FileType, shape: Shape) -> Result<(Delta, Vec<String>)> {
        let (columns, keys) = (self.columns.clone(), self.keys.clone());
        let (scratch, cancel) = (self.source.scratch.clone(), self.source.cancel.clone());
        let _one = turn(&self.connector.convert, &self.source.cancel).await?;
        blocking(move || {
            let mut pulled = pulled;
            let path = pulled.workspace.path("delta.parquet");
            let db = ScratchDb::open(&scratch, &ScratchLimits::default())?;
            cancel.interrupts(db.interrupter());
            // Of two rows with one key the later counts.
            db.execute("SET preserve_insertion_order=true")?;
            let files = pulled.files.clone();
            let load = Load { db: &db, files: &files, file_type, columns: &columns, stored: Some(&shape), keys: &keys };
            let mut notes = Vec::new();
            let done = load.read(&mut notes, |select, _| {
                let target = quote_literal(&path.to_string_lossy());
                db.execute(&format!("COPY ({select}) TO {target} (FORMAT parquet, COMPRESSION zstd)"))?;
                Ok(())
            });
            ended(done, &cancel, &mut pulled.workspace)?;
            let rows = db.rows(&format!("SELECT count(*) FROM {}", parquet(&path)))?;
            let rows = first_number(&rows);
            let complete = all_there(rows, pulled.rows);
            if rows == 0 || complete.is_err() {
                pulled.workspace.finish();
            }
            complete?;
            Ok((Delta { pulled, path, rows }, notes))
        })
        .await
    }

    /// Whether an export is to be made anew: it brought `found` rows, and its job told of more, which
    /// may be those of the table; the one `before` it, made of the same, brought so many.
    pub(crate) fn lacks(
        &mut self,
        found: u64,
        perhaps: Option<u64>,
        before: Option<u64>,
    ) -> Result<bool, KeboolaError> {
        let Some(announced) = perhaps.filter(|told| *told > found && !self.counts_table) else { return Ok(false) };
        match before {
            None => Ok(true),
            // Rows may have come between the two.
            Some(before) if before <= found => {
                self.counts_table = true;
                self.notes.push(format!(
                    "Keboola announced {announced} rows and brought {found}, twice: taken for its count of the whole table"
                ));
                Ok(false)
            }
            Some(_) => Err(KeboolaError::RowsMissing { found, announced }),
        }
    }
}

/// Refuses an export that brought fewer rows than its job announced.
pub(crate) fn all_there(found: u64, announced: Option<u64>) -> Result<(), KeboolaError> {
    match announced.filter(|announced| *announced > found) {
        Some(announced) => Err(KeboolaError::RowsMissing { found, announced }),
        None => Ok(()),
    }
}
