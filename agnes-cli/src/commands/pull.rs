//! `agnes pull`: the workspace brought up to date.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agnes_connectors::server::{Call, ServerClient};
use agnes_core::connector::{Progress, ProgressEvent};
use agnes_core::workspace::{PullError, PullLimits, PullOptions, PullReport, Reason, Workspace};

use crate::app::App;
use crate::args::PullArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::output::progress::Bars;
use crate::output::text::{bytes, plural, safe};
use crate::place::{self, number, variable};

pub(super) async fn run(app: &App, args: PullArgs) -> Outcome {
    let workspace = place::here()?;
    let options = PullOptions {
        tables: args.tables,
        lazy: match (args.lazy, args.all) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        dry_run: args.dry_run,
        skip_materialized: args.skip_materialize,
        partial: args.partial,
        accept_older: args.accept_older,
        accept_new_key: args.accept_new_key,
        user_id: None,
        limits: limits()?,
    };
    let report = match server_of(app, &workspace) {
        Ok(server) => pull(app, &server, &workspace, &options).await,
        Err(failure) => Err(failure),
    };
    tell(app, report, options.dry_run)
}

/// Prints what a pull did; what failed as a whole is in the report too.
pub(super) fn tell(app: &App, report: Outcome<PullReport>, is_dry: bool) -> Outcome {
    let (report, failure) = match report {
        Ok(report) => (report, None),
        Err(Failure::Engine(error)) if app.out.json => {
            let stage = if error.code() == "disk_full" { "disk" } else { "manifest" };
            let errors = vec![PullError::at(stage, &error)];
            (PullReport { errors, ..PullReport::default() }, Some(Failure::Engine(error)))
        }
        Err(failure) => return Err(failure),
    };
    if app.out.json || !app.out.quiet {
        app.out.show(&report, |out| show(app.out, out, &report, is_dry))?;
    }
    for error in report.errors.iter().filter(|_| !app.out.json) {
        let of = error.table.as_deref().map(|table| format!("{}: ", safe(table))).unwrap_or_default();
        app.out.warn(&format!("{of}{}", safe(&error.error)));
        if let Some(hint) = &error.hint {
            app.out.hint(&safe(hint));
        }
    }
    report.warnings.iter().filter(|_| !app.out.json).for_each(|warning| app.out.warn(&safe(warning)));
    match failure {
        Some(failure) => Err(Failure::Told(failure.exit_code())),
        None if report.errors.is_empty() => Ok(()),
        None => Err(Failure::Partial),
    }
}

fn show(output: Output, out: &mut dyn std::io::Write, report: &PullReport, is_dry: bool) -> Outcome {
    if is_dry {
        let would = report.would_download.as_deref().unwrap_or_default();
        let rows = would.iter().map(|one| {
            let reason = match one.reason {
                Reason::New => "new",
                Reason::Changed => "changed",
                Reason::Missing => "gone or changed here",
                Reason::Unknown => "the server does not say what it is",
            };
            vec![safe(&one.table), bytes(one.size_bytes), reason.to_owned()]
        });
        if !would.is_empty() {
            output.grid(out, &["TABLE", "SIZE", "WHY"], &["SIZE"], rows.collect())?;
        }
        let total = would.iter().map(|one| one.size_bytes).sum();
        let files = would.iter().filter(|one| one.table.contains('/')).count();
        let what = both(would.len() - files, files);
        writeln!(out, "{what} would come, {}", bytes(total))?;
        for table in report.would_remove.iter().flatten() {
            writeln!(out, "{} would go", safe(table))?;
        }
        return Ok(());
    }
    let updated = report.tables_updated + report.assets_updated;
    if updated == 0 && report.errors.is_empty() {
        writeln!(out, "up to date: {} of generation {}", plural(report.parquets_total, "file"), report.generation)?;
    } else {
        let (what, moved) = (both(report.tables_updated, report.assets_updated), bytes(report.bytes_downloaded));
        writeln!(out, "{what} updated, {moved} in {:.1} s; generation {}", report.duration_s, report.generation)?;
    }
    for table in &report.removed {
        writeln!(out, "{} is gone: it is not yours to read any more, or not there", safe(table))?;
    }
    if !report.errors.is_empty() && updated == 0 {
        writeln!(out, "nothing was changed; what came is kept for the next pull")?;
    }
    Ok(())
}

/// So many tables, and files that are none, where there are any.
fn both(tables: usize, files: usize) -> String {
    let tables = plural(tables, "table");
    if files == 0 { tables } else { format!("{tables} and {}", plural(files, "other file")) }
}

/// The server of a workspace, unless the command line or the environment names another.
fn server_of(app: &App, workspace: &Workspace) -> Outcome<ServerClient> {
    let address = match app.global.server.clone().or_else(|| variable("AGNES_SERVER")) {
        Some(address) => address,
        None => match workspace.server() {
            Some(server) => server,
            None => place::address(&app.global, &app.account)?,
        },
    };
    place::client(&address, None, &app.account)
}

