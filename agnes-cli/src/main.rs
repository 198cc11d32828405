//! The `agnes` command: a thin layer over the engine.

mod app;
mod args;
mod certificates;
mod commands;
mod config;
mod demo;
mod exit;
mod failure;
mod last_error;
mod log;
mod notice;
mod output;
mod place;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agnes_connectors::server::Account;
use clap::Parser;

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
    certificates::without_what_is_gone(out);
    let account = Account::of_user(&place::variable);
    // Two at least: one may be stuck in writing to a pipe while the other serves the folder.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out.failure(&Failure::file("start", &error));
            return ExitCode::from(exit::OTHER);
        }
    };
    let serves = cli.command.runs_until_stopped();
    let traces = match serves.then(|| agnes_http::Traces::from_environment(runtime.handle())).transpose() {
        Ok(traces) => traces.flatten(),
        Err(error) => {
            out.failure(&Failure::usage(error.to_string()));
            return ExitCode::from(exit::USAGE);
        }
    };
    if !serves {
        last_error::watch(account.clone());
    }
    log::start(cli.global.verbose, serves, traces.as_ref());
    let result = runtime.block_on(run(cli));
    if let Some(traces) = traces {
        traces.finish();
    }
    // Work that cannot be interrupted must not keep the command from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            last_error::note(&account, &failure);
            out.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Outcome {
    let app = Arc::new(App::new(cli.global, cli.command.only_reads()));
    // They take signals themselves: requests that run may end.
    if cli.command.runs_until_stopped() {
        return commands::run(&app, cli.command).await;
    }
    let takes_interrupts = cli.command.takes_interrupts();
    let ended_from_outside = async move { if takes_interrupts { asked_to_end().await } else { interrupted().await } };
    let may_tell = notice::follows(&cli.command);
    // A task of its own: a command that is stuck in writing to a pipe can still be interrupted.
    let command = tokio::spawn({
        let app = app.clone();
        async move { commands::run(&app, cli.command).await }
    });
    let stop = command.abort_handle();
    tokio::select! {
        ended = command => {
            let result = ended.unwrap_or(Err(Failure::Bug));
            let closed = app.close().await;
            if may_tell {
                notice::tell(&app).await;
            }
            result.and(closed)
        }
        () = ended_from_outside => {
            stop.abort();
            let _ = tokio::time::timeout(LAST_WORDS, app.close()).await;
            Err(Failure::Interrupted)
        }
    }
}

/// Ctrl-C, or a polite request to end.
pub(crate) async fn interrupted() {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = asked_to_end() => {}
    }
}

/// A polite request to end.
async fn asked_to_end() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        terminate.recv().await;
        return;
    }
    std::future::pending().await
}
