//! `agnes sync` and `agnes rebuild`.

use std::io::Write;

use agnes_core::local::{FinishProfiles, Rebuild, RebuildSource, RunSync};
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
    let request = SyncRequest { sources: args.source, tables: args.tables, full: args.full };
    let bars = Bars::new(app.out);
    let run = app.call_with(RunSync { request }, bars.progress()).await;
    if run.is_ok() {
        app.call_with(FinishProfiles {}, bars.progress()).await?;
    }
    bars.finish();
    let run = run?;
    if !app.out.quiet || app.out.json {
        app.out.show(&run, |out| show_run(app.out, out, &run))?;
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
        }
        for note in &outcome.notes {
            writeln!(out, "{}", safe(note))?;
        }
    }
    if let Some(error) = &run.error {
        writeln!(out, "the run failed: {}", safe(error))?;
    }
    Ok(())
}

pub(super) async fn rebuild(app: &App, args: RebuildArgs) -> Outcome {
    let degraded = if let Some(source) = args.source {
        let outcome = app.call(RebuildSource { source }).await?;
        app.out.show(&outcome, |out| show_sources(app.out, out, std::slice::from_ref(&outcome)))?;
        outcome.error.is_some()
    } else {
        let outcome: RebuildOutcome = app.call(Rebuild {}).await?;
        app.out.show(&outcome, |out| {
            show_sources(app.out, out, &outcome.sources)?;
            for reason in &outcome.reasons {
                writeln!(out, "{}", safe(reason))?;
            }
            Ok(())
        })?;
        outcome.degraded
    };
    app.call(FinishProfiles {}).await?;
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
