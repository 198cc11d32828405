//! Sources, and what is read of them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Yes;

#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// Add a source, find its tables and register them
    #[command(after_help = "Examples:
  agnes source add shop --kind files --path ./shop
  agnes source add shop --kind files --set path=./shop --schedule 'every 15m'
  agnes source add crm --kind files --config-json @crm.json
  agnes source add erp --kind postgres --set host=db.example --set database=erp --set user=agnes --set password_env=ERP_PASSWORD
  agnes source add till --kind sqlite --path ./till.db")]
    Add(SourceAdd),
    /// List the sources
    #[command(after_help = "Example:\n  agnes source list")]
    List,
    /// Remove a source and the registry rows of its tables
    #[command(after_help = "Example:\n  agnes source remove shop --drop-data --yes")]
    Remove {
        /// The source
        name: String,
        /// Delete what was read from it as well
        #[arg(long)]
        drop_data: bool,
        #[command(flatten)]
        yes: Yes,
    },
    /// Check that a source answers
    #[command(after_help = "Example:\n  agnes source check shop")]
    Check {
        /// The source
        name: String,
    },
    /// List what a source offers, without registering it
    #[command(after_help = "Example:\n  agnes source discover shop")]
    Discover {
        /// The source
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SourceAdd {
    /// Its name: a letter or `_`, then letters, digits or `_`
    pub(crate) name: String,
    /// Which connector reads it
    #[arg(long, default_value = "files")]
    pub(crate) kind: String,
    /// Folder or file to read (the setting `path`)
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    /// One setting; the value is JSON, or text when it is not
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// All settings as a JSON object, or @FILE
    #[arg(long, value_name = "JSON")]
    pub(crate) config_json: Option<String>,
    /// When to sync it, such as `every 15m` or `daily 05:00`
    #[arg(long)]
    pub(crate) schedule: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Tables to sync [default: all tables of all sources]
    pub(crate) tables: Vec<String>,
    /// All tables of this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Vec<String>,
    /// Read everything again, whatever changed
    #[arg(long)]
    pub(crate) full: bool,
    /// Wait for the end; a command on a data folder always does
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
}
