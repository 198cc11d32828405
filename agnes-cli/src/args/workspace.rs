//! Commands that work in a workspace beside pulling: snapshots, sessions of an assistant.

use clap::{Args, Subcommand};

use super::Yes;

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Only say what would be sent
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also send all transcripts in the assistant's own folder for this workspace, and in `user/sessions`
    #[arg(long, alias = "legacy-scan")]
    pub(crate) scan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExploreArgs {
    /// The table
    pub(crate) table: String,
    /// Ask the server for its statistics
    #[arg(long)]
    pub(crate) remote: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Fetch rows of a table and keep them as a file
    #[command(after_help = "Examples:
  agnes snapshot create orders --select id,amount --where \"status = 'paid'\" --as paid
  agnes snapshot create events --limit 100000 --estimate")]
    Create(Box<SnapshotCreate>),
    /// List the snapshots here
    #[command(after_help = "Example:\n  agnes snapshot list --json")]
    List,
    /// Fetch a snapshot again
    #[command(after_help = "Example:\n  agnes snapshot refresh paid")]
    Refresh {
        /// Its name
        name: String,
        /// Another predicate from now on
        #[arg(long = "where", value_name = "SQL")]
        predicate: Option<String>,
    },
    /// Delete a snapshot
    #[command(after_help = "Example:\n  agnes snapshot drop paid")]
    Drop {
        /// Its name
        name: String,
    },
    /// Delete snapshots that are old or large
    #[command(after_help = "Examples:
  agnes snapshot prune --older-than 7d --dry-run
  agnes snapshot prune --larger-than 500m --yes")]
    Prune {
        /// Fetched longer ago than this: `30m`, `24h`, `7d`
        #[arg(long, value_name = "AGE", value_parser = super::since)]
        older_than: Option<chrono::TimeDelta>,
        /// Larger than this: `500m`, `2g`, or bytes
        #[arg(long, value_name = "SIZE", value_parser = size)]
        larger_than: Option<u64>,
        /// Only say which
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        yes: Yes,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotCreate {
    /// The table
    pub(crate) table: String,
    /// Columns, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) select: Vec<String>,
    /// A predicate
    #[arg(long = "where", value_name = "SQL")]
    pub(crate) predicate: Option<String>,
    /// At most this many rows
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Columns to order by, separated by commas, each with `ASC`, `DESC` or nothing
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) order_by: Vec<String>,
    /// What to call it [default: as the table]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only say what it would read
    #[arg(long, conflicts_with = "no_estimate")]
    pub(crate) estimate: bool,
    /// Do not ask what it would read
    #[arg(long)]
    pub(crate) no_estimate: bool,
    /// Replace the snapshot of this name
    #[arg(long)]
    pub(crate) force: bool,
}

/// Bytes: a number, or one with `k`, `m` or `g`.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.trim_end_matches('b');
    let (digits, unit) = match lower.char_indices().last() {
        Some((at, 'k')) => (&lower[..at], 1 << 10),
        Some((at, 'm')) => (&lower[..at], 1 << 20),
        Some((at, 'g')) => (&lower[..at], 1 << 30),
        _ => (lower, 1),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| "it is a number of bytes, or one with `k`, `m` or `g`".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Only say whether there is a newer version: exit code 1 if so
    #[arg(long, alias = "check", conflicts_with_all = ["force", "rollback"])]
    pub(crate) check_only: bool,
    /// Install what the server offers, though it is not newer, or was rolled back from
    #[arg(long, conflicts_with = "rollback")]
    pub(crate) force: bool,
    /// Go back to the version before
    #[arg(long)]
    pub(crate) rollback: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("500m", 500 << 20), ("2G", 2 << 30), ("10kb", 10 << 10), ("7", 7)] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "-1", "1t", "1.5g"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
