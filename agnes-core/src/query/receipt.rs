//! Receipts: what an answer was made of, signed, so that it can be asked again.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::readable::CallerSet;
use super::{Params, Query, value_text};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::orchestrator::Generation;
use crate::policy::InstanceKey;
use crate::sandbox::{Checked, RelationKind};

/// Layout version of a receipt.
const LAYOUT: u32 = 1;

/// What an answer was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReceiptBody {
    /// Layout version.
    pub version: u32,
    /// 32 hex digits.
    pub id: String,
    /// When the query was asked.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub issued_at: DateTime<Utc>,
    /// Until when the data it was made of is kept.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: DateTime<Utc>,
    /// Who asked.
    pub user_id: String,
    /// Number of the published catalog.
    pub generation: u64,
    /// What it read, by name.
    pub tables: Vec<ReceiptTable>,
    /// SHA-256 over the policies that narrowed it; the same for everybody they leave the same.
    pub policy_fingerprint: String,
    /// As asked.
    pub sql: String,
    /// Its parameters, as JSON text.
    pub params: String,
    /// Most rows that were asked for.
    pub limit: Option<usize>,
    /// Most bytes that were asked for.
    pub max_bytes: Option<usize>,
    /// SHA-256 of the SQL as the engine's parser writes it.
    pub sql_hash: String,
    /// Version of the engine.
    pub engine_version: String,
    /// Rows of the answer.
    pub rows: u64,
    /// Whether a limit left rows out.
    pub truncated: bool,
    /// Over columns and rows, whatever the order of the rows: floating-point numbers to 11
    /// significant digits.
    pub result_hash: String,
}

/// One table of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReceiptTable {
    /// Its name.
    pub name: String,
    /// Its content, or that of the caller's part of it.
    pub content_hash: String,
    /// Rules, mapping tables and the caller's values that made the part; none for the whole table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// A receipt with this installation's mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// What it says.
    #[serde(flatten)]
    pub body: ReceiptBody,
    /// HMAC-SHA256 over the rest with a key of this installation.
    pub mark: String,
}

/// What can be wrong with a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReceiptError {
    #[error("this installation did not write this receipt, or somebody changed it")]
    Forged,
    #[error("a query that asks a source, Agnes's own tables or frames has no receipt: what they said is not kept")]
    NotKept,
}

impl Coded for ReceiptError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Forged => ErrorKind::InvalidInput,
            Self::NotKept => ErrorKind::Unsupported,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Forged => "receipt_forged",
            Self::NotKept => "receipt_unsupported",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Forged => Some("replay it where it was made, as it was made".to_owned()),
            Self::NotKept => Some("ask without a receipt".to_owned()),
        }
    }
}

impl Receipt {
    fn sign(body: ReceiptBody, key: &InstanceKey) -> Result<Self> {
        let mark = key.sign(&text(&body)?);
        Ok(Self { body, mark })
    }

    /// Refuses what this installation did not write.
    pub(super) fn verify(&self, key: &InstanceKey) -> Result<()> {
        let known = self.body.version == LAYOUT && key.verifies(&text(&self.body)?, &self.mark);
        if known { Ok(()) } else { Err(ReceiptError::Forged.into()) }
    }

    /// The query that it was for, without a receipt.
    pub(super) fn query(&self) -> Result<Query> {
        let params: Params = serde_json::from_str(&self.body.params).map_err(|_| ReceiptError::Forged)?;
        let mut query = Query::new(self.body.sql.clone()).params(params);
        (query.limit, query.max_bytes) = (self.body.limit, self.body.max_bytes);
        Ok(query)
    }
}

fn text(body: &ReceiptBody) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|e| Error::internal("write a receipt", e))
}

fn hash(text: &str) -> String {
    crate::orchestrator::hex(&Sha256::digest(text))
}

/// A receipt whose rows are still to come.
#[derive(Debug)]
pub(super) struct Pending {
    body: ReceiptBody,
    key: InstanceKey,
    rows: RowHash,
}

impl Pending {
    /// The receipt of a query that is about to run, and its lease on what it reads.
    pub(super) async fn begin(
        engine: &Engine,
        ctx: &CallContext,
        query: &Query,
        checked: &Checked,
        caller: &CallerSet,
        generation: &Generation,
    ) -> Result<Self> {
        if checked.has(RelationKind::Internal) || checked.has(RelationKind::Remote) {
            return Err(ReceiptError::NotKept.into());
        }
        let key = engine.instance_key().await?.clone();
        let tables = tables(checked, caller, generation, &key);
        let policies: Vec<&str> = tables.iter().filter_map(|table| table.policy.as_deref()).collect();
        let issued_at = engine.clock().now();
        let lease = chrono::TimeDelta::from_std(engine.config().policy.receipt_lease).unwrap_or_default();
        let expires_at = issued_at.checked_add_signed(lease).unwrap_or(issued_at);
        let gate = engine.queries().gate().await?;
        let body = ReceiptBody {
            version: LAYOUT,
            id: uuid::Uuid::new_v4().simple().to_string(),
            issued_at,
            expires_at,
            user_id: ctx.principal().user_id().to_owned(),
            generation: generation.number,
            policy_fingerprint: hash(&policies.join(",")),
            tables,
            sql: query.sql.clone(),
            params: serde_json::to_string(&query.params).map_err(|e| Error::internal("write a receipt", e))?,
            limit: query.limit,
            max_bytes: query.max_bytes,
            sql_hash: hash(&gate.normal(&query.sql).await?),
            engine_version: crate::duck::blocking(crate::duck::version).await?,
            rows: 0,
            truncated: false,
            result_hash: String::new(),
        };
        super::lease::write(engine, &body.id, expires_at, checked, caller).await?;
        Ok(Self { body, key, rows: RowHash::default() })
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) {
        self.rows.add(batch);
    }

