//! `agnes snapshot`: rows of the server's tables, kept as files.

use agnes_core::scan::ScanRequest;
use agnes_core::workspace::{SnapshotMeta, Workspace};
use chrono::Utc;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{SnapshotCommand, SnapshotCreate};
use crate::failure::{Failure, Outcome};
use crate::output::text::{bytes, count, plural, safe, time};
use crate::place::{self, number, variable};

pub(super) async fn run(app: &App, command: SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::Create(args) => create(app, *args).await,
        SnapshotCommand::List => {
            let all = place::here()?.list_snapshots();
            app.out.show(&all, |out| {
                let rows = all.iter().map(|meta| {
                    let filter = meta.predicate.as_deref().unwrap_or_default();
                    let fetched = time(Some(meta.fetched_at));
                    let cut = if meta.truncated { " (cut)" } else { "" };
                    vec![
                        safe(&meta.name),
                        safe(&meta.table_id),
                        format!("{}{cut}", count(meta.rows)),
                        bytes(meta.bytes_local),
                        fetched,
                        safe(filter),
                    ]
                });
                app.out.grid(
                    out,
                    &["NAME", "TABLE", "ROWS", "SIZE", "FETCHED", "WHERE"],
                    &["ROWS", "SIZE"],
                    rows.collect(),
                )
            })?;
            if all.is_empty() {
                app.out.hint("`agnes snapshot create TABLE` keeps rows of a table of the server");
            }
            Ok(())
        }
        SnapshotCommand::Refresh { name, predicate } => refresh(app, &name, predicate).await,
        SnapshotCommand::Drop { name } => {
            let told = place::here()?.drop_snapshots(std::slice::from_ref(&name))?;
            warn_of_views(app, &told);
            app.out.done(&json!({"dropped": [name]}), &format!("deleted the snapshot {}", safe(&name)))
        }
        SnapshotCommand::Prune { older_than, larger_than, dry_run, yes } => {
            if older_than.is_none() && larger_than.is_none() {
                return Err(Failure::usage("say which: `--older-than 7d`, `--larger-than 500m`, or both"));
            }
            let workspace = place::here()?;
            let now = Utc::now();
            let goes = |meta: &SnapshotMeta| {
                older_than.is_none_or(|age| now - meta.fetched_at > age)
                    && larger_than.is_none_or(|size| meta.bytes_local > size)
            };
            let names: Vec<String> =
                workspace.list_snapshots().into_iter().filter(goes).map(|meta| meta.name).collect();
            let what = plural(names.len(), "snapshot");
            if dry_run {
                return app.out.show(&json!({"dry_run": true, "would_drop": names}), |out| {
                    Ok(writeln!(out, "{what} would go: {}", safe(&names.join(", ")))?)
                });
            }
            if !names.is_empty() {
                app.confirm(&yes, &format!("delete {what}"))?;
                warn_of_views(app, &workspace.drop_snapshots(&names)?);
            }
            app.out.done(&json!({"dropped": names}), &format!("deleted {what}"))
        }
    }
}

/// As sizes are shown.
const GIGABYTE: u64 = 1_000_000_000;

/// Bytes that snapshots may take.
pub(super) fn quota() -> Outcome<u64> {
    let gigabytes =
        variable("AGNES_SNAPSHOT_QUOTA_GB").map(|text| number("AGNES_SNAPSHOT_QUOTA_GB", &text, 0..=1_000_000));
    Ok(gigabytes.transpose()?.unwrap_or(10) * GIGABYTE)
}

/// What a snapshot of this table is called, unless somebody says otherwise.
pub(super) fn usual_name(table: &str) -> String {
    table.replace(['.', '-'], "_")
}

