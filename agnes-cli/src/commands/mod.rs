//! One file a domain: read the arguments, make one call, print what came.

mod activity;
mod admin;
mod auth;
mod browser;
mod catalog;
mod diagnose;
mod guides;
mod init;
mod initial;
mod maintenance;
mod mcp;
mod people;
mod policy;
mod pull;
mod query;
mod requests;
mod scheduler;
mod serve;
mod sessions;
mod setup;
mod shell;
mod snapshot;
mod source;
mod status;
mod sync;
mod table;
mod upgrade;

use std::sync::Arc;

use crate::app::App;
use crate::args::Command;
use crate::failure::Outcome;

/// Runs one command.
pub(crate) async fn run(app: &Arc<App>, command: Command) -> Outcome {
    match command {
        Command::Demo(args) => crate::demo::run(app.out, &app.global, &args).await,
        Command::Auth(command) => auth::run(app, command).await,
        Command::Tokens(command) => auth::tokens(app, command).await,
        Command::Init(args) => init::run(app, args).await,
        Command::Pull(args) => pull::run(app, args).await,
        Command::Push(args) => sessions::push(app, args).await,
        Command::Explore(args) => catalog::explore(app, args).await,
        Command::Snapshot(command) => snapshot::run(app, command).await,
        Command::Fetch(args) => snapshot::create(app, *args).await,
        Command::DiskInfo => snapshot::disk_info(app),
        Command::CaptureSession => sessions::capture(app),
        Command::MarkPrivate => sessions::mark_private(app),
        Command::Statusline => sessions::status_line(),
        Command::Status => status::run(app).await,
        Command::Source(command) => source::run(app, command).await,
        Command::Sync(args) => sync::run(app, args).await,
        Command::Rebuild(args) => sync::rebuild(app, args).await,
        Command::Query(args) => query::run(app, args).await,
        Command::Replay(args) => query::replay(app, args).await,
        Command::Catalog(args) => catalog::tables(app, &args).await,
        Command::Schema(args) => catalog::schema(app, &args).await,
        Command::Describe(args) => catalog::describe(app, &args).await,
        Command::Sample(args) => catalog::sample(app, &args).await,
        Command::Profile(args) => catalog::profile(app, &args).await,
        Command::Manifest(args) => catalog::manifest(app, &args).await,
        Command::Admin(command) => admin::run(app, *command).await,
        Command::Backup(args) => maintenance::backup(app, &args).await,
        Command::Restore(args) => maintenance::restore(app, &args).await,
        Command::Gc(args) => maintenance::gc(app, &args).await,
        Command::Doctor(args) => maintenance::doctor(app, &args).await,
        Command::Serve(args) => serve::run(app, &args).await,
        Command::Mcp(args) => mcp::run(app, &args).await,
        Command::Scheduler => scheduler::run(app).await,
        Command::Setup(command) => setup::run(app, command).await,
        Command::Skills(command) => guides::skills(app, &command),
        Command::Onboarded(args) => guides::onboarded(app, args).await,
        Command::SelfUpgrade(args) => upgrade::run(app, &args).await,
        Command::RefreshHooks => upgrade::refresh_hooks(),
        Command::Man { to } => maintenance::man(&to),
        Command::Completions { shell } => maintenance::completions(shell),
    }
}
