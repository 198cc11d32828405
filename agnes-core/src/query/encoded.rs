//! The rows of a query as bytes, a piece at a time.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::write::{RowFormat, RowWriter, RowsEnd};
use super::{QueryResult, QueryStats, Receipt};
use crate::error::Result;
use crate::policy::RowScope;

/// Pieces are this long, or longer by what one batch takes.
const PIECE: usize = 32 << 10;

/// The rows of a query in one format. A piece is made when it is asked for, so that a slow
/// reader slows the query; dropping this stops it.
#[derive(Debug)]
pub struct EncodedRows {
    result: QueryResult,
    writer: Option<RowWriter<Written>>,
    written: Written,
    /// Most bytes, about.
    limit: Option<usize>,
    /// Bytes that were taken.
    taken: usize,
}

/// Rows written at a time where bytes are limited: by what they take too much it may be longer.
const ROWS: usize = 256;

/// What was written and not yet taken.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl QueryResult {
    /// The rows in `format`.
    ///
    /// # Errors
    /// `rows_not_writable` where the format has no place for a column.
    pub fn encoded(self, format: RowFormat) -> Result<EncodedRows> {
        let written = Written::default();
        let writer = RowWriter::new(format, &self.schema(), written.clone())?;
        Ok(EncodedRows { result: self, writer: Some(writer), written, limit: None, taken: 0 })
    }
}

impl EncodedRows {
    /// Ends after about `bytes` bytes; rows beyond are left out.
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { limit: Some(bytes), ..self }
    }

    /// The next bytes; `None` after the last, and after an error.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>>> {
        while self.writer.is_some() && self.written.bytes().len() < PIECE {
            if let Err(error) = self.advance().await {
                self.writer = None;
                self.written.bytes().clear();
                return Some(Err(error));
            }
        }
        let bytes = std::mem::take(&mut *self.written.bytes());
        self.taken += bytes.len();
        (!bytes.is_empty()).then_some(Ok(bytes))
    }

    /// Whether the bytes given so far are all there are.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.writer.is_none() && self.written.bytes().is_empty()
    }

    /// What policies took from the tables of the query.
    #[must_use]
    pub fn row_scope(&self) -> &[RowScope] {
        self.result.row_scope()
    }

    /// Whether rows were left out; known after the last piece.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.result.truncated()
    }

    /// The receipt that was asked for; known after the last piece.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.result.receipt()
    }

    /// What the query has done so far.
    #[must_use]
    pub fn stats(&self) -> QueryStats {
        self.result.stats()
    }

    /// Writes one batch, or the end. Writing takes the processor, not the disk, and a batch is
    /// some thousand rows: away from the threads that serve others.
    async fn advance(&mut self) -> Result<()> {
        let batch = self.result.next().await.transpose()?;
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        match batch {
            Some(batch) => {
                let (written, limit) = (self.written.clone(), self.limit.map(|limit| limit.saturating_sub(self.taken)));
                let done = crate::duck::blocking(move || {
                    let Some(limit) = limit else {
                        writer.write(&batch)?;
                        return Ok((writer, false));
                    };
                    for from in (0..batch.num_rows()).step_by(ROWS) {
                        if written.bytes().len() >= limit {
                            return Ok((writer, true));
                        }
                        writer.write(&batch.slice(from, ROWS.min(batch.num_rows() - from)))?;
                    }
                    Ok((writer, false))
                });
                let (writer, full) = done.await?;
                self.writer = Some(writer);
                if full {
                    self.result.cut();
                }
            }
            None => {
                let end = RowsEnd {
                    truncated: self.result.truncated(),
                    row_scope: self.result.row_scope(),
                    receipt: self.result.receipt(),
                    bytes_scanned: self.result.stats().bytes_scanned,
                };
                // At most one row group of Parquet.
                writer.finish(&end)?;
            }
        }
        Ok(())
    }
}