pub(super) async fn create(app: &App, args: SnapshotCreate) -> Outcome {
    let name = args.name.clone().unwrap_or_else(|| usual_name(&args.table));
    let request = ScanRequest {
        table: args.table,
        select: args.select,
        predicate: args.predicate,
        limit: args.limit,
        order_by: args.order_by,
        snapshot: Some(name.clone()),
    };
    let server = app.server()?;
    let estimate = if args.no_estimate { Value::Null } else { server.estimate_scan(&request).await? };
    if args.estimate {
        return app.out.show(&estimate, |out| Ok(writeln!(out, "{}", estimated(&estimate))?));
    }
    let workspace = place::here()?;
    // A refresh would bring the rows of its own server.
    place::check_server(&workspace, server.server())?;
    workspace.check_snapshot(&name, args.force)?;
    if !estimate.is_null() {
        app.out.note(&estimated(&estimate));
    }
    let meta = fetch(app, &workspace, &name, &request, &estimate, args.force).await?;
    app.out.done(&meta, &kept(&meta))?;
    warn_of_cut(app, &meta);
    app.out.hint(&format!("`agnes query 'select * from {}'` asks it", safe(&meta.name)));
    Ok(())
}

fn estimated(estimate: &Value) -> String {
    let rows = estimate["estimated_result_rows"]
        .as_u64()
        .map_or("an unknown number of rows".to_owned(), |rows| plural(rows, "row"));
    let reads = bytes(estimate["estimated_scan_bytes"].as_u64().unwrap_or_default());
    let cost = estimate["bq_cost_estimate_usd"].as_f64().filter(|cost| *cost > 0.0);
    let cost = cost.map_or_else(String::new, |cost| format!(", about {cost:.4} USD"));
    format!("it reads {reads} of {rows} at most{cost}")
}

fn kept(meta: &SnapshotMeta) -> String {
    format!("{} holds {}, {}", safe(&meta.name), plural(meta.rows, "row"), bytes(meta.bytes_local))
}

/// Says what became of the database that has the views.
fn warn_of_views(app: &App, told: &[String]) {
    told.iter().for_each(|warning| app.out.warn(&safe(warning)));
}

/// Says that rows are missing, where they are.
fn warn_of_cut(app: &App, meta: &SnapshotMeta) {
    if meta.truncated {
        let first = plural(meta.rows, "row");
        app.out.warn(&format!(
            "{} is not whole: these are the first {first} that the server gives at once",
            safe(&meta.name)
        ));
        app.out.hint("`--where` and `--select` ask for less");
    }
}

async fn fetch(
    app: &App,
    workspace: &Workspace,
    name: &str,
    request: &ScanRequest,
    estimate: &Value,
    force: bool,
) -> Outcome<SnapshotMeta> {
    let server = app.server()?;
    place::check_server(workspace, server.server())?;
    let rows = server.scan(request).await?;
    let expected = estimate["estimated_scan_bytes"].as_u64().unwrap_or_default();
    let (meta, told) = workspace.keep_snapshot(name, request, rows, expected, (force, quota()?)).await?;
    warn_of_views(app, &told);
    Ok(meta)
}

async fn refresh(app: &App, name: &str, predicate: Option<String>) -> Outcome {
    let workspace = place::here()?;
    let old = workspace.snapshot(name)?;
    let mut request = old.request();
    if predicate.is_some() {
        request.predicate = predicate;
    }
    let new = fetch(app, &workspace, name, &request, &Value::Null, true).await?;
    let is_same = new.result_hash_md5 == old.result_hash_md5;
    let told = json!({
        "name": name, "identical": is_same, "snapshot": new,
        "rows": {"old": old.rows, "new": new.rows}, "bytes": {"old": old.bytes_local, "new": new.bytes_local},
    });
    let how = if is_same { "the same as before".to_owned() } else { format!("{} before", plural(old.rows, "row")) };
    app.out.done(&told, &format!("{} ({how})", kept(&new)))?;
    warn_of_cut(app, &new);
    Ok(())
}

pub(super) fn disk_info(app: &App) -> Outcome {
    let workspace = place::here()?;
    let all = workspace.list_snapshots();
    let used: u64 = all.iter().map(|meta| meta.bytes_local).sum();
    let (free, quota) = (workspace.free_bytes()?, quota()?);
    let told = json!({
        "snapshots_dir": workspace.snapshots(), "used_bytes": used, "snapshot_count": all.len(),
        "free_bytes": free, "quota_gb": quota / GIGABYTE,
    });
    app.out.show(&told, |out| {
        let of = format!("{} of {}", bytes(used), bytes(quota));
        Ok(writeln!(out, "{}: {of}; {} free on the disk", plural(all.len(), "snapshot"), bytes(free))?)
    })
}
