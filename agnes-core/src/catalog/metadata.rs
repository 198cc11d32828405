//! What people wrote about columns, for those who see the columns.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Catalog;
use super::tables::Found;
use crate::connector::{Cancel, ColumnsTold, Progress};
use crate::context::CallContext;
use crate::error::Result;
use crate::ident::printable;
use crate::registry::{self, ColumnMetadata, RegistryError};

/// Most columns described at once.
const MOST_COLUMNS: usize = 10_000;
/// Longest name of a column or of a type, in characters.
const LONGEST_NAME: usize = 256;
/// Longest description, in characters.
const LONGEST_DESCRIPTION: usize = 16_384;

/// What is known of a table's columns from outside its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedColumns {
    /// What grants name.
    pub table_id: String,
    /// By name.
    pub columns: Vec<ColumnMetadata>,
}

impl Catalog<'_> {
    /// What people wrote about the columns of a table, by id or name: of those that the caller
    /// sees.
    ///
    /// # Errors
    /// `access_denied`, `table_not_found`, `scope_denied`.
    pub async fn described_columns(&self, ctx: &CallContext, table: &str) -> Result<DescribedColumns> {
        let view = self.view(ctx).await?;
        let found = view.find(table)?;
        let mut columns = self.engine.store().tables().column_metadata(&found.id).await?;
        if found.narrowed.is_some() {
            let seen = found.published.map(|table| table.columns.as_slice()).unwrap_or_default();
            columns.retain(|column| seen.iter().any(|one| one.name.eq_ignore_ascii_case(&column.column_name)));
        }
        Ok(DescribedColumns { table_id: found.id, columns })
    }

    /// Writes what is known of columns of a table, by id or name; other columns stay as they
    /// are. For admins. Gives how many were written.
    ///
    /// # Errors
    /// `invalid_field`, `table_not_found`, `admin_required`.
    pub async fn describe_columns(&self, ctx: &CallContext, table: &str, columns: &[ColumnMetadata]) -> Result<usize> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let done = self.write_columns(ctx, table, columns).await;
        self.engine
            .audit()
            .event(ctx, "table.describe")
            .resource(format!("table:{}", printable(table, 80)))
            .params(json!({"columns": columns.len()}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Tells the source of a table, by id or name, what people wrote about its columns. For admins.
    ///
    /// # Errors
    /// `table_not_found`, `metadata_push_unsupported`, what the source says, `admin_required`.
    pub async fn push_columns(&self, ctx: &CallContext, table: &str) -> Result<ColumnsTold> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let done = self.tell_columns(ctx, table).await;
        let params =
            done.as_ref().map_or(json!({}), |told| json!({"pushed": told.pushed, "failed": told.errors.len()}));
        let event = self.engine.audit().event(ctx, "table.push_metadata");
        event.resource(format!("table:{}", printable(table, 80))).params(params).outcome(&done).record().await;
        done
    }

    async fn tell_columns(&self, ctx: &CallContext, table: &str) -> Result<ColumnsTold> {
        let row = self.engine.registry().get(ctx, table).await?;
        let unsupported = || RegistryError::PushUnsupported { table: row.name.clone() };
        let source = match row.source.as_deref() {
            Some(name) => self.engine.store().sources().get(name).await?,
            None => None,
        };
        let source = source.ok_or_else(unsupported)?;
        let connector = registry::connector(self.engine, &source.kind)?;
        let context = registry::context(self.engine, &source, Cancel::default(), Progress::default());
        let columns = self.engine.store().tables().column_metadata(&row.id).await?;
        Ok(connector.tell_columns(&context, &row, &columns).await?.ok_or_else(unsupported)?)
    }

    async fn write_columns(&self, ctx: &CallContext, table: &str, columns: &[ColumnMetadata]) -> Result<usize> {
        let refuse = |reason: String| RegistryError::InvalidField { field: "columns", reason };
        if columns.len() > MOST_COLUMNS {
            return Err(refuse(format!("at most {MOST_COLUMNS} columns are described at once")).into());
        }
        let view = self.view(ctx).await?;
        let found = view.find(table)?;
        let known = found.published.map(|table| table.columns.as_slice()).unwrap_or_default();
        let mut written: Vec<ColumnMetadata> = Vec::with_capacity(columns.len());
        for column in columns {
            let name = column.column_name.trim();
            let short = |text: &str, longest| text.chars().nth(longest).is_none() && !text.contains('\0');
            let fits = !name.is_empty()
                && short(name, LONGEST_NAME)
                && short(&column.confidence, LONGEST_NAME)
                && column.basetype.as_deref().is_none_or(|text| short(text, LONGEST_NAME))
                && column.description.as_deref().is_none_or(|text| short(text, LONGEST_DESCRIPTION));
            if !fits {
                return Err(
                    refuse(format!("`{}` has a blank name, or a text that is too long", printable(name, 80))).into()
                );
            }
            // One column has one description, however its name is written.
            let same = known.iter().find(|one| one.name.eq_ignore_ascii_case(name));
            let column_name = same.map_or(name, |one| one.name.as_str()).to_owned();
            if written.iter().any(|one| one.column_name == column_name) {
                return Err(refuse(format!("`{}` is named twice", printable(name, 80))).into());
            }
            written.push(ColumnMetadata { column_name, ..column.clone() });
        }
        self.engine.store().tables().set_column_metadata(&found.id, &written, self.engine.clock().now()).await?;
        Ok(written.len())
    }

    /// Descriptions by column, names in lower case.
    pub(super) async fn descriptions(&self, found: &Found<'_>) -> Result<HashMap<String, String>> {
        let columns = self.engine.store().tables().column_metadata(&found.id).await?;
        Ok(columns.into_iter().filter_map(|c| Some((c.column_name.to_lowercase(), c.description?))).collect())
    }

    /// Adds the descriptions of the columns that a profile tells of.
    pub(super) async fn describe_profile(&self, found: &Found<'_>, profile: &mut Value) -> Result<()> {
        let described = self.descriptions(found).await?;
        for column in profile.get_mut("columns").and_then(Value::as_array_mut).into_iter().flatten() {
            let text = column.get("name").and_then(Value::as_str).and_then(|name| described.get(&name.to_lowercase()));
            if let (Some(text), Value::Object(column)) = (text.cloned(), column) {
                column.insert("description".to_owned(), text.into());
            }
        }
        Ok(())
    }
}
