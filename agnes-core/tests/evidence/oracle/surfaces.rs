//! The catalog before the whole and before the slice: lists, columns, samples, profiles, and
//! the files that leave the server.

use std::time::Instant;

use agnes_core::{CallContext, Result};
use serde_json::Value;

use super::world::{MARKER, Table, World};
use super::{Pair, Where};
use crate::support::{Installation, fuzz_seconds, fuzz_seed, owner, texts};

/// What a surface says, or its error's code and words.
fn said<T: serde::Serialize>(what: Result<T>) -> Value {
    match what {
        Ok(said) => serde_json::to_value(said).unwrap(),
        Err(e) => serde_json::json!({"error": e.code(), "words": e.to_string()}),
    }
}

/// Takes what says when, or what a policy did.
fn without(mut value: Value, names: &[&str]) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|name, _| !names.contains(&name.as_str()));
    }
    value
}

/// With floats as they are compared: to nine digits.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::String(format!("{:.9e}", number.as_f64().unwrap())),
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(name, value)| (name, rounded(value))).collect()),
        other => other,
    }
}

/// What the catalog says to `bob` of a table, but its rows' order.
async fn surfaces(at: &Installation, table: &str, bob: &CallContext) -> Vec<(&'static str, Value)> {
    let catalog = at.engine.catalog();
    let listed = catalog.tables(bob).await.unwrap().into_iter().find(|found| found.name == table);
    // How much there is of a part is not known before it is made.
    let aside = ["row_scope", "rows", "size_bytes", "rough_size_hint", "last_sync"];
    let listed = without(said(Ok(listed)), &aside);
    let mut schema = without(said(catalog.schema(bob, table).await), &["row_scope"]);
    for column in schema.get_mut("columns").and_then(Value::as_array_mut).into_iter().flatten() {
        *column = without(column.take(), &["masked"]);
    }
    let mut sample = said(catalog.sample(bob, table, 100).await);
    if let Some(rows) = sample.get_mut("rows").and_then(Value::as_array_mut) {
        rows.sort_by_key(ToString::to_string);
    }
    // The time and the size of the file; and in which order equal counts and first rows come.
    let aside = ["profiled_at", "stale", "row_scope", "file_size_mb", "last_sync", "sample_rows"];
    let mut profile = without(said(catalog.profile(bob, table).await), &aside);
    for column in profile.get_mut("columns").and_then(Value::as_array_mut).into_iter().flatten() {
        *column = without(column.take(), &["sample_values"]);
        if let Some(values) = column.pointer_mut("/string_stats/top_values").and_then(Value::as_array_mut) {
            values.sort_by_key(ToString::to_string);
        }
    }
    vec![("list", listed), ("schema", schema), ("sample", sample), ("profile", rounded(profile))]
}

/// The rows of the file that `bob` may pull, and what its footer says of them.
async fn pulled(at: &Installation, table: &str, bob: &CallContext) -> Option<(u64, Vec<String>, Vec<String>)> {
    let mut manifest = at.engine.catalog().manifest(bob).await.unwrap();
    let entry = manifest.tables.remove(table)?;
    let file = at.engine.folder().blob(entry.sha256.as_ref().unwrap());
    assert_eq!(file.metadata().unwrap().len(), entry.size_bytes);
    let download = at.engine.catalog().download(bob, table, None).await.unwrap();
    let bytes = download.read(0, usize::MAX).await.unwrap();
    assert_eq!(bytes, std::fs::read(&file).unwrap());
    assert!(!bytes.windows(MARKER.len()).any(|bytes| bytes == MARKER.as_bytes()), "{table}");
    let from = format!("read_parquet('{}')", file.display());
    let rows = texts(&at.raw, &format!("SELECT r::VARCHAR FROM {from} r ORDER BY 1"));
    let footer = format!(
        "SELECT concat_ws('|', path_in_schema, type, num_values, stats_min_value, stats_max_value, stats_null_count) \
         FROM parquet_metadata('{}') ORDER BY 1",
        file.display()
    );
    Some((entry.rows, rows, texts(&at.raw, &footer)))
}

/// How the catalog of the whole differs from that of the slice.
async fn difference(pair: &Pair, table: &Table) -> Option<String> {
    let name = table.name.as_str();
    let (whole, slice) =
        (surfaces(&pair.whole, name, &pair.whole.bob).await, surfaces(&pair.slice, name, &pair.slice.bob).await);
    for ((surface, whole), (_, slice)) in whole.iter().zip(&slice) {
        if whole != slice || whole.to_string().contains(MARKER) {
            return Some(format!("{surface} of `{name}`:\n  {whole}\n  {slice}"));
        }
    }
    let (whole, slice) =
        (pulled(&pair.whole, name, &pair.whole.bob).await, pulled(&pair.slice, name, &pair.slice.bob).await);
    (whole != slice).then(|| format!("file of `{name}`:\n  {whole:?}\n  {slice:?}"))
}

/// What the policies took is said: no more, and no less where rows are missing.
async fn scope(pair: &Pair, table: &Table) {
    let mut result = pair
        .whole
        .engine
        .query(&pair.whole.bob, agnes_core::query::Query::new(format!("FROM {}", table.name)))
        .await
        .unwrap();
    let rows: usize = result.collect().await.unwrap().iter().map(|batch| batch.num_rows()).sum();
    let part = table.part();
    let scope = result.row_scope().first().cloned();
    let filtered = scope.as_ref().is_some_and(|scope| scope.rows_filtered);
    assert_eq!(filtered, !(part.opens.is_empty() && part.closes.is_empty()), "{}", table.name);
    assert!(filtered || rows == table.rows.len(), "{}: {rows}", table.name);
    let mut masked: Vec<&String> =
        part.rules.iter().filter(|(_, rule)| rule.as_str() != "hidden").map(|(name, _)| name).collect();
    masked.sort();
    assert_eq!(scope.iter().flat_map(|scope| &scope.masked_columns).collect::<Vec<_>>(), masked, "{}", table.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_shows_nothing_that_is_not_in_the_slice() {
    let (begun, time, mut tables, mut narrowed) = (Instant::now(), fuzz_seconds(8), 0, 0);
    for seed in fuzz_seed().. {
        let pair = Pair::new(World::new(seed), Where::InProcess).await;
        pair.whole.engine.catalog().finish_profiles(&owner(), &Default::default()).await.unwrap();
        pair.slice.engine.catalog().finish_profiles(&owner(), &Default::default()).await.unwrap();
        for table in &pair.world.tables {
            tables += 1;
            narrowed += usize::from(table.granted() && !table.part().is_whole());
            if let Some(difference) = difference(&pair, table).await {
                panic!("AGNES_FUZZ_SEED={seed}: {difference}\nin{}", pair.world.text());
            }
            if table.granted() {
                scope(&pair, table).await;
            }
        }
        if begun.elapsed() > time {
            break;
        }
    }
    println!("{tables} tables, {narrowed} of them narrowed: the same on both sides");
    assert!(narrowed > 0);
}
