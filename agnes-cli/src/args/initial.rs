//! The repository that workspaces begin with.

use clap::{Args, Subcommand};

use super::Yes;

#[derive(Debug, Subcommand)]
pub(crate) enum InitialCommand {
    /// Which repository it is, its commit and its files
    #[command(after_help = "Example:\n  agnes admin initial-workspace show --json")]
    Show,
    /// Take the files of a repository from now on
    #[command(after_help = "Examples:
  agnes admin initial-workspace set https://git.example.com/team/workspace.git
  agnes admin initial-workspace set https://git.example.com/team/workspace.git --branch main --token - < token.txt

What stands below `workspace/` in it takes the place of the files that `agnes init` writes otherwise.
In Markdown files `{{ instance.name }}` and `{{ server.url }}` become what they say.")]
    Set(InitialSet),
    /// Bring its newest commit
    #[command(after_help = "Example:\n  agnes admin initial-workspace sync")]
    Sync,
    /// Return to the usual files
    #[command(after_help = "Example:\n  agnes admin initial-workspace remove --purge --yes")]
    Remove {
        /// Delete the files that the server has of it, too
        #[arg(long)]
        purge: bool,
        #[command(flatten)]
        yes: Yes,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InitialSet {
    /// Its address, by https
    pub(crate) url: String,
    /// The branch [default: the one that the repository names itself]
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// A token that may read it; `-` reads it from standard input [default: the one that is kept for the host]
    #[arg(long, value_name = "-")]
    pub(crate) token: Option<String>,
    /// Forget the token that is kept, and use none
    #[arg(long, conflicts_with = "token")]
    pub(crate) without_token: bool,
}
