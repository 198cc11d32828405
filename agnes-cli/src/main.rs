//! The `agnes` command: a thin layer over the engine.

mod app;
mod args;
mod commands;
mod config;
mod demo;
mod exit;
mod failure;
mod output;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::args::Cli;
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// How long a command that was interrupted may take to let go of the data folder.
const LAST_WORDS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    agnes_core::cell::serve_if_asked();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let out = Output::new(&cli.global);
    log_to_stderr(cli.global.verbose, matches!(cli.command, args::Command::Serve(_)));
    // Two at least: one may be stuck in writing to a pipe while the other serves the folder.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out.failure(&Failure::file("start", &error));
            return ExitCode::from(exit::OTHER);
        }
    };
    let result = runtime.block_on(run(cli));
    // Work that cannot be interrupted must not keep the command from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Outcome {
    let app = Arc::new(App::new(cli.global));
    // It takes signals itself: requests that run may end.
    if matches!(cli.command, args::Command::Serve(_)) {
        return commands::run(&app, cli.command).await;
    }
    // A task of its own: a command that is stuck in writing to a pipe can still be interrupted.
    let command = tokio::spawn({
        let app = app.clone();
        async move { commands::run(&app, cli.command).await }
    });
    let stop = command.abort_handle();
    tokio::select! {
        ended = command => {
            let result = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            let closed = app.close().await;
            result.and(closed)
        }
        () = interrupted() => {
            stop.abort();
            let _ = tokio::time::timeout(LAST_WORDS, app.close()).await;
            Err(Failure::Interrupted)
        }
    }
}

/// Ctrl-C, or a polite request to end.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// `AGNES_LOG` says what is logged; `-v` and `-vv` are short for it.
///
/// A server logs from `info` on, one JSON object a line unless it writes to a terminal.
fn log_to_stderr(verbose: u8, serves: bool) {
    let default = match verbose {
        0 if !serves => "off",
        0 | 1 => "agnes=info,agnes_core=info,agnes_connectors=info,agnes_http=info",
        2 => "agnes=debug,agnes_core=debug,agnes_connectors=debug,agnes_http=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("AGNES_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = if serves && !std::io::stderr().is_terminal() {
        log.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        log.try_init()
    };
}
