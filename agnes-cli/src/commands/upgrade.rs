//! `agnes self-upgrade`: the version that the server offers, and back.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use agnes_connectors::server::{Latest, Piece, ServerClient};
use agnes_core::distribution::{Artifact, DistributionError, Installation, Installed, is_newer};
use agnes_core::duck::blocking;
use serde_json::json;

use crate::app::App;
use crate::args::UpgradeArgs;
use crate::failure::{Failure, Outcome};
use crate::output::text::{bytes, safe};
use crate::place;

/// Of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the server may take to say what it offers.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(app: &App, args: &UpgradeArgs) -> Outcome {
    if args.rollback {
        let here = here()?;
        let back = blocking(move || here.roll_back()).await?;
        let told = json!({"version": back.version, "rolled_back_from": VERSION});
        app.out.done(&told, &format!("back at version {}", safe(&back.version)))?;
        app.out.hint("it stays until there is a newer one than you came from; `agnes self-upgrade --force` ends that");
        return Ok(());
    }
    let server = app.server()?;
    let latest = match server.latest(PATIENCE).await {
        Ok(latest) => latest,
        Err(error) if error.code() == "server_unreachable" && !args.force => {
            app.out.note(&format!("whether there is a newer version is not known: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let own = here().ok().and_then(|here| Some(here.current().ok()?.version)).unwrap_or_else(|| VERSION.to_owned());
    let newest = latest.version.as_deref().map(safe);
    let is_outdated = newest.as_deref().is_some_and(|newest| is_newer(newest, &own));
    let told = json!({"version": own, "latest": newest, "outdated": is_outdated});
    let words = match &newest {
        Some(newest) if is_outdated => format!("version {newest} is there; this is {own}"),
        Some(_) => format!("version {own} is the newest"),
        None => format!("{} offers no versions", server.server()),
    };
    if args.check_only {
        app.out.done(&told, &words)?;
        return if is_outdated { Err(Failure::Told(crate::exit::FAILED)) } else { Ok(()) };
    }
    let insists = args.force && newest.is_some();
    if !(is_outdated || insists) {
        return app.out.done(&told, &words);
    }
    let here = here()?;
    if !args.force && here.skipped() == newest {
        let words = "the newest version was rolled back from; `agnes self-upgrade --force` installs it again";
        return app.out.done(&told, words);
    }
    let installed = install(app, &server, &latest, here).await?;
    keep(app, &server, &latest);
    refresh(&installed);
    let told = json!({"version": installed.version, "upgraded_from": own, "outdated": false});
    app.out.done(&told, &format!("version {} is installed; before it was {own}", safe(&installed.version)))
}

/// The installation that this program is part of.
fn here() -> Outcome<Installation> {
    let program = std::env::current_exe().map_err(|e| Failure::file("find this program", &e))?;
    Ok(Installation::of_program(&program)?)
}

async fn install(app: &App, server: &ServerClient, latest: &Latest, here: Installation) -> Outcome<Installed> {
    let not_offered = || agnes_core::Error::from(DistributionError::NotOffered);
    let version = latest.version.clone().ok_or_else(not_offered)?;
    let artifact: &Artifact = latest.for_this_computer().ok_or_else(not_offered)?;
    let sha256 = artifact.sha256.clone();
    let incoming = blocking(move || here.incoming(&sha256)).await?;
    let (mut file, mut here) = incoming.archive()?;
    if here > artifact.size_bytes {
        file.set_len(0).map_err(|e| Failure::file("keep the archive", &e))?;
        here = 0;
    }
    let rest = bytes(artifact.size_bytes - here);
    let all = if here > 0 { format!("the last {rest} of {}", bytes(artifact.size_bytes)) } else { rest };
    app.out.note(&format!("fetching version {} ({all})", safe(&version)));
    let take = |piece: Piece<'_>| match piece {
        Piece::Anew => file.set_len(0),
        Piece::More(bytes) => file.write_all(bytes),
    };
    server.archive(artifact, here, take).await?;
    drop(file);
    Ok(blocking(move || incoming.install(&version)).await?)
}

/// Notes which archive worked.
fn keep(app: &App, server: &ServerClient, latest: &Latest) {
    let Some(artifact) = latest.for_this_computer() else { return };
    let url = server.address_of(&["cli", "artifact", &artifact.filename]);
    let text = json!({"version": latest.version, "url": url.as_str(), "sha256": artifact.sha256}).to_string();
    // Nothing hangs on it.
    let _ = app.account.write("last_known_good.json", text.as_bytes());
}

/// The hooks are those of the version that is installed now.
fn refresh(installed: &Installed) {
    if place::here().is_ok() {
        let mut command = Command::new(&installed.program);
        command.arg("refresh-hooks").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.env_remove("LD_LIBRARY_PATH").env_remove("DYLD_LIBRARY_PATH").status();
    }
}

pub(super) fn refresh_hooks() -> Outcome {
    let workspace = place::here()?;
    if workspace.has_any_hooks() {
        workspace.merge_settings()?;
    }
    Ok(())
}
