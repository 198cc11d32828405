//! `agnes query` and `agnes replay`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::AsUser;

/// Formats of query results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people, one field a line.
    Expanded,
    /// RFC 4180, with a header.
    Csv,
    /// One array of objects, on one line.
    Json,
    /// One object a line.
    Ndjson,
    /// Parquet.
    Parquet,
    /// Arrow IPC stream.
    Arrow,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("text").multiple(false))]
pub(crate) struct QueryArgs {
    /// The query; without any, a shell opens on a terminal, and elsewhere statements are read from
    /// standard input, each up to its `;`. Their answers follow each other; with --json each is one
    /// document on a line of its own
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
    #[arg(short, long, value_name = "FILE", requires = "text")]
    pub(crate) output: Option<PathBuf>,
    /// At most this many rows; 0 for all [default: 1000, or all with --output]
    #[arg(short, long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// A bind parameter: VALUE for `?`, NAME=VALUE for `$name`. Numbers, true, false and null are what they look like; quote text that looks like one ('"42"')
    #[arg(short, long, value_name = "VALUE", allow_hyphen_values = true, requires = "text")]
    pub(crate) param: Vec<String>,
    /// Write down what the answer was made of, for `agnes replay`
    #[arg(long, value_name = "FILE", requires = "text")]
    pub(crate) receipt: Option<PathBuf>,
    /// Where it is answered: in the workspace, by the server, or here if it can be
    #[arg(long, value_enum, value_name = "WHERE")]
    pub(crate) scope: Option<Scope>,
    /// Same as `--scope remote`
    #[arg(long, conflicts_with = "scope")]
    pub(crate) remote: bool,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

impl QueryArgs {
    /// Whether the command line holds no query.
    pub(crate) fn has_no_text(&self) -> bool {
        self.positional.is_none() && self.sql.is_none() && self.file.is_none() && !self.stdin
    }

    /// Whether somebody is there to ask one query after the other.
    pub(crate) fn opens_shell(&self) -> bool {
        self.has_no_text() && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }
}

/// Where a query is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// From the files of the workspace.
    Local,
    /// By the server.
    Remote,
    /// From the files where they are here, else by the server.
    Auto,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// What `agnes query --receipt` wrote
    pub(crate) receipt: PathBuf,
    #[command(flatten)]
    pub(crate) who: AsUser,
}
