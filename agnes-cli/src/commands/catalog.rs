//! `agnes catalog`, `schema`, `describe`, `sample`, `profile`, `manifest`.

use std::io::Write;

use agnes_connectors::server::{Served as _, Told};
use agnes_core::catalog::{Sample, TableSchema};
use agnes_core::local::{CatalogManifest, CatalogTables, GetProfile, GetSample, GetSchema, RefreshProfile};
use agnes_core::profile::Profile;
use agnes_core::query::{Query, json_rows};
use agnes_core::workspace::{Glance, GlanceColumn, Workspace};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::args::{AsUser, CatalogArgs, ExploreArgs, ProfileArgs, SampleArgs, TableArgs};
use crate::failure::Outcome;
use crate::output::Output;
use crate::output::text::{bytes, count, or_dash, plural, safe, time};
use crate::place::{self, Meant};

pub(super) async fn tables(app: &App, args: &CatalogArgs) -> Outcome {
    let tables = app.ask_as(CatalogTables {}, &args.who).await?;
    app.out.show(&tables, |out| {
        let rows = tables.iter().map(|table| {
            vec![
                safe(&table.id),
                safe(&table.name),
                safe(&or_dash(table.source.as_deref())),
                table.query_mode.as_str().to_owned(),
                safe(&or_dash(table.entity_type.as_deref())),
                table.rows.map_or_else(|| "-".to_owned(), count),
                table.size_bytes.map_or_else(|| "-".to_owned(), bytes),
                time(table.last_sync),
                safe(table.description.as_deref().unwrap_or_default()),
            ]
        });
        let header = ["ID", "TABLE", "SOURCE", "MODE", "ENTITY", "ROWS", "SIZE", "LAST SYNC", "DESCRIPTION"];
        app.out.grid(out, &header, &["ROWS", "SIZE"], rows.collect())
    })?;
    if tables.is_empty() {
        app.out.hint("nothing is here to read: `agnes source add` and `agnes sync` bring tables, grants open them");
    }
    Ok(())
}

pub(super) async fn schema(app: &App, args: &TableArgs) -> Outcome {
    let schema = schema_of(app, &args.table, &args.who).await?;
    app.out.show(&schema, |out| show_schema(app.out, out, &schema))
}

/// The workspace that may have a snapshot of the name that was given.
fn with_snapshots(app: &App, who: &AsUser) -> Outcome<Option<Workspace>> {
    let is_here = matches!(place::meant(&app.global, &app.account)?, Meant::Server { is_named: false, .. });
    Ok(if is_here && who.as_user.is_none() { place::here().ok() } else { None })
}

async fn schema_of(app: &App, table: &str, who: &AsUser) -> Outcome<Told<TableSchema>> {
    if let Some(workspace) = with_snapshots(app, who)?
        && let Some(schema) = workspace.snapshot_schema(table).await?
    {
        return Ok(Told::here(schema));
    }
    app.ask_as(GetSchema { table: table.to_owned() }, who).await
}

async fn sample_of(app: &App, args: &SampleArgs) -> Outcome<Told<Sample>> {
    if let Some(workspace) = with_snapshots(app, &args.who)?
        && let Some(sample) = workspace.snapshot_sample(&args.table, args.rows).await?
    {
        return Ok(Told::here(sample));
    }
    app.ask_as(GetSample { table: args.table.clone(), rows: args.rows }, &args.who).await
}

fn show_schema(output: Output, out: &mut dyn Write, schema: &TableSchema) -> Outcome {
    let partitioned =
        schema.partition_by.as_deref().map(|by| format!(", partitioned by {}", safe(by))).unwrap_or_default();
    writeln!(out, "{} ({} SQL{partitioned})", output.bold(&safe(&schema.name)), safe(&schema.sql_flavor))?;
    let rows = schema.columns.iter().map(|column| {
        let nulls = if column.nullable { "" } else { "not null" };
        vec![safe(&column.name), safe(&column.data_type), nulls.to_owned(), safe(&column.description)]
    });
    output.grid(out, &["COLUMN", "TYPE", "", "DESCRIPTION"], &[], rows.collect())
}

pub(super) async fn sample(app: &App, args: &SampleArgs) -> Outcome {
    let sample = sample_of(app, args).await?;
    app.out.show(&sample, |out| show_sample(app.out, out, &sample))
}

fn show_sample(output: Output, out: &mut dyn Write, sample: &Sample) -> Outcome {
    show_rows(output, out, &sample.rows)
}

fn show_rows(output: Output, out: &mut dyn Write, rows: &[Map<String, Value>]) -> Outcome {
    let Some(first) = rows.first() else { return Ok(writeln!(out, "no rows")?) };
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let header: Vec<String> = names.iter().map(|name| safe(name)).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows = rows.iter().map(|row| names.iter().map(|name| plain(row.get(*name))).collect());
    output.grid(out, &header, &[], rows.collect())
}

/// A JSON value as one would write it in a cell.
fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "NULL".to_owned(),
        Some(Value::String(text)) => safe(text).replace('\n', "\\n"),
        Some(other) => safe(&other.to_string()),
    }
}

