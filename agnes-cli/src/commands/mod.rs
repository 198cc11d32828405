//! One file a domain: read the arguments, make one call, print what came.

mod admin;
mod catalog;
mod maintenance;
mod policy;
mod query;
mod serve;
mod source;
mod sync;

use crate::app::App;
use crate::args::Command;
use crate::failure::Outcome;

/// Runs one command.
pub(crate) async fn run(app: &App, command: Command) -> Outcome {
    match command {
        Command::Demo(args) => crate::demo::run(app.out, &app.global, &args).await,
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
        Command::Admin(command) => admin::run(app, command).await,
        Command::Backup(args) => maintenance::backup(app, &args).await,
        Command::Restore(args) => maintenance::restore(app, &args).await,
        Command::Gc(args) => maintenance::gc(app, &args).await,
        Command::Doctor => maintenance::doctor(app).await,
        Command::Serve(args) => serve::run(app, &args).await,
        Command::Completions { shell } => maintenance::completions(shell),
    }
}
