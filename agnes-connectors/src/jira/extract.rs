//! One table of a run: from the issues that are kept, all of them or those that changed since.

use std::collections::BTreeMap;

use agnes_core::connector::{ExtractReport, ExtractRequest, SourceContext};
use agnes_core::duck::blocking;
use agnes_core::error::Result;
use agnes_core::extract::TableWriter;
use agnes_core::push::{self, Documents, Push as _, PushTable, RowsOf};
use serde_json::{Value, json};

use super::JiraConnector;
use super::config::JiraConfig;
use super::error::JiraError;
use super::fields::Fields;

/// Files that changed this long before the newest one of the last run are looked at again: two
/// may have been written at once.
const OVERLAP_NS: u128 = 2_000_000_000;
/// So many issues fit into memory with their rows.
const FEW: usize = 2000;

pub(crate) async fn extract(
    connector: &JiraConnector,
    source: &SourceContext,
    request: &ExtractRequest,
    writer: TableWriter,
) -> Result<(TableWriter, ExtractReport)> {
    let tables = connector.tables(source)?;
    let wanted = request.table.source_table.as_deref().unwrap_or_default();
    let found = tables.iter().position(|table| table.source_table == wanted);
    let found = found.ok_or_else(|| JiraError::NoTable { table: agnes_core::ident::printable(wanted, 64) })?;
    let (connector, source, request, table) =
        (connector.clone(), source.clone(), request.clone(), tables[found].clone());
    blocking(move || transform(&connector, &source, &request, found, &table, writer)).await
}

fn transform(
    connector: &JiraConnector,
    source: &SourceContext,
    request: &ExtractRequest,
    number: usize,
    table: &PushTable,
    mut writer: TableWriter,
) -> Result<(TableWriter, ExtractReport)> {
    let documents = Documents::of(writer.folder());
    let config = JiraConfig::parse(&source.config)?;
    let shape = Fields::kept(&config, &documents)?.signature();
    let files = documents.list()?;
    let newest = files.iter().map(|file| file.changed_ns).max().unwrap_or_default();
    let cursor = json!({"newest_ns": newest.to_string(), "shape": shape});
    let before = request.cursor.as_ref().filter(|before| !request.full && before["shape"] == shape);
    let since: Option<u128> = before.and_then(|before| before["newest_ns"].as_str()?.parse().ok());
    let all = files.len();
    let changed: Vec<String> = files
        .into_iter()
        .filter(|file| since.is_none_or(|since| file.changed_ns + OVERLAP_NS >= since))
        .map(|file| file.key)
        .collect();
    let mut rows = Rows { connector, source, documents: &documents, number, unreadable: 0 };
    // Where most of them changed, all are written anew, a month at a time.
    let unchanged = if since.is_none() || (changed.len() > FEW && changed.len() * 2 > all) {
        let mut months: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, known) in connector.index.of(&documents)?.into_iter().collect::<BTreeMap<_, _>>() {
            months.entry(known.month()).or_default().push(key);
        }
        let mut next = |key: &String| rows.of(key).map(|rows| rows.and_then(|rows| rows.rows)).transpose();
        let parts = months.into_iter().map(|(month, keys)| (month, keys.into_iter()));
        push::rewrite(&mut writer, &table.schema, parts, &mut next)?;
        false
    } else {
        let changes = changed.iter().filter_map(|key| rows.of(key).transpose()).collect::<Result<Vec<_>>>()?;
        !push::apply(&mut writer, &table.schema, table.document_column, &changes)?
    };
    let mut notes = Vec::new();
    if rows.unreadable > 0 {
        let count = rows.unreadable;
        notes.push(format!("{count} issues that are kept cannot be read, and are fetched anew by the next sync"));
    }
    let cursor: Option<Value> = Some(cursor);
    Ok((writer, ExtractReport { unchanged, cursor, notes, ..ExtractReport::default() }))
}

/// Rows of one table, issue by issue.
struct Rows<'a> {
    connector: &'a JiraConnector,
    source: &'a SourceContext,
    documents: &'a Documents,
    number: usize,
    /// Issues that are kept and cannot be read.
    unreadable: usize,
}

impl Rows<'_> {
    fn of(&mut self, key: &str) -> Result<Option<RowsOf>> {
        self.source.cancel.check()?;
        let document = match self.documents.read(key) {
            Err(error) if error.code() == "document_unreadable" => {
                self.unreadable += 1;
                return Ok(None);
            }
            read => read?,
        };
        let Some(document) = document else { return Ok(None) };
        let mut rows = self.connector.rows(self.source, self.documents, key, &document)?;
        let batch = rows.tables.swap_remove(self.number);
        Ok(Some(RowsOf { key: key.to_owned(), part: rows.part, earlier: rows.earlier, rows: batch }))
    }
}