pub(super) async fn describe(app: &App, args: &SampleArgs) -> Outcome {
    let schema = schema_of(app, &args.table, &args.who).await?;
    let sample = sample_of(app, args).await?;
    app.out.show(&json!({"schema": schema, "sample": sample}), |out| {
        show_schema(app.out, out, &schema)?;
        writeln!(out)?;
        show_sample(app.out, out, &sample)
    })
}

pub(super) async fn profile(app: &App, args: &ProfileArgs) -> Outcome {
    let table = args.table.clone();
    let profile = if args.refresh {
        app.ask_as(RefreshProfile { table }, &args.who).await?
    } else {
        app.ask_as(GetProfile { table }, &args.who).await?
    };
    app.out.show(&profile, |out| show_profile(app.out, out, &profile))
}

fn show_profile(output: Output, out: &mut dyn Write, profile: &Value) -> Outcome {
    // Profiles of older versions may look otherwise.
    let Ok(profile) = serde_json::from_value::<Profile>(profile.clone()) else {
        return Ok(writeln!(out, "{profile:#}")?);
    };
    let sampled = if profile.sampled { ", figures from a sample" } else { "" };
    writeln!(out, "{}, {}{sampled}", plural(profile.row_count, "row"), plural(profile.columns.len(), "column"))?;
    let number = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| ((n * 100.0).round() / 100.0).to_string());
    let lines = profile.columns.iter().map(|column| {
        let (low, high) = match (&column.numeric_stats, &column.date_stats, &column.string_stats) {
            (Some(stats), _, _) => (number(stats.min), number(stats.max)),
            (_, Some(stats), _) => (safe(&stats.earliest), safe(&stats.latest)),
            (_, _, Some(stats)) => {
                let values: Vec<String> = stats.top_values.iter().map(|v| safe(&v.value)).collect();
                (values.first().cloned().unwrap_or_default(), values.get(1).cloned().unwrap_or_default())
            }
            _ => Default::default(),
        };
        vec![
            safe(&column.name),
            safe(&column.data_type),
            format!("{:.1}", 100.0 - column.completeness_pct),
            count(column.unique_count),
            low,
            high,
            number(column.numeric_stats.as_ref().and_then(|stats| stats.mean)),
        ]
    });
    let header = ["COLUMN", "TYPE", "MISSING %", "DISTINCT", "MIN / TOP", "MAX / NEXT", "MEAN"];
    output.grid(out, &header, &["MISSING %", "DISTINCT", "MEAN"], lines.collect())?;
    for alert in &profile.alerts {
        writeln!(out, "alert: {}: {}", safe(&alert.column), safe(&alert.message))?;
    }
    Ok(())
}

/// A table at a glance: from the files here or the data folder, or the statistics of the server.
pub(super) async fn explore(app: &App, args: ExploreArgs) -> Outcome {
    if args.remote {
        let profile = GetProfile { table: args.table }.ask(&app.server()?).await?;
        return app.out.show(&profile, |out| show_profile(app.out, out, &profile));
    }
    let glance = match place::meant(&app.global, &app.account)? {
        Meant::Folder => glance_of_folder(app, args.table).await?,
        Meant::Server { .. } => place::files(&app.global, &app.account)?.glance(&args.table).await?,
    };
    app.out.show(&glance, |out| {
        writeln!(out, "{}, {}", app.out.bold(&safe(&glance.table)), plural(glance.row_count, "row"))?;
        let columns = glance.columns.iter().map(|column| vec![safe(&column.name), safe(&column.data_type)]);
        app.out.grid(out, &["COLUMN", "TYPE"], &[], columns.collect())?;
        writeln!(out)?;
        show_rows(app.out, out, &glance.sample_rows)
    })
}

/// The same of a data folder.
async fn glance_of_folder(app: &App, table: String) -> Outcome<Glance> {
    let schema = app.call(GetSchema { table }).await?;
    let sample = app.call(GetSample { table: schema.table_id.clone(), rows: 5 }).await?;
    let mut counted = app.query_as(Query::row_count(&schema.name), &AsUser { as_user: None }).await?;
    let mut row_count = 0;
    while let Some(batch) = counted.next().await? {
        row_count = json_rows(&batch).first().and_then(|row| row["n"].as_u64()).unwrap_or(row_count);
    }
    let columns = schema.columns.into_iter();
    let columns = columns.map(|column| GlanceColumn { name: column.name, data_type: column.data_type }).collect();
    Ok(Glance { table: schema.name, row_count, columns, sample_rows: sample.rows })
}

pub(super) async fn manifest(app: &App, args: &CatalogArgs) -> Outcome {
    let manifest = app.ask_as(CatalogManifest {}, &args.who).await?;
    app.out.show(&manifest, |out| {
        let rows = manifest.tables.iter().map(|(name, table)| {
            let hash = table.sha256.as_deref().unwrap_or(&table.hash);
            vec![
                safe(name),
                table.query_mode.as_str().to_owned(),
                count(table.rows),
                bytes(table.size_bytes),
                hash.chars().take(16).collect(),
                time(table.updated),
            ]
        });
        app.out.grid(out, &["TABLE", "MODE", "ROWS", "SIZE", "HASH", "UPDATED"], &["ROWS", "SIZE"], rows.collect())?;
        Ok(writeln!(out, "generation {}", manifest.generation)?)
    })
}