    /// The receipt, once the last row has come.
    pub(super) fn finish(mut self, schema: &Schema, truncated: bool) -> Result<Receipt> {
        self.body.rows = self.rows.rows;
        self.body.truncated = truncated;
        self.body.result_hash = self.rows.finish(schema);
        Receipt::sign(self.body, &self.key)
    }
}

/// What a query of `caller`, whose slices are made, reads now. Nothing of it depends on rows or
/// columns that they do not see, nor lets anybody try out what a policy may say.
pub(super) fn tables(
    checked: &Checked,
    caller: &CallerSet,
    generation: &Generation,
    key: &InstanceKey,
) -> Vec<ReceiptTable> {
    let mut tables: Vec<ReceiptTable> = checked
        .relations()
        .iter()
        .filter_map(|(name, _)| {
            let part = caller.narrowed.tables.get(name).filter(|part| !part.is_whole());
            let table = part.map_or_else(|| generation.table(name), |part| Some(&part.seen))?;
            let content_hash = match part {
                // A slice is one file, named by its content.
                Some(_) => caller.set.relations.get(name)?.blobs.first()?.file_stem()?.to_string_lossy().into_owned(),
                None => table.content_hash.clone(),
            };
            let policy = part.map(|part| key.sign(part.policy_key.as_bytes()));
            Some(ReceiptTable { name: table.name.to_string(), content_hash, policy })
        })
        .collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    tables
}

/// Hashes rows in whatever order they come: the sum of the rows' own hashes.
#[derive(Debug, Default)]
pub(super) struct RowHash {
    sum: [u64; 4],
    pub(super) rows: u64,
}

impl RowHash {
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            let mut hash = Sha256::new();
            for column in batch.columns() {
                if column.is_null(row) {
                    hash.update([0]);
                    continue;
                }
                let text = cell(column.as_ref(), row);
                hash.update([1]);
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
            let digest = hash.finalize();
            for (sum, lane) in self.sum.iter_mut().zip(digest.chunks_exact(8)) {
                *sum = sum.wrapping_add(lane.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
            }
        }
        self.rows += batch.num_rows() as u64;
    }

    pub(super) fn finish(self, schema: &Schema) -> String {
        let mut hash = Sha256::new();
        for field in schema.fields() {
            hash.update(format!("{:?} {:?};", field.name(), field.data_type()));
        }
        hash.update(self.rows.to_le_bytes());
        self.sum.iter().for_each(|lane| hash.update(lane.to_le_bytes()));
        crate::orchestrator::hex(&hash.finalize())
    }
}

/// A value as it counts: numbers that the engine adds up in any order are rounded.
fn cell(column: &dyn Array, row: usize) -> String {
    let round = |x: f64| format!("{:.10e}", if x == 0.0 { 0.0 } else { x });
    match column.data_type() {
        DataType::Float64 => round(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => round(f64::from(column.as_primitive::<Float32Type>().value(row))),
        _ => value_text(column, row),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    fn hashed(rows: &[(Option<i64>, &str, f64)]) -> String {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Float64, true),
        ]));
        let mut hash = RowHash::default();
        for chunk in rows.chunks(2) {
            let batch = RecordBatch::try_new(
                schema.clone(),
                vec![
                    Arc::new(Int64Array::from_iter(chunk.iter().map(|r| r.0))),
                    Arc::new(StringArray::from_iter_values(chunk.iter().map(|r| r.1))),
                    Arc::new(Float64Array::from_iter_values(chunk.iter().map(|r| r.2))),
                ],
            );
            hash.add(&batch.unwrap());
        }
        hash.finish(&schema)
    }

    #[test]
    fn order_does_not_count_and_everything_else_does() {
        let rows = [(Some(1), "x", 0.1 + 0.2), (None, "NULL", 0.0), (Some(1), "x", 0.3)];
        let first = hashed(&rows);
        assert_eq!(hashed(&[rows[2], rows[0], rows[1]]), first);
        assert_eq!(hashed(&[rows[0], (None, "NULL", -0.0), rows[0]]), first, "0.1 + 0.2 counts as 0.3");
        for other in [
            vec![rows[0], rows[1]],
            vec![rows[0], rows[1], rows[1]],
            vec![rows[0], rows[1], (Some(1), "x ", 0.3)],
            vec![rows[0], (Some(0), "NULL", 0.0), rows[2]],
            vec![rows[0], rows[1], (Some(1), "x", 0.3001)],
            vec![],
        ] {
            assert_ne!(hashed(&other), first, "{other:?}");
        }
    }
}
