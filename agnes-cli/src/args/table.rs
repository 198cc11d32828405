//! `agnes admin table` and what goes with it: registering, discovering, describing.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Yes;

#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Register a table of a source
    #[command(after_help = "Examples:
  agnes admin table register orders --source-type files --source-table orders.csv
  agnes admin table register Orders --source shop --source-table orders.csv --sync-schedule 'every 1h' --dry-run")]
    Register(TableRegister),
    /// List the registered tables
    #[command(after_help = "Example:\n  agnes admin table list")]
    List,
    /// Show one
    #[command(after_help = "Example:\n  agnes admin table show orders")]
    Show {
        /// Id or name
        table: String,
    },
    /// Change what is known of a table and when it is synced
    #[command(after_help = "Examples:
  agnes admin table update orders --description 'One row an order' --schedule 'every 15m'
  agnes admin table update orders --primary-key id --server-only true")]
    Update(TableUpdate),
    /// Take a table out of the registry, with its grants and state
    #[command(after_help = "Example:\n  agnes admin table remove orders --yes")]
    Remove(TableRemove),
}

#[derive(Debug, Args)]
pub(crate) struct TableRegister {
    /// What SQL shall name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) fields: TableFlags,
    /// Only check what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TableUpdate {
    /// Id or name
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) fields: TableFlags,
}

/// Fields of a registration; an empty text takes a value away.
#[derive(Debug, Default, Args)]
pub(crate) struct TableFlags {
    /// Kind of the source
    #[arg(long, value_name = "KIND")]
    pub(crate) source_type: Option<String>,
    /// The source, where there are several of its kind
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Bucket, dataset or folder at the source
    #[arg(long)]
    pub(crate) bucket: Option<String>,
    /// The table's own name at the source
    #[arg(long, value_name = "NAME")]
    pub(crate) source_table: Option<String>,
    /// Where its rows are
    #[arg(long, value_parser = ["local", "remote", "materialized"], value_name = "MODE")]
    pub(crate) query_mode: Option<String>,
    /// Query of a materialized table, or @FILE
    #[arg(long, value_name = "SQL")]
    pub(crate) query: Option<String>,
    /// For people and their assistants
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Such as `every 15m` or `daily 05:00`; empty for the source's
    #[arg(long, visible_alias = "sync-schedule")]
    pub(crate) schedule: Option<String>,
    /// How it is brought up to date
    #[arg(long, value_parser = ["full_refresh", "incremental", "partitioned"], value_name = "STRATEGY")]
    pub(crate) sync_strategy: Option<String>,
    /// Columns that identify a row
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub(crate) primary_key: Option<Vec<String>>,
    /// Days that an incremental sync reads again
    #[arg(long, value_name = "DAYS")]
    pub(crate) incremental_window_days: Option<u32>,
    /// Oldest data to keep
    #[arg(long, value_name = "DAYS")]
    pub(crate) max_history_days: Option<u32>,
    /// Row filters at the source, as JSON or @FILE
    #[arg(long, value_name = "JSON")]
    pub(crate) where_filters_json: Option<String>,
    /// Column that names the part a row belongs to
    #[arg(long, value_name = "COLUMN")]
    pub(crate) partition_by: Option<String>,
    /// How large a part is
    #[arg(long, value_parser = ["day", "month", "year"], value_name = "PERIOD")]
    pub(crate) partition_granularity: Option<String>,
    /// Days for each request of a first load
    #[arg(long, value_name = "DAYS")]
    pub(crate) initial_load_chunk_days: Option<u32>,
    /// Display folder
    #[arg(long)]
    pub(crate) folder: Option<String>,
    /// Never offered for download
    #[arg(long, value_name = "BOOL")]
    pub(crate) server_only: Option<bool>,
    /// Settings of the connector for this table, as a JSON object or @FILE
    #[arg(long, value_name = "JSON")]
    pub(crate) options_json: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TableRemove {
    /// Id or name
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// Only of this source
    pub(crate) source: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TakeArgs {
    /// Only of this source
    pub(crate) source: Option<String>,
    /// Only of sources of this kind
    #[arg(long, value_name = "KIND")]
    pub(crate) source_type: Option<String>,
    /// Only say what would be registered
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MetadataApply {
    /// JSON: `{"table_id": .., "columns": [..]}`, or a list of these
    pub(crate) file: PathBuf,
    /// Only check it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Then tell the tables' sources; Keboola takes it
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) push_to_source: bool,
}
