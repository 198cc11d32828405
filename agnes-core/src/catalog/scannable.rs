//! What a scan has to know of a table before it asks.

use std::fmt;
use std::path::PathBuf;

use super::Catalog;
use crate::context::CallContext;
use crate::error::Result;

/// A table that the caller may read.
pub(crate) struct Scannable {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Those that the caller sees, in order.
    pub(crate) columns: Vec<String>,
    /// Files of what the caller may read of it, where they were asked for; none where its rows
    /// are not in files.
    pub(crate) files: Vec<PathBuf>,
    /// Keeps the files from being collected.
    _held: Box<dyn Send + Sync>,
}

impl fmt::Debug for Scannable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scannable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Catalog<'_> {
    /// The table of this id or name, with its files where `with_files` says so: a slice that is
    /// not there yet is made then.
    ///
    /// # Errors
    /// `access_denied`, `table_not_found`, `no_data`; those of making a slice.
    pub(crate) async fn scannable(&self, ctx: &CallContext, table: &str, with_files: bool) -> Result<Scannable> {
        let view = self.view(ctx).await?;
        let found = view.find(table)?;
        let columns = match found.published {
            Some(published) => published.columns.clone(),
            None if found.is_internal() => self.internal_columns(&found.name().to_lowercase()).await?,
            None => return Err(self.no_data(ctx, &view, &found).await),
        };
        let blob = |sha256: &str| self.engine.folder().blob(sha256);
        let mut held: Box<dyn Send + Sync> = Box::new(view.generation.clone());
        let files = match (found.published.filter(|_| with_files), found.narrowed.filter(|part| !part.is_whole())) {
            (None, _) => Vec::new(),
            (Some(_), Some(narrowed)) => {
                let slice = self.engine.slices().get(self.engine, narrowed).await?;
                let files = vec![blob(&slice.part.sha256)];
                held = Box::new(slice);
                files
            }
            (Some(published), None) => published.parts.iter().map(|part| blob(&part.sha256)).collect(),
        };
        Ok(Scannable {
            name: found.name().to_owned(),
            columns: columns.into_iter().map(|column| column.name).collect(),
            files,
            _held: held,
            id: found.id,
        })
    }
}
