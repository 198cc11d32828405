//! Which tables a project has, and whether its account is any good.

use std::collections::BTreeSet;

use agnes_core::connector::{CheckItem, DiscoveredTable};
use agnes_core::error::Result;
use agnes_core::ident::{TableName, printable};
use agnes_core::registry::QueryMode;
use futures::StreamExt;

use super::api::Api;
use super::model::Table;
use super::types;

/// Calls at a time.
const AT_ONCE: usize = 8;

/// The datasets of the project, or those in the settings.
pub(crate) async fn datasets(api: &Api) -> Result<Vec<String>> {
    Ok(match api.config.datasets.is_empty() {
        true => api.datasets().await?.into_iter().map(|dataset| dataset.dataset_reference.dataset_id).collect(),
        false => api.config.datasets.clone(),
    })
}

/// All tables of the project, or of the datasets in the settings.
pub(crate) async fn discover(api: &Api) -> Result<Vec<DiscoveredTable>> {
    let datasets = datasets(api).await?;
    let mut listed = Vec::new();
    for dataset in &datasets {
        listed.extend(api.tables(dataset).await?.into_iter().map(|table| table.table_reference));
    }
    let described = futures::stream::iter(listed).map(|table| async move { (api.table(&table).await, table) });
    let mut described = described.buffer_unordered(AT_ONCE);
    let (mut tables, mut failed) = (Vec::<Table>::new(), None);
    while let Some((told, at)) = described.next().await {
        match told {
            Ok(table) => tables.push(table),
            Err(error) if error.code() == "cancelled" => return Err(error),
            // One that was deleted meanwhile, or may not be looked at, hides no others.
            Err(error) => {
                let (table, code) = (format!("{}.{}", at.dataset_id, at.table_id), error.code());
                tracing::warn!(table, code, "a table cannot be described, and is left out: {error}");
                failed.get_or_insert(error);
            }
        }
    }
    if let Some(error) = failed.filter(|_| tables.is_empty()) {
        return Err(error);
    }
    let place = |table: &Table| (table.table_reference.dataset_id.clone(), table.table_reference.table_id.clone());
    tables.sort_by_key(place);
    let mut taken = BTreeSet::new();
    Ok(tables.into_iter().filter_map(|table| discovered(table, &mut taken)).collect())
}

fn discovered(table: Table, taken: &mut BTreeSet<String>) -> Option<DiscoveredTable> {
    let (dataset, id) = (&table.table_reference.dataset_id, &table.table_reference.table_id);
    let plain: String = format!("{dataset}_{id}")
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .take(60)
        .collect();
    let name = (1..)
        .map(|n| if n == 1 { plain.clone() } else { format!("{plain}_{n}") })
        .find(|name| !taken.contains(name))?;
    let parsed = TableName::parse(&name).ok()?;
    taken.insert(name);
    let mut told = Vec::new();
    told.extend(table.description.as_deref().filter(|text| !text.is_empty()).map(|text| printable(text, 400)));
    if let Some(partitioning) = &table.time_partitioning {
        let column = partitioning.field.as_deref().unwrap_or("_PARTITIONTIME");
        told.push(format!("partitioned by `{}`", printable(column, 60)));
    }
    if let Some(clustering) = table.clustering.as_ref().filter(|clustering| !clustering.fields.is_empty()) {
        told.push(format!("clustered by `{}`", printable(&clustering.fields.join("`, `"), 200)));
    }
    let view = table.is_view();
    let key = table.table_constraints.and_then(|constraints| constraints.primary_key).map(|key| key.columns);
    Some(DiscoveredTable {
        description: (!told.is_empty()).then(|| told.join("; ")),
        primary_key: key.filter(|columns| !columns.is_empty()),
        // A view has none of its own: Google says 0.
        size_bytes: table.num_bytes.filter(|_| !view),
        rows: table.num_rows.filter(|_| !view),
        columns: table.schema.fields.iter().map(|field| (field.name.clone(), types::sql(field))).collect(),
        bucket: Some(dataset.clone()),
        query_mode: QueryMode::Remote,
        ..DiscoveredTable::new(parsed, id.clone())
    })
}

/// Whether the account sees the project.
pub(crate) async fn check(api: &Api) -> Result<Vec<CheckItem>> {
    let item = |name: &str, ok: bool, detail: String| CheckItem { name: name.to_owned(), ok, detail };
    let mut items = vec![item("credentials", true, "Google gave an access token".to_owned())];
    items.push(match api.datasets().await {
        Ok(datasets) => item("datasets", true, format!("the account sees {} datasets", datasets.len())),
        Err(error) => item("datasets", false, told(&error)),
    });
    items.push(match api.estimate("SELECT 1").await {
        Ok(_) => item("jobs", true, "the account may run queries".to_owned()),
        Err(error) => item("jobs", false, told(&error)),
    });
    items.extend(api.config.warnings().into_iter().map(|warning| item("projects", true, warning)));
    Ok(items)
}

/// An error with what to do about it.
pub(crate) fn told(error: &agnes_core::Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}
