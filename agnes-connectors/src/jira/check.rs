//! The consistency check: issues of some days at the site, as they are kept, and in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use agnes_core::duck::blocking;
use agnes_core::error::Result;
use agnes_core::ident::TableName;
use agnes_core::push::{Documents, Looked, read_columns};
use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::api::Api;
use super::config::Project;
use super::event::is_key;
use super::fetch::Levels;
use super::reconcile::{self, Index};

/// More issues than this are told of and left alone: something larger is wrong.
const REPAIR: usize = 20;
/// What was made less than this ago may still be on its way.
const GRACE: i64 = 5;
/// Days that are looked at, usually and once a week.
const DAYS: u32 = 30;
const DEEP_DAYS: u32 = 365;
const DEEP_EVERY: i64 = 7;
/// Days from which on a check counts as deep.
const DEEP: u32 = 90;
/// The note of the last check, and that of the last deep one.
const REPORT: &str = "consistency_report";
const LAST_DEEP: &str = "consistency_deep";

/// How many days to look at: a number, or what is due.
pub(crate) async fn days(documents: &Documents, asked: u32, now: DateTime<Utc>) -> Result<u32> {
    if asked > 0 {
        return Ok(asked);
    }
    let kept = documents.clone();
    let last = blocking(move || kept.note(LAST_DEEP)).await?.unwrap_or_default();
    let last = last["at"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    let due = last.is_none_or(|at| (now - at.to_utc()).num_days() >= DEEP_EVERY);
    Ok(if due { DEEP_DAYS } else { DAYS })
}

/// Keys in the table whose issues were made in the window.
fn published(documents: &Documents, table: &TableName, since: i64) -> Result<(BTreeSet<String>, usize)> {
    let (batches, damaged) = read_columns(documents.extract(), table, &["issue_key", "created_at"])?;
    let mut keys = BTreeSet::new();
    for batch in batches {
        let (Some(names), Some(made)) = (batch.column_by_name("issue_key"), batch.column_by_name("created_at")) else {
            continue;
        };
        let (Some(names), Some(made)) =
            (names.as_string_opt::<i32>(), made.as_primitive_opt::<TimestampMicrosecondType>())
        else {
            continue;
        };
        for row in 0..batch.num_rows() {
            if names.is_valid(row) && made.is_valid(row) && made.value(row) >= since {
                keys.insert(names.value(row).to_owned());
            }
        }
    }
    Ok((keys, damaged))
}

/// Compares, repairs a few, reports all.
pub(crate) async fn run(
    api: &Api,
    levels: Option<&Levels>,
    documents: &Documents,
    index: &Arc<Index>,
    issues: &TableName,
    project: &Project,
    days: u32,
) -> Result<Looked> {
    api.is_known().await?;
    let (started, now) = (Instant::now(), Utc::now());
    let (since, until) = (now - TimeDelta::days(days.into()), now - TimeDelta::minutes(GRACE));
    // By the site's own clock: a date would be read in the time zone of the account.
    let (minutes, clause) = (u64::from(days) * 24 * 60, project.clause());
    let jql = format!("{clause}created >= \"-{minutes}m\" AND created <= \"-{GRACE}m\" ORDER BY created ASC, key ASC");
    let hits: BTreeMap<String, _> =
        api.search(&jql).await?.into_iter().filter(|hit| is_key(&hit.key)).map(|hit| (hit.key.clone(), hit)).collect();
    let known = reconcile::known(index, documents).await?;
    let from = since.timestamp_micros();
    let within = |created: Option<i64>| created.is_some_and(|at| at >= from && at <= until.timestamp_micros());
    let raw: BTreeSet<String> =
        known.iter().filter(|(_, k)| !k.deleted && within(k.created)).map(|(key, _)| key.clone()).collect();
    let (kept, table) = (documents.clone(), issues.clone());
    let (rows, damaged) = blocking(move || published(&kept, &table, from)).await?;

    let is_missing = |key: &String| known.get(key).is_none_or(|known| known.deleted || !known.readable);
    let missing: Vec<String> = hits.keys().filter(|key| is_missing(key)).cloned().collect();
    let stale: Vec<String> = hits
        .values()
        .filter(|hit| !is_missing(&hit.key) && reconcile::is_stale(hit, known.get(&hit.key)))
        .map(|hit| hit.key.clone())
        .collect();
    let unseen: Vec<String> = raw.iter().filter(|key| !hits.contains_key(*key)).cloned().collect();
    let lag: Vec<String> = raw.iter().filter(|key| !rows.contains(*key)).cloned().collect();
    // Rows of what is gone.
    let left: Vec<String> =
        rows.iter().filter(|key| known.get(*key).is_some_and(|known| known.deleted)).cloned().collect();

    let few = |keys: &[String]| if keys.len() <= REPAIR { keys.to_vec() } else { Vec::new() };
    let repair: Vec<String> = few(&missing).into_iter().chain(few(&stale)).collect();
    let mut changed: BTreeSet<String> = few(&lag).into_iter().chain(few(&left)).collect();
    let done = reconcile::fetch(api, levels, documents, &Project::default(), repair, 1).await?;
    let seen = reconcile::fetch(api, levels, documents, project, few(&unseen), 1).await?;
    changed.extend(done.changed.iter().chain(&seen.changed).cloned());
    // What was kept already may still not be in the table.
    changed.extend(done.fetched.iter().cloned());
    let failed: Vec<&String> = done.failed.iter().chain(&seen.failed).map(|(key, _)| key).collect();

    let alert = match missing.len() {
        _ if damaged > 0 => "ERROR",
        n if n > REPAIR => "ERROR",
        6.. => "WARNING",
        _ if !failed.is_empty() || stale.len() > REPAIR || lag.len() > REPAIR => "WARNING",
        _ => "INFO",
    };
    let report = json!({
        "timestamp": now.to_rfc3339(),
        "check_type": if days <= DEEP { "incremental" } else { "deep" },
        "max_age_days": days,
        "duration_seconds": started.elapsed().as_secs_f64(),
        "counts": {"jira_api": hits.len(), "raw_json": raw.len(), "parquet": rows.len()},
        "discrepancies": {
            "missing_in_json": missing,
            "stale_in_json": stale,
            "missing_in_parquet": lag,
            "deleted_in_jira": seen.gone.len() + left.len(),
            "unreadable_parts": damaged,
        },
        "actions": {
            "auto_backfilled": done.fetched,
            "backfill_failed": failed,
            "transform_failed": [],
        },
        "status": if failed.is_empty() { "success" } else { "partial_success" },
        "alert_level": alert,
    });
    let kept = documents.clone();
    blocking(move || kept.sync()).await?;
    Ok(Looked { changed, report })
}

/// Keeps the report, once it is known whose rows could not be taken. Blocks.
pub(crate) fn finish(documents: &Documents, mut report: Value, failed: &[String]) -> Result<Value> {
    if !failed.is_empty() {
        report["actions"]["transform_failed"] = json!(failed);
        report["status"] = "partial_success".into();
        if report["alert_level"] == "INFO" {
            report["alert_level"] = "WARNING".into();
        }
    }
    documents.set_note(REPORT, &report)?;
    if report["check_type"] == "deep" {
        documents.set_note(LAST_DEEP, &json!({"at": report["timestamp"]}))?;
    }
    if report["alert_level"] != "INFO" {
        let missing = report["discrepancies"]["missing_in_json"].as_array().map_or(0, Vec::len);
        tracing::warn!(
            alert = report["alert_level"].as_str(),
            missing,
            transform_failed = failed.len(),
            "the consistency check of Jira found something"
        );
    }
    Ok(report)
}
