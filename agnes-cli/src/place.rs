//! Where a command runs: on a data folder, or at a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agnes_connectors::server::{Account, ServerClient, ServerOptions};
use agnes_core::secret::Secret;
use agnes_core::workspace::Workspace;

use crate::args::Global;
use crate::failure::{Failure, Outcome};

/// A variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Which of the two the command line and its surroundings mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meant {
    Folder,
    /// Address of the server, and whether the command line itself names it.
    Server {
        address: String,
        is_named: bool,
    },
}

/// What decides, in this order: `--server`, `--data-dir`, `AGNES_SERVER`, `DATA_DIR`, the
/// workspace around, a folder `./data`, the server that is kept, and else the folder.
pub(crate) fn meant(global: &Global, account: &Account) -> Outcome<Meant> {
    let at = |address: String, is_named| Meant::Server { address, is_named };
    if let Some(address) = &global.server {
        if global.data_dir.is_some() {
            return Err(Failure::usage("`--server` and `--data-dir` exclude each other: name one of them"));
        }
        return Ok(at(address.clone(), true));
    }
    if global.data_dir.is_some() {
        return Ok(Meant::Folder);
    }
    if let Some(address) = variable("AGNES_SERVER") {
        return Ok(at(address, false));
    }
    if variable("DATA_DIR").is_some() {
        return Ok(Meant::Folder);
    }
    if let Ok(workspace) = here()
        && let Some(address) = workspace.server()
    {
        return Ok(at(address, false));
    }
    if Path::new("./data").is_dir() {
        return Ok(Meant::Folder);
    }
    Ok(account.server()?.map_or(Meant::Folder, |address| at(address, false)))
}

/// The workspace: `AGNES_LOCAL_DIR`, else the one around this folder.
pub(crate) fn here() -> Outcome<Workspace> {
    let from = variable("AGNES_LOCAL_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    Ok(Workspace::find(&from)?)
}

/// The workspace, as far as its files may answer: not for another server that the command line names.
pub(crate) fn files(global: &Global, account: &Account) -> Outcome<Workspace> {
    let workspace = here()?;
    if let Some(named) = &global.server {
        check_server(&workspace, client(named, None, account)?.server())?;
    }
    Ok(workspace)
}

/// What is of one server has no place beside what is of another.
pub(crate) fn check_server(workspace: &Workspace, server: &str) -> Outcome {
    match workspace.server() {
        Some(own) if own != server => Err(Failure::usage_hint(
            format!("the workspace here is of {own}, not of {server}"),
            "leave `--server` out, ask with `--remote`, or go to a workspace of that server",
        )),
        _ => Ok(()),
    }
}

/// The workspace of what is started anywhere: [`here`], else the one that was set up last; in both cases
/// only one of this server.
pub(crate) fn here_or_last(account: &Account, server: &str) -> Outcome<Workspace> {
    let of_server = |workspace: Workspace| check_server(&workspace, server).map(|()| workspace);
    here().and_then(of_server).or_else(|failure| match account.workspace()? {
        Some(root) if variable("AGNES_LOCAL_DIR").is_none() => of_server(Workspace::find(&root)?),
        _ => Err(failure),
    })
}

/// The server that a command needs: as [`meant`], but no folder comes before it.
pub(crate) fn address(global: &Global, account: &Account) -> Outcome<String> {
    if let Some(address) = global.server.clone().or_else(|| variable("AGNES_SERVER")) {
        return Ok(address);
    }
    if let Ok(workspace) = here()
        && let Some(address) = workspace.server()
    {
        return Ok(address);
    }
    let kept = account.server()?;
    Ok(kept.ok_or(agnes_connectors::server::ServerError::NotNamed).map_err(agnes_core::Error::from)?)
}

/// A client of the server at this address, with `token`, else with what is kept for it.
pub(crate) fn client(address: &str, token: Option<Secret>, account: &Account) -> Outcome<ServerClient> {
    let mut options =
        ServerOptions { ca_file: variable("AGNES_CA_FILE").map(PathBuf::from), ..ServerOptions::default() };
    if let Some(seconds) = variable("AGNES_QUERY_TIMEOUT") {
        options.query_timeout = Duration::from_secs(number("AGNES_QUERY_TIMEOUT", &seconds, 1..=86_400)?);
    }
    Ok(ServerClient::signed_in(address, token, options, account, &variable)?)
}

/// A number from the environment.
pub(crate) fn number(name: &str, text: &str, range: std::ops::RangeInclusive<u64>) -> Outcome<u64> {
    let number = text.trim().parse::<u64>().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        Failure::usage(format!("`{name}` is not a whole number from {} to {}", range.start(), range.end()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn flags_say_where_a_command_runs() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::in_folder(folder.path());
        let meant = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["agnes", "catalog"], arguments].concat()).unwrap();
            meant(&cli.global, &account).unwrap()
        };
        let named = Meant::Server { address: "https://a".to_owned(), is_named: true };
        assert_eq!(meant(&["--server", "https://a"]), named);
        assert_eq!(meant(&["--data-dir", "x"]), Meant::Folder);
        let both = Cli::try_parse_from(["agnes", "catalog", "--server", "https://a", "--data-dir", "x"]).unwrap();
        assert!(super::meant(&both.global, &account).is_err());
    }
}
