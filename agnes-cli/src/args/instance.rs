//! Commands of the first day: setting a server up, guides, who is on board.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum SetupCommand {
    /// Keep the address of the server
    #[command(after_help = "Example:\n  agnes setup init --server https://agnes.example.com")]
    Init,
    /// Make the first Admin, and sign in as them
    #[command(after_help = "Example:\n  agnes setup bootstrap ann@example.com --password - < password.txt")]
    Bootstrap(BootstrapArgs),
    /// See whether the server answers, and how it is
    #[command(after_help = "Example:\n  agnes setup test-connection --json")]
    TestConnection,
    /// Have everything synced for the first time
    #[command(after_help = "Example:\n  agnes setup first-sync --wait")]
    FirstSync {
        /// Wait for the end
        #[arg(long)]
        wait: bool,
    },
    /// Check that the server is ready for people: exit code 1 if not
    #[command(after_help = "Example:\n  agnes setup verify --json")]
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Their address
    pub(crate) email: String,
    /// Their name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// `-` reads a password from standard input [default: asked for]
    #[arg(long, value_name = "PASSWORD")]
    pub(crate) password: Option<String>,
    /// The token that `agnes serve` printed, where the server asks for it
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SkillsCommand {
    /// List the guides
    #[command(after_help = "Example:\n  agnes skills list")]
    List,
    /// Print a guide
    #[command(after_help = "Example:\n  agnes skills show agnes-data-querying")]
    Show {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OnboardedArgs {
    /// What to do
    #[arg(value_enum)]
    pub(crate) what: Onboarded,
    /// Who says so [default: `self_acknowledged` of `on`, `self_unmark` of `off`]
    #[arg(long, value_parser = ["agnes_init", "self_acknowledged", "self_unmark"])]
    pub(crate) source: Option<String>,
}

/// Whether somebody is on board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Onboarded {
    /// Say that you are.
    On,
    /// Say that you are not.
    Off,
    /// What the server knows.
    Status,
}
