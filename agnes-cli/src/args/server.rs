//! Commands that speak to a server: signing in, the workspace, what is pulled into it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Sign in by address and password
    #[command(after_help = "Examples:
  agnes auth login --server https://agnes.example.com
  agnes auth login --web
  agnes auth login --email ann@example.com --password - < password.txt")]
    Login(LoginArgs),
    /// Sign out: the session ends at the server, the token is forgotten, in the keyring and in the file
    #[command(after_help = "Example:\n  agnes auth logout")]
    Logout,
    /// Who is signed in, where, and where the token is kept
    #[command(visible_alias = "status", after_help = "Example:\n  agnes auth whoami --json")]
    Whoami,
    /// Keep a token that was made elsewhere
    #[command(after_help = "Examples:
  agnes auth import-token --server https://agnes.example.com --token - < token.txt
  agnes auth import-token --token-env MY_TOKEN")]
    ImportToken(ImportToken),
    /// Personal access tokens of your own
    #[command(subcommand, after_help = "Example:\n  agnes auth token create --name laptop --ttl 30d")]
    Token(OwnTokenCommand),
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Your address; without it you are asked
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// `-` reads it from standard input; without it you are asked
    #[arg(long, value_name = "-")]
    pub(crate) password: Option<String>,
    /// Sign in with the browser
    #[arg(long, conflicts_with_all = ["email", "password"])]
    pub(crate) web: bool,
    /// With --web: only print the address to open
    #[arg(long, requires = "web")]
    pub(crate) no_browser: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportToken {
    /// The token; `-` reads it from standard input, which keeps it out of lists of processes
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The environment variable that holds it
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    pub(crate) token_env: Option<String>,
    /// Whose it is, where the token does not say
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// Do not ask the server whether it is good
    #[arg(long)]
    pub(crate) skip_verify: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OwnTokenCommand {
    /// Make a token; it is shown once
    #[command(after_help = "Examples:
  agnes auth token create --name laptop --ttl 30d
  agnes auth token create --name setup --scope bootstrap-analyst --raw")]
    Create {
        /// What to call it
        #[arg(long)]
        name: String,
        /// How long it lives: days like `90d`, or `never`
        #[arg(long, default_value = "90d", value_parser = days)]
        ttl: Days,
        /// What it may be used for: `general`, or `bootstrap-analyst` to set up a laptop
        #[arg(long, default_value = "general")]
        scope: String,
        /// Print the token and nothing else
        #[arg(long)]
        raw: bool,
    },
    /// List your tokens, newest first
    #[command(after_help = "Example:\n  agnes auth token list")]
    List,
    /// Revoke a token: it is refused from the next call on
    #[command(after_help = "Example:\n  agnes auth token revoke laptop")]
    Revoke {
        /// Its id, name, or a unique prefix of one
        token: String,
    },
}

/// How many days a token lives; none for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days(pub(crate) Option<u32>);

fn days(text: &str) -> Result<Days, String> {
    if text == "never" {
        return Ok(Days(None));
    }
    let days = text.strip_suffix('d').unwrap_or(text).parse::<u32>().ok().filter(|days| (1..=3650).contains(days));
    days.map(|days| Days(Some(days)))
        .ok_or_else(|| "it is a number of days from `1d` to `3650d`, or `never`".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The server [default: the one that is kept]
    #[arg(long, value_name = "URL")]
    pub(crate) server_url: Option<String>,
    /// A token; `-` reads it from standard input [default: the one that is kept]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The folder to set up [default: this one]
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Set it up though there is something in it already
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask before files become those that the server has workspaces begin with
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Leave materialized tables for later
    #[arg(long)]
    pub(crate) skip_materialize: bool,
    /// Bring tables only when they are asked for
    #[arg(long)]
    pub(crate) lazy: bool,
    /// Bring no table now
    #[arg(long)]
    pub(crate) no_pull: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Tables to bring, beside those that are kept up to date anyway
    pub(crate) tables: Vec<String>,
    /// Only say what would come, and how much
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave materialized tables as they are
    #[arg(long)]
    pub(crate) skip_materialize: bool,
    /// From now on bring tables only when they are asked for
    #[arg(long)]
    pub(crate) lazy: bool,
    /// From now on bring all tables
    #[arg(long, conflicts_with = "lazy")]
    pub(crate) all: bool,
    /// Take what came though some tables did not; without it all tables stay as they were
    #[arg(long)]
    pub(crate) partial: bool,
    /// Take data that is older than what is here
    #[arg(long)]
    pub(crate) accept_older: bool,
    /// Trust the key that the server signs with now
    #[arg(long)]
    pub(crate) accept_new_key: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lives_of_tokens_are_days() {
        assert_eq!(days("90d").unwrap(), Days(Some(90)));
        assert_eq!(days("1").unwrap(), Days(Some(1)));
        assert_eq!(days("never").unwrap(), Days(None));
        for bad in ["", "0d", "-1d", "3651d", "90h", "d"] {
            assert!(days(bad).is_err(), "{bad}");
        }
    }
}
