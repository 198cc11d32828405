//! `agnes sync` and `agnes rebuild`.

use std::io::Write;

use agnes_connectors::server::{Served as _, ServerClient, Told};
use agnes_core::local::{FinishProfiles, Rebuild, RebuildSource, RunSync, TriggerSync};
use agnes_core::orchestrator::{RebuildOutcome, SourceOutcome};
use agnes_core::sync::{JobState, SyncRequest, SyncRun, TableStatus};
use comfy_table::{Attribute, Cell, Color};

use crate::app::App;
use crate::args::{RebuildArgs, SyncArgs};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::output::progress::Bars;
use crate::output::text::{bytes, count, duration, plural, safe};

pub(super) async fn run(app: &App, args: SyncArgs) -> Outcome {
    match app.at_server()? {
        Some(server) => at_server(app, &server, args).await,
        None => {
            let bars = Bars::new(app.out);
            let run = app.call_with(RunSync { request: request(args) }, bars.progress()).await;
            if run.is_ok() {
                app.call_with(FinishProfiles {}, bars.progress()).await?;
            }
            bars.finish();
            ended(app, &Told::here(run?))
        }
    }
}

/// Has a server sync, and with `--wait` follows it to its end.
pub(super) async fn at_server(app: &App, server: &ServerClient, args: SyncArgs) -> Outcome {
    if args.wait {
        let bars = Bars::new(app.out);
        let run = RunSync { request: request(args) }.follow(server, bars.progress()).await;
        bars.finish();
        return ended(app, &run?);
    }
    let begun = TriggerSync { request: request(args) }.ask(server).await?;
    app.out.done(&begun, &format!("the sync runs: {}", safe(&begun.id)))?;
    app.out.hint(&format!("`agnes admin run show {}` tells how far it is, `--wait` waits", safe(&begun.id)));
    Ok(())
}

fn request(args: SyncArgs) -> SyncRequest {
    SyncRequest { sources: args.source, tables: args.tables, full: args.full }
}

/// Tells what came of a run.
fn ended(app: &App, run: &Told<SyncRun>) -> Outcome {
    if !app.out.quiet || app.out.json {
        app.out.show(run, |out| show_run(app.out, out, run))?;
    }
    let tables = run.outcome.as_ref().map(|outcome| outcome.tables.as_slice());
    if tables.is_some_and(<[_]>::is_empty) {
        app.out.hint("`agnes source add` says where data comes from");
    }
    if tables.is_some_and(|tables| tables.iter().any(|table| table.reason.as_deref() == Some("due_check"))) {
        app.out.hint("some tables wait for their schedule: `agnes sync <table>` reads them now");
    }
    let failed = run.outcome.as_ref().is_none_or(|o| o.tables.iter().any(|table| table.status == TableStatus::Error));
    if failed || run.state != JobState::Succeeded { Err(Failure::Partial) } else { Ok(()) }
}

