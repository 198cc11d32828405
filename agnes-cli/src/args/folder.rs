//! The data folder as a whole: served, copied, looked at.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AsUser, Yes};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:8000", env = "AGNES_BIND", value_name = "ADDRESS")]
    pub(crate) bind: String,
    /// Seconds that running requests may take once the server is asked to stop
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    pub(crate) farewell: u64,
    /// Leave what is due to a scheduler of its own process (`agnes scheduler`)
    #[arg(long)]
    pub(crate) no_scheduler: bool,
}

#[derive(Debug, Args)]
pub(crate) struct McpArgs {
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where to make the demo's folder [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Leave the folder behind, to play with it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Run without pauses and fail unless every step did what it says
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The folder to make
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DoctorArgs {
    #[command(subcommand)]
    pub(crate) part: Option<DoctorPart>,
    /// What is seen to be wrong, to have it in the answer
    #[arg(long, value_name = "TEXT")]
    pub(crate) symptom: Option<String>,
    /// Only this check
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// Look at the schema of the server's state too
    #[arg(long)]
    pub(crate) include_schema: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DoctorPart {
    /// How the server is
    #[command(after_help = "Examples:\n  agnes diagnose system\n  agnes diagnose system --local --json")]
    System {
        /// What the last pull left here, without asking the server
        #[arg(long)]
        local: bool,
    },
}