/// Pulls from `server`, with bars or lines.
pub(super) async fn pull(
    app: &App,
    server: &ServerClient,
    workspace: &Workspace,
    options: &PullOptions,
) -> Outcome<PullReport> {
    let mut options = options.clone();
    if options.accept_new_key {
        options.user_id = same_person(server, workspace).await?;
    }
    let bars = Bars::new(app.out);
    let lines = (!app.out.bars() && !app.out.quiet && !app.out.json && !options.dry_run).then(Lines::from_environment);
    let progress = match lines.transpose()? {
        Some(lines) => Progress::to(move |event| lines.show(event)),
        None => bars.progress(),
    };
    let report = workspace.pull(server, &options, progress).await;
    bars.finish();
    Ok(report?)
}

/// The id at the server of whoever this workspace belongs to: another one where it was set up anew.
async fn same_person(server: &ServerClient, workspace: &Workspace) -> Outcome<Option<String>> {
    let state = workspace.state()?;
    let me = server.ask(Call::get(&["auth", "me"])).await?.body;
    let text = |name: &str| me[name].as_str().filter(|text| !text.is_empty());
    let is_same = text("email").is_some_and(|email| email.eq_ignore_ascii_case(&state.email));
    Ok(text("user_id").filter(|_| is_same && state.server == server.server()).map(ToOwned::to_owned))
}

/// Asks whether a table that a query needs shall come, and brings it.
pub(super) async fn offer(app: &App, workspace: &Workspace, missing: agnes_core::Error) -> Outcome {
    let facts = missing.facts().unwrap_or_default();
    let Some(table) = facts["table"].as_str().filter(|_| facts["remote"] == false) else { return Err(missing.into()) };
    let size = bytes(facts["size_bytes"].as_u64().unwrap_or_default());
    if !app.out.ask(&format!("{} is not here. Fetch it, {size}? [y/N] ", safe(table)))? {
        return Err(missing.into());
    }
    let options = PullOptions { tables: vec![table.to_owned()], limits: limits()?, ..PullOptions::default() };
    let report = pull(app, &server_of(app, workspace)?, workspace, &options).await?;
    match report.errors.first() {
        Some(error) => Err(Failure::File { message: safe(&error.error) }),
        None => Ok(()),
    }
}

/// How files are fetched, as the environment says.
pub(super) fn limits() -> Outcome<PullLimits> {
    let mut limits = PullLimits::default();
    let count = |name: &str, range| variable(name).map(|text| number(name, &text, range)).transpose();
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(files) = count("AGNES_PULL_PARALLELISM", 1..=64)? {
        limits.files = size(files);
    }
    if let Some(ranges) = count("AGNES_PULL_CHUNK_PARALLELISM", 1..=16)? {
        limits.ranges = size(ranges);
    }
    if let Some(threshold) = count("AGNES_PULL_CHUNK_THRESHOLD_BYTES", 1..=u64::MAX)? {
        limits.threshold = threshold;
    }
    if let Some(retries) = count("AGNES_STREAM_RETRIES", 0..=100)? {
        limits.retries = u32::try_from(retries).unwrap_or(100);
    }
    Ok(limits)
}

/// Progress for a log: a line a file, at least every so many seconds, bytes or percent.
struct Lines {
    every: Duration,
    bytes: u64,
    files: Mutex<HashMap<String, (u64, u64, Instant)>>,
}

impl Lines {
    fn from_environment() -> Outcome<Arc<Self>> {
        let of = |name: &str, usual: u64| variable(name).map_or(Ok(usual), |text| number(name, &text, 0..=u64::MAX));
        Ok(Arc::new(Self {
            every: Duration::from_secs(of("AGNES_PULL_PROGRESS_INTERVAL_SECONDS", 5)?),
            bytes: of("AGNES_PULL_PROGRESS_INTERVAL_BYTES", 1 << 20)?,
            files: Mutex::default(),
        }))
    }

    fn show(&self, event: ProgressEvent) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProgressEvent::TableStarted { table, total_bytes, .. } => {
                files.insert(table, (total_bytes.unwrap_or_default(), 0, Instant::now()));
            }
            ProgressEvent::TableProgress { table, bytes: now, .. } => {
                let Some((total, told, at)) = files.get_mut(&table) else { return };
                // Whichever comes last of size and share keeps a large file from a line a MiB.
                let is_far = now.saturating_sub(*told) >= self.bytes.max(*total / 10);
                if now < *total && (is_far || at.elapsed() >= self.every) {
                    (*told, *at) = (now, Instant::now());
                    let percent = (now.saturating_mul(100) / (*total).max(1)).min(100);
                    line(&format!("{}: {} of {} ({percent} %)", safe(&table), bytes(now), bytes(*total)));
                }
            }
            ProgressEvent::TableFinished { table, status, .. } => {
                let (total, ..) = files.remove(&table).unwrap_or((0, 0, Instant::now()));
                let how = if status == "ok" { "done" } else { "failed" };
                line(&format!("{}: {how}, {}", safe(&table), bytes(total)));
            }
            ProgressEvent::Stage { .. } => {}
        }
    }
}

fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