/// Prints what a run did.
pub(crate) fn show_run(output: Output, out: &mut dyn Write, run: &SyncRun) -> Outcome {
    if let Some(outcome) = &run.outcome {
        let rows = outcome.tables.iter().map(|table| {
            let status = Cell::new(table.status.as_str());
            let status = match table.status {
                TableStatus::Ok => status.fg(Color::Green),
                TableStatus::Error => status.fg(Color::Red),
                TableStatus::Unchanged | TableStatus::Skipped => status.add_attribute(Attribute::Dim),
            };
            let mut what = table.error.as_deref().or(table.reason.as_deref()).map(safe).unwrap_or_default();
            if table.rejected_rows > 0 {
                what = format!("{} put aside {what}", plural(table.rejected_rows, "row"));
            }
            vec![
                safe(&table.source).into(),
                safe(&table.table).into(),
                status,
                count(table.rows).into(),
                bytes(table.bytes).into(),
                duration(table.duration_ms).into(),
                what.into(),
            ]
        });
        let header = ["SOURCE", "TABLE", "STATUS", "ROWS", "SIZE", "TOOK", ""];
        output.grid(out, &header, &["ROWS", "SIZE", "TOOK"], rows.collect())?;
        for table in &outcome.tables {
            for note in &table.notes {
                writeln!(out, "{}: {}", safe(&table.table), safe(note))?;
            }
            if let Some(hint) = &table.hint {
                writeln!(out, "hint: {}: {}", safe(&table.table), safe(hint))?;
            }
            if let Some(next) = &table.next_try {
                let when = match *next > chrono::Utc::now() {
                    true => format!("at {}", next.format("%Y-%m-%d %H:%M UTC")),
                    false => "by the next run".to_owned(),
                };
                writeln!(out, "{}: tried again {when}", safe(&table.table))?;
            }
        }
        for note in &outcome.notes {
            writeln!(out, "{}", safe(note))?;
        }
    }
    if let Some(progress) = &run.progress {
        let rows = progress.tables.iter().map(|table| {
            let read = match (table.total_bytes, table.rows) {
                (_, Some(rows)) => plural(rows, "row"),
                (Some(total), None) => format!("{} of {}", bytes(table.bytes), bytes(total)),
                (None, None) => bytes(table.bytes),
            };
            vec![
                safe(&table.source),
                safe(&table.table),
                table.status.as_deref().map_or("reads".to_owned(), safe),
                read,
            ]
        });
        output.grid(out, &["SOURCE", "TABLE", "STATUS", "READ"], &["READ"], rows.collect())?;
    }
    if run.outcome.is_none() && run.error.is_none() {
        let stage = run.progress.as_ref().and_then(|progress| progress.stage.as_deref());
        let stage = stage.map_or_else(String::new, |stage| format!(": {}", safe(stage)));
        writeln!(out, "{}{stage}", run.state.as_str())?;
    }
    if let Some(error) = &run.error {
        writeln!(out, "the run failed: {}", safe(error))?;
    }
    Ok(())
}

pub(super) async fn rebuild(app: &App, args: RebuildArgs) -> Outcome {
    let degraded = if let Some(source) = args.source {
        let outcome = app.ask(RebuildSource { source }).await?;
        app.out.show(&outcome, |out| show_sources(app.out, out, std::slice::from_ref(&outcome)))?;
        outcome.error.is_some()
    } else {
        let outcome: Told<RebuildOutcome> = app.ask(Rebuild {}).await?;
        app.out.show(&outcome, |out| {
            show_sources(app.out, out, &outcome.sources)?;
            for reason in &outcome.reasons {
                writeln!(out, "{}", safe(reason))?;
            }
            Ok(())
        })?;
        outcome.degraded
    };
    // A server makes them by itself.
    if app.at_server()?.is_none() {
        app.call(FinishProfiles {}).await?;
    }
    if degraded { Err(Failure::Partial) } else { Ok(()) }
}

fn show_sources(output: Output, out: &mut dyn Write, sources: &[SourceOutcome]) -> Outcome {
    let rows = sources.iter().map(|source| {
        let status = serde_json::to_value(source.status)
            .ok()
            .and_then(|v| v.as_str().map(ToOwned::to_owned))
            .unwrap_or_default();
        vec![
            safe(&source.source),
            status,
            count(source.views.len() as u64),
            duration(source.duration_ms),
            safe(source.error.as_deref().unwrap_or_default()),
        ]
    });
    output.grid(out, &["SOURCE", "STATUS", "TABLES", "TOOK", ""], &["TABLES", "TOOK"], rows.collect())?;
    for source in sources {
        for row in source.skipped.iter().chain(&source.alerts) {
            writeln!(
                out,
                "{}.{}: {} ({})",
                safe(&source.source),
                safe(&row.table),
                safe(&row.detail),
                safe(&row.reason)
            )?;
        }
    }
    Ok(())
}
