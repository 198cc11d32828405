//! Which tables a project has, and whether its token is any good.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use agnes_core::connector::{CheckItem, DiscoveredTable};
use agnes_core::error::Result;
use agnes_core::ident::{TableName, printable};
use agnes_core::registry::QueryMode;
use futures::{StreamExt, TryStreamExt};

use super::api::Api;
use super::config::KeboolaConfig;
use super::load::Shape;
use super::model::Table;
use super::types;

/// Calls at a time.
const AT_ONCE: usize = 8;
/// How long what is known of a table's columns holds.
const HOLDS: Duration = Duration::from_secs(24 * 3600);
/// How long one listing asks for the types of columns: nobody waits for longer than a minute for it.
const ASKING: Duration = Duration::from_secs(40);

/// Names and types of the columns of tables, by project and table, for a day: a list of tables
/// has no types, and asking for each costs a call.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<(String, String), (Instant, Shape)>>);

impl Known {
    fn columns(&self, project: &str, table: &Table) -> Option<Shape> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < HOLDS);
        let (_, columns) = known.get(&(project.to_owned(), table.id.clone()))?;
        // A listing has the names: other names mean other columns.
        columns.iter().map(|(name, _)| name).eq(&table.columns).then(|| columns.clone())
    }

    fn learn(&self, project: &str, table: &Table) {
        let columns = shape(table);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((project.to_owned(), table.id.clone()), (Instant::now(), columns));
    }
}

/// Names and types of a table's columns.
fn shape(table: &Table) -> Shape {
    types::columns(table, &table.columns).into_iter().map(|column| (column.name, column.kind.sql())).collect()
}

/// All tables of the project, or of the buckets in the settings.
pub(crate) async fn discover(
    api: &Api,
    config: &KeboolaConfig,
    known: &Known,
    project: &str,
) -> Result<Vec<DiscoveredTable>> {
    let mut tables = match api.tables().await {
        // A token for some buckets may not be allowed to list all.
        Err(error) if matches!(error.code(), "keboola_forbidden" | "keboola_not_found") => by_bucket(api).await?,
        tables => tables?,
    };
    tables.retain(|table| config.buckets.is_empty() || config.buckets.iter().any(|bucket| *bucket == bucket_of(table)));
    tables.sort_by(|a, b| a.id.cmp(&b.id));
    let unknown = tables.iter().filter(|table| known.columns(project, table).is_none());
    let unknown: Vec<String> = unknown.map(|table| table.id.clone()).collect();
    let asked = futures::stream::iter(unknown).map(|id| async move {
        match api.table(&id).await {
            Ok(detail) => known.learn(project, &detail),
            // Types are told where they can be; a table without them is still one.
            Err(error) if error.code() == "cancelled" => return Err(error),
            Err(error) => tracing::debug!(code = error.code(), "the types of a table's columns cannot be had: {error}"),
        }
        Ok(())
    });
    match tokio::time::timeout(ASKING, asked.buffer_unordered(AT_ONCE).try_collect::<()>()).await {
        Ok(asked) => asked?,
        Err(_) => tracing::warn!("tables are listed without the types of their columns: later listings ask for those"),
    }
    let mut taken = BTreeSet::new();
    Ok(tables.iter().filter_map(|table| discovered(table, known.columns(project, table), &mut taken)).collect())
}

async fn by_bucket(api: &Api) -> Result<Vec<Table>> {
    let buckets = api.buckets().await?;
    let tables = futures::stream::iter(buckets).map(|bucket| async move {
        let tables = api.tables_of(&bucket.id).await;
        let with_bucket = |mut table: Table| {
            table.bucket.get_or_insert(bucket.clone());
            table
        };
        match tables {
            Ok(tables) => Ok(tables.into_iter().map(with_bucket).collect()),
            Err(error) if error.code() == "cancelled" || error.is_retryable() => Err(error),
            Err(error) => {
                tracing::warn!(bucket = printable(&bucket.id, 80), "the tables of a bucket cannot be listed: {error}");
                Ok(Vec::new())
            }
        }
    });
    let tables: Vec<Result<Vec<Table>>> = tables.buffer_unordered(AT_ONCE).collect().await;
    Ok(tables.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn bucket_of(table: &Table) -> &str {
    table.bucket.as_ref().map_or_else(|| table.id.rsplit_once('.').map_or("", |(bucket, _)| bucket), |b| b.id.as_str())
}

/// A table's own name: what its id says after the bucket.
fn name_of(table: &Table) -> &str {
    let name = table.id.strip_prefix(bucket_of(table)).and_then(|rest| rest.strip_prefix('.'));
    name.or_else(|| Some(table.id.rsplit_once('.')?.1)).unwrap_or(&table.id)
}

fn discovered(table: &Table, columns: Option<Shape>, taken: &mut BTreeSet<String>) -> Option<DiscoveredTable> {
    let plain: String =
        table.id.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(60).collect();
    let name = (1..)
        .map(|n| if n == 1 { plain.clone() } else { format!("{plain}_{n}") })
        .find(|name| !taken.contains(name))?;
    let parsed = TableName::parse(&name).ok()?;
    taken.insert(name);
    let shown = table.display_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&table.name);
    Some(DiscoveredTable {
        description: Some(format!(
            "`{}` of the Keboola bucket `{}`, found by discovery",
            printable(shown, 120),
            printable(bucket_of(table), 120)
        )),
        primary_key: (!table.primary_key.is_empty()).then(|| table.primary_key.clone()),
        size_bytes: table.data_size_bytes,
        rows: table.rows_count,
        // Of those that are not known yet the names are listed: all is text until its type is told.
        columns: columns.unwrap_or_else(|| shape(table)),
        bucket: Some(bucket_of(table).to_owned()),
        bucket_name: table.bucket.as_ref().and_then(|bucket| bucket.name.clone()),
        last_change: table.last_change_date.clone(),
        last_import: table.last_import_date.clone(),
        // Clients expect it of tables that nobody registered by hand.
        query_mode: QueryMode::Materialized,
        ..DiscoveredTable::new(parsed, name_of(table))
    })
}

/// Whose token it is, whether that is the project it should be, and what it sees.
pub(crate) async fn check(api: &Api, config: &KeboolaConfig) -> Vec<CheckItem> {
    let item = |name: &str, ok: bool, detail: String| CheckItem { name: name.to_owned(), ok, detail };
    let said = |error: &agnes_core::Error| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    let mut items = Vec::new();
    match super::identity(api, config).await {
        Ok(token) => {
            let project =
                format!("project {} (`{}`)", printable(&token.owner.id, 40), printable(&token.owner.name, 80));
            let description = token.description.filter(|text| !text.is_empty());
            let description = description.map(|text| format!(", token `{}`", printable(&text, 80))).unwrap_or_default();
            items.push(item("token", true, format!("{project}{description}")));
        }
        Err(error) => {
            items.push(item("token", false, said(&error)));
            return items;
        }
    }
    items.push(match api.buckets().await {
        Ok(buckets) => item("buckets", true, format!("the token sees {} buckets", buckets.len())),
        Err(error) => item("buckets", false, said(&error)),
    });
    items
}
