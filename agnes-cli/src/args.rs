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
    /// The data folder [default: DATA_DIR, else ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Ask this server instead of a data folder [default: AGNES_SERVER, else that of the workspace]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
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

impl Global {
    /// The data folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.named_folder().unwrap_or_else(|| PathBuf::from("./data"))
    }

    /// The data folder that flag or environment name.
    pub(crate) fn named_folder(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("DATA_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        self.data_dir.clone().or_else(named)
    }
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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See Agnes work on real data in two minutes: no account, no network, nothing left behind
    #[command(after_help = "Examples:\n  agnes demo\n  agnes demo --keep --dir ./demo")]
    Demo(DemoArgs),
    /// Sign in at a server, and out
    #[command(subcommand, after_help = "Example:\n  agnes auth login --server https://agnes.example.com")]
    Auth(AuthCommand),
    /// Same as `auth token`
    #[command(subcommand, hide = true, after_help = "Example:\n  agnes tokens list")]
    Tokens(OwnTokenCommand),
    /// Set up a folder to work in: tables of a server as files, and what an assistant needs to know
    #[command(after_help = "Examples:
  agnes init --server-url https://agnes.example.com --token - < token.txt
  agnes init --workspace ~/analysis --lazy")]
    Init(InitArgs),
    /// Bring the tables of the workspace up to date
    #[command(after_help = "Examples:
  agnes pull
  agnes pull --dry-run
  agnes pull orders --lazy
  agnes pull --json --quiet")]
    Pull(PullArgs),
    /// Send the sessions that wait, and your notes, to the server
    #[command(after_help = "Examples:\n  agnes push --dry-run\n  agnes push --scan")]
    Push(PushArgs),
    /// Rows, columns and a few rows of a table
    #[command(after_help = "Examples:\n  agnes explore orders\n  agnes explore orders --remote --json")]
    Explore(ExploreArgs),
    /// Rows of the server's tables, kept as files
    #[command(
        subcommand,
        after_help = "Example:\n  agnes snapshot create orders --where \"status = 'paid'\" --as paid"
    )]
    Snapshot(SnapshotCommand),
    /// Same as `snapshot create`
    #[command(hide = true, after_help = "Example:\n  agnes fetch orders --limit 1000")]
    Fetch(Box<SnapshotCreate>),
    /// How much room snapshots take
    #[command(after_help = "Example:\n  agnes disk-info --json")]
    DiskInfo,
    /// Queue the session that a hook tells of on standard input; it never fails
    #[command(hide = true, after_help = "Example:\n  agnes capture-session < hook.json")]
    CaptureSession,
    /// Keep the session that runs private: it is not sent
    #[command(after_help = "Example:\n  agnes mark-private")]
    MarkPrivate,
    /// What an assistant shows below its prompt
    #[command(hide = true, after_help = "Example:\n  agnes statusline < status.json")]
    Statusline,
    /// What is in this workspace, and how old it is
    #[command(after_help = "Example:\n  agnes status --json")]
    Status,
    /// Sources: where data comes from
    #[command(subcommand, after_help = "Example:\n  agnes source add shop --kind files --path ./shop")]
    Source(SourceCommand),
    /// Read sources and publish what changed
    #[command(after_help = "Examples:\n  agnes sync\n  agnes sync orders customers --full\n  agnes sync --source shop")]
    Sync(SyncArgs),
    /// Publish what is in the extracts folder, without reading any source
    #[command(after_help = "Example:\n  agnes rebuild --json")]
    Rebuild(RebuildArgs),
    /// Ask in SQL; without a query on a terminal a shell opens
    #[command(after_help = "Examples:
  agnes query
  agnes query 'select status, count(*) from orders group by all'
  agnes query 'select * from orders where status = $s' --param s=paid --limit 20
  agnes query --file report.sql --output report.parquet
  agnes query 'select * from orders' -f ndjson | head
  agnes query 'select * from orders' --as ann@example.com
  agnes query 'select count(*) from orders' --remote
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
    Admin(Box<AdminCommand>),
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
    #[command(
        alias = "diagnose",
        after_help = "Examples:\n  agnes doctor\n  agnes diagnose --component manifest --json"
    )]
    Doctor(DoctorArgs),
    /// Serve the data folder over HTTP, until a signal says to stop
    #[command(after_help = "Examples:\n  agnes serve\n  agnes serve --bind 127.0.0.1:9000 --data-dir ./data")]
    Serve(ServeArgs),
    /// Answer an assistant over standard input and output, by the Model Context Protocol
    #[command(after_help = "An assistant starts this command. What it needs to know, as most of them read it:

  {\"mcpServers\": {\"agnes\": {\"command\": \"agnes\", \"args\": [\"mcp\", \"--data-dir\", \"/srv/agnes/data\"]}}}

Examples:
  agnes mcp
  agnes mcp --as ann@example.com")]
    Mcp(McpArgs),
    /// Ask a server to do what is due, from a process of its own, until a signal says to stop
    #[command(after_help = "The token is that of SCHEDULER_API_TOKEN, else the one in the data folder, else that of
SEED_ADMIN_EMAIL and SEED_ADMIN_PASSWORD.

Example:\n  agnes scheduler --server http://app:8000")]
    Scheduler,
    /// The first day of a server
    #[command(subcommand, after_help = "Example:\n  agnes setup verify --server http://127.0.0.1:8000")]
    Setup(SetupCommand),
    /// Guides that the command carries
    #[command(subcommand, after_help = "Example:\n  agnes skills show troubleshoot")]
    Skills(SkillsCommand),
    /// Whether you know your way around: the server asks no more
    #[command(after_help = "Examples:\n  agnes onboarded on\n  agnes onboarded status --json")]
    Onboarded(OnboardedArgs),
    /// Install the version that the server offers, or go back to the one before
    #[command(
        after_help = "Examples:\n  agnes self-upgrade\n  agnes self-upgrade --check-only\n  agnes self-upgrade --rollback"
    )]
    SelfUpgrade(UpgradeArgs),
    /// Put the hooks of this version into the workspace, where there are any
    #[command(hide = true, after_help = "Example:\n  agnes refresh-hooks")]
    RefreshHooks,
    /// Write manual pages into a folder
    #[command(hide = true, after_help = "Example:\n  agnes man ./man1")]
    Man {
        /// The folder
        to: PathBuf,
    },
    /// Completions for a shell
    #[command(after_help = "Example:\n  agnes completions bash > ~/.local/share/bash-completion/completions/agnes")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it has nothing to do in a data folder that is not there yet.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Query(_)
                | Self::Replay(_)
                | Self::Catalog(_)
                | Self::Schema(_)
                | Self::Describe(_)
                | Self::Sample(_)
                | Self::Profile(_)
                | Self::Manifest(_)
                | Self::Doctor(_)
                | Self::Backup(_)
                | Self::Gc(_)
                | Self::Mcp(_)
                | Self::Source(SourceCommand::List)
        )
    }

    /// Whether Ctrl-C is for what it does just now, not for itself.
    pub(crate) fn takes_interrupts(&self) -> bool {
        matches!(self, Self::Query(args) if args.opens_shell())
    }

    /// Whether it goes on until a signal says to stop.
    pub(crate) fn runs_until_stopped(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Scheduler)
    }
}

#[derive(Debug, Args)]
pub(crate) struct AsUser {
    /// See what this user would see (an address, an id or a unique prefix)
    #[arg(long = "as", value_name = "USER")]
    pub(crate) as_user: Option<String>,
}

/// Destructive commands ask on a terminal and need this otherwise.
#[derive(Debug, Args)]
pub(crate) struct Yes {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

mod admin;
mod catalog;
mod folder;
mod initial;
mod instance;
mod policy;
mod query;
mod server;
mod source;
mod table;
mod workspace;
pub(crate) use admin::*;
pub(crate) use catalog::*;
pub(crate) use folder::*;
pub(crate) use initial::*;
pub(crate) use instance::*;
pub(crate) use policy::*;
pub(crate) use query::*;
pub(crate) use server::*;
pub(crate) use source::*;
pub(crate) use table::*;
pub(crate) use workspace::*;

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
