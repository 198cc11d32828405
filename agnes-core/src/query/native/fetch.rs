//! The rows that a query needs of its warehouses' tables, moved here.

use arrow::record_batch::RecordBatch;

use super::calls::ask;
use super::{Natives, create};
use crate::connector::WarehouseRows;
use crate::error::{Error, ErrorKind, Result};
use crate::query::result::size_of;
use crate::query::{Loaded, Params, QueryError};
use crate::warehouse::{Dialect, WarehouseError, needs};

impl Natives {
    /// The rows that a query needs, moved here.
    pub(super) async fn fetch(
        &self,
        tree: &serde_json::Value,
        params: &Params,
        caps: (u64, &mut u64),
        words: Option<String>,
    ) -> Result<(Vec<Loaded>, u64)> {
        let (max_rows, left) = caps;
        let tables = self.dialect_tables();
        let dialect = Dialect::new(&tables, params);
        let mut parts = Vec::new();
        let mut total = 0;
        for (name, native) in &self.tables {
            let all: Vec<String> = native.columns.iter().map(|column| column.0.clone()).collect();
            let need = needs(tree, name, &all);
            let wanted = |column: &&(String, String, bool)| {
                need.columns.as_ref().is_none_or(|needed| needed.contains(&column.0.to_lowercase()))
            };
            let columns: Vec<&(String, String, bool)> = native.columns.iter().filter(wanted).collect();
            let list: Vec<&str> = columns.iter().map(|column| column.0.as_str()).collect();
            let unsaid = || Error::from(QueryError::Remote { table: name.clone() });
            let say =
                |filters: &[serde_json::Value]| dialect.part(name, &list, filters, max_rows + 1).ok_or_else(unsaid);
            let mut sql = say(&need.filters)?;
            let warehouse = native.warehouse()?;
            let mut estimate = warehouse.estimate(&native.source, &sql).await;
            if estimate.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidInput) && !need.filters.is_empty()
            {
                sql = say(&[])?;
                estimate = warehouse.estimate(&native.source, &sql).await;
            }
            let estimate = estimate.map_err(|error| match error.kind() {
                ErrorKind::InvalidInput => {
                    let underlying = error.to_string();
                    let original = words.clone().unwrap_or_else(|| underlying.clone());
                    Error::from(WarehouseError::Estimate { underlying, original })
                }
                _ => error,
            })?;
            total += estimate.bytes;
            parts.push((name, native, sql, columns));
        }
        self.check(total).await?;
        let mut loaded = Vec::new();
        for (name, native, sql, columns) in parts {
            let mut incoming = ask(native, self.query(sql, false)).await?;
            let rows = collect(&mut incoming, max_rows, left).await?;
            let create = match columns.is_empty() {
                true => crate::query::remote::create(name, &incoming.schema),
                false => {
                    let columns: Vec<_> = columns.into_iter().cloned().collect();
                    create(name, &columns)
                }
            };
            loaded.push(Loaded { name: name.clone(), create, rows });
        }
        self.charge(total);
        Ok((loaded, total))
    }
}

/// All rows, under caps.
pub(super) async fn collect(incoming: &mut WarehouseRows, max_rows: u64, left: &mut u64) -> Result<Vec<RecordBatch>> {
    let (mut rows, mut count) = (Vec::new(), 0);
    while let Some(batch) = incoming.batches.recv().await {
        let batch = batch?;
        count += batch.num_rows() as u64;
        // Columns of a message share its bytes: each would count all of them.
        let size = size_of(&batch);
        if count > max_rows {
            return Err(QueryError::RemoteTooLarge { limit: format!("{max_rows} rows") }.into());
        }
        if size > *left {
            return Err(QueryError::RemoteTooLarge { limit: format!("{} MiB", *left >> 20) }.into());
        }
        *left -= size;
        rows.push(batch);
    }
    Ok(rows)
}
