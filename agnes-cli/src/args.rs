//! The command line: names, flags and help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A governed data engine: sync sources, publish them, grant tables, ask in SQL.
#[derive(Debug, Parser)]
#[command(
    name = "agnes",
    version,
    max_term_width = 100,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  agnes demo
  agnes source add shop --kind files --path ./shop
  agnes sync
  agnes query 'select count(*) from orders'

Exit codes: 0 done, 1 failed, 2 usage, 3 limit, 5 damaged or a bug, 6 exists already,
7 not signed in or not reachable, 8 forbidden or not found, 9 anything else."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The data folder
    #[arg(long, global = true, env = "DATA_DIR", default_value = "./data", value_name = "DIR", hide_env_values = true)]
    pub(crate) data_dir: PathBuf,
    /// The configuration file [default: instance.yaml in CONFIG_DIR or ./config, when there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only warn about unknown keys and unset variables in the configuration
    #[arg(long, global = true)]
    pub(crate) lenient_config: bool,
    /// Print exactly one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing on success
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// When to use colour; NO_COLOR is respected
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
    /// Log more to standard error (-v, -vv)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:8000", env = "AGNES_BIND", value_name = "ADDRESS")]
    pub(crate) bind: String,
    /// Seconds that running requests may take once the server is asked to stop
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    pub(crate) farewell: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See Agnes work on real data in two minutes: no account, no network, nothing left behind
    #[command(after_help = "Examples:\n  agnes demo\n  agnes demo --keep --dir ./demo")]
    Demo(DemoArgs),
    /// Sources: where data comes from
    #[command(subcommand, after_help = "Example:\n  agnes source add shop --kind files --path ./shop")]
    Source(SourceCommand),
    /// Read sources and publish what changed
    #[command(after_help = "Examples:\n  agnes sync\n  agnes sync orders customers --full\n  agnes sync --source shop")]
    Sync(SyncArgs),
    /// Publish what is in the extracts folder, without reading any source
    #[command(after_help = "Example:\n  agnes rebuild --json")]
    Rebuild(RebuildArgs),
    /// Ask in SQL
    #[command(after_help = "Examples:
  agnes query 'select status, count(*) from orders group by all'
  agnes query 'select * from orders where status = $s' --param s=paid --limit 20
  agnes query --file report.sql --output report.parquet
  agnes query 'select * from orders' -f ndjson | head
  agnes query 'select * from orders' --as ann@example.com
  agnes query 'select count(*) from orders' --receipt answer.json")]
    Query(QueryArgs),
    /// Ask the query of a receipt again: is the answer the same, and if not, what changed
    #[command(after_help = "Examples:
  agnes replay answer.json
  agnes replay answer.json --as ann@example.com --json")]
    Replay(ReplayArgs),
    /// The tables there are to ask
    #[command(after_help = "Examples:\n  agnes catalog\n  agnes catalog --as ann@example.com --json")]
    Catalog(CatalogArgs),
    /// Columns of a table
    #[command(after_help = "Example:\n  agnes schema orders")]
    Schema(TableArgs),
    /// Columns and some rows of a table
    #[command(after_help = "Example:\n  agnes describe orders -n 3")]
    Describe(SampleArgs),
    /// Some rows of a table
    #[command(after_help = "Example:\n  agnes sample orders -n 10")]
    Sample(SampleArgs),
    /// Statistics of a table's columns
    #[command(after_help = "Example:\n  agnes profile orders --refresh")]
    Profile(ProfileArgs),
    /// What a laptop would fetch: tables, hashes, sizes
    #[command(after_help = "Example:\n  agnes manifest --as ann@example.com --json")]
    Manifest(CatalogArgs),
    /// People, groups, grants, tables, runs, the audit log
    #[command(
        subcommand,
        after_help = "Examples:
  agnes admin user add ann@example.com --name Ann
  agnes admin group create analysts
  agnes admin group add-member analysts ann@example.com
  agnes admin grant create analysts table orders"
    )]
    Admin(AdminCommand),
    /// Copy the data folder's state and data, consistently
    #[command(after_help = "Example:\n  agnes backup ./backup-2026-11-21")]
    Backup(BackupArgs),
    /// Make a data folder out of a backup
    #[command(after_help = "Example:\n  agnes restore ./backup-2026-11-21 --data-dir ./data")]
    Restore(RestoreArgs),
    /// Delete old generations and what nothing refers to
    #[command(after_help = "Example:\n  agnes gc --dry-run")]
    Gc(GcArgs),
    /// Say what is wrong and what to do
    #[command(alias = "diagnose", after_help = "Example:\n  agnes doctor")]
    Doctor,
    /// Serve the data folder over HTTP, until a signal says to stop
    #[command(after_help = "Examples:\n  agnes serve\n  agnes serve --bind 127.0.0.1:9000 --data-dir ./data")]
    Serve(ServeArgs),
    /// Completions for a shell
    #[command(after_help = "Example:\n  agnes completions bash > ~/.local/share/bash-completion/completions/agnes")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
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

#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// Add a source, find its tables and register them
    #[command(after_help = "Examples:
  agnes source add shop --kind files --path ./shop
  agnes source add shop --kind files --set path=./shop --schedule 'every 15m'
  agnes source add crm --kind files --config-json @crm.json")]
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

/// Formats of query results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// RFC 4180, with a header.
    Csv,
    /// One array of objects.
    Json,
    /// One object a line.
    Ndjson,
    /// Parquet.
    Parquet,
    /// Arrow IPC stream.
    Arrow,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("text").required(true).multiple(false))]
pub(crate) struct QueryArgs {
    /// The query
    #[arg(group = "text", value_name = "SQL")]
    pub(crate) positional: Option<String>,
    /// The query
    #[arg(long, group = "text", value_name = "SQL")]
    pub(crate) sql: Option<String>,
    /// Read the query from standard input: SQL, or JSON `{"sql": ...}`
    #[arg(long, group = "text")]
    pub(crate) stdin: bool,
    /// Read the query from a file
    #[arg(long, group = "text", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How to print the rows [default: table, or what --output is named like]
    #[arg(short, long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Write the rows to a file; it appears when it is complete
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// At most this many rows; 0 for all [default: 1000, or all with --output]
    #[arg(short, long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// A bind parameter: VALUE for `?`, NAME=VALUE for `$name`. Numbers, true, false and null are what they look like; quote text that looks like one ('"42"')
    #[arg(short, long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) param: Vec<String>,
    /// Write down what the answer was made of, for `agnes replay`
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// What `agnes query --receipt` wrote
    pub(crate) receipt: PathBuf,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct AsUser {
    /// See what this user would see (an address, an id or a unique prefix)
    #[arg(long = "as", value_name = "USER")]
    pub(crate) as_user: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CatalogArgs {
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// The table
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// The table
    pub(crate) table: String,
    /// How many rows
    #[arg(short = 'n', long = "rows", default_value_t = 5)]
    pub(crate) rows: usize,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    /// The table
    pub(crate) table: String,
    /// Make it again from the data
    #[arg(long)]
    pub(crate) refresh: bool,
    #[command(flatten)]
    pub(crate) who: AsUser,
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

/// Destructive commands ask on a terminal and need this otherwise.
#[derive(Debug, Args)]
pub(crate) struct Yes {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

mod admin;
mod policy;
pub(crate) use admin::*;
pub(crate) use policy::*;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains("agnes"), "`{path}` has no example");
            assert!(command.get_about().is_some(), "`{path}` does not say what it is for");
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }
}
