//! The poll of service levels: their clocks run without anybody changing an issue.

use std::collections::BTreeSet;
use std::time::Duration;

use agnes_core::duck::blocking;
use agnes_core::error::Result;
use agnes_core::ident::TableName;
use agnes_core::push::{Documents, Looked, read_columns};
use arrow::array::{Array as _, AsArray as _};
use serde_json::json;

use super::document::{is_deleted, overlay};
use super::fetch::Levels;
use crate::calls::until_cancelled;

const DONE: &str = "Done";
const COLUMNS: [&str; 4] =
    ["issue_key", "status_category", "first_response_elapsed_millis", "time_to_resolution_elapsed_millis"];

/// Open issues of the table whose clocks are known to run.
fn open(documents: &Documents, issues: &TableName) -> Result<BTreeSet<String>> {
    let (batches, _) = read_columns(documents.extract(), issues, &COLUMNS)?;
    let mut keys = BTreeSet::new();
    for batch in batches {
        let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let (Some(names), Some(categories)) = (text("issue_key"), text("status_category")) else { continue };
        let clocks: Vec<_> = COLUMNS[2..].iter().filter_map(|name| batch.column_by_name(name)).collect();
        for row in 0..batch.num_rows() {
            let is_open = !categories.is_valid(row) || categories.value(row) != DONE;
            if is_open && names.is_valid(row) && clocks.iter().any(|clock| clock.is_valid(row)) {
                keys.insert(names.value(row).to_owned());
            }
        }
    }
    Ok(keys)
}

/// How one issue fared.
enum Fared {
    Updated,
    Healed,
    Skipped,
    Failed,
}

/// Asks for the service levels of every open issue that has some.
pub(crate) async fn run(levels: &Levels, documents: &Documents, issues: &TableName, pause: Duration) -> Result<Looked> {
    let (kept, table) = (documents.clone(), issues.clone());
    let keys = blocking(move || open(&kept, &table)).await?;
    let (mut looked, mut counts) = (Looked::default(), [0_u64; 4]);
    let mut failed = Vec::new();
    for (number, key) in keys.into_iter().enumerate() {
        levels.api.cancel.check()?;
        if number > 0 {
            until_cancelled(&levels.api.cancel, async {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .await?;
        }
        let fared = one(levels, documents, &key, &mut looked).await?;
        if matches!(fared, Fared::Failed) {
            failed.push(key);
        }
        counts[fared as usize] += 1;
    }
    let kept = documents.clone();
    blocking(move || kept.sync()).await?;
    let [updated, healed, skipped, fails] = counts;
    looked.report =
        json!({"updated": updated, "healed": healed, "skipped": skipped, "failed": fails, "failed_issues": failed});
    Ok(looked)
}

async fn one(levels: &Levels, documents: &Documents, key: &str, looked: &mut Looked) -> Result<Fared> {
    let (kept, name) = (documents.clone(), key.to_owned());
    let there = blocking(move || match kept.read(&name) {
        Err(error) if error.code() == "document_unreadable" => Ok(None),
        read => read,
    });
    if there.await?.is_none_or(|there| is_deleted(&there)) {
        return Ok(Fared::Skipped);
    }
    let asked = levels.api.patiently(|| levels.of(key, &["status", "resolution", "resolutiondate", "updated"])).await;
    let (known, polled) = match asked {
        Ok(asked) => asked,
        Err(error) if error.code() == "cancelled" => return Err(error),
        Err(error) => {
            tracing::warn!(issue = key, code = error.code(), "service levels cannot be had: {error}");
            return Ok(Fared::Failed);
        }
    };
    let done = polled["status"]["statusCategory"]["name"] == DONE;
    if known.is_empty() && !done {
        return Ok(Fared::Skipped);
    }
    let (kept, name) = (documents.clone(), key.to_owned());
    blocking(move || kept.put(&name, |there| overlay(there.filter(|there| !is_deleted(there))?, &known, &polled)))
        .await?;
    looked.changed.insert(key.to_owned());
    Ok(if done { Fared::Healed } else { Fared::Updated })
}
