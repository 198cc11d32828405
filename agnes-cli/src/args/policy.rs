//! `agnes admin policy`: what groups see of the tables they may read.

use std::path::PathBuf;

use agnes_core::policy::{ColumnRule, Distribution, FilterMode, Keep, PolicyRules, RowFilter};
use clap::{Args, Subcommand};

use super::Yes;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Narrow what a group sees of a table
    #[command(after_help = "Examples:
  agnes admin policy create europe orders --rows \"region = 'EU'\" --dry-run
  agnes admin policy create europe orders --rows 'owner = $user_email' --mask email=hash --hide ssn
  agnes admin policy create sales orders --mapping regions \\
    --rows 'region IN (SELECT region FROM regions WHERE who = $user_email)'")]
    Create {
        /// Name, id or a unique prefix of one
        group: String,
        /// Id or name
        table: String,
        #[command(flatten)]
        rules: RulesArgs,
        /// Only show who would gain or lose what
        #[arg(long)]
        dry_run: bool,
    },
    /// List the policies
    #[command(after_help = "Example:\n  agnes admin policy list --table orders")]
    List {
        /// Only of this table
        #[arg(long)]
        table: Option<String>,
        /// Only of this group
        #[arg(long)]
        group: Option<String>,
    },
    /// Show one policy, and what it said before
    #[command(after_help = "Example:\n  agnes admin policy show 3f2a")]
    Show {
        /// The policy's id or a unique prefix of it
        policy: String,
        /// Also what it said before; works for a removed one by its whole id
        #[arg(long)]
        history: bool,
    },
    /// Change what a policy says; what is not named stays
    #[command(after_help = "Examples:
  agnes admin policy update 3f2a --rows \"region IN ('EU', 'UK')\" --dry-run
  agnes admin policy update 3f2a --show email --hide ssn")]
    Update {
        /// The policy's id or a unique prefix of it
        policy: String,
        #[command(flatten)]
        rules: RulesArgs,
        /// No row filter any more
        #[arg(long, conflicts_with_all = ["rows", "file"])]
        all_rows: bool,
        /// Show this column as it is again
        #[arg(long, value_delimiter = ',', value_name = "COLUMN", conflicts_with = "file")]
        show: Vec<String>,
        /// Only show who would gain or lose what
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a policy: the group sees what its grant opens
    #[command(after_help = "Example:\n  agnes admin policy remove 3f2a --dry-run")]
    Remove {
        /// The policy's id or a unique prefix of it
        policy: String,
        /// Only show who would gain or lose what
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        yes: Yes,
    },
    /// Try policies on the data as it is now
    #[command(after_help = "Example:\n  agnes admin policy check")]
    Check {
        /// The policy's id or a unique prefix of it; all without one
        policy: Option<String>,
    },
}

/// What a policy says.
#[derive(Debug, Args)]
pub(crate) struct RulesArgs {
    /// SQL predicate of the rows they see; `$user_id`, `$user_email`, `$user_groups` are the caller's
    #[arg(long, value_name = "SQL", conflicts_with = "file")]
    pub(crate) rows: Option<String>,
    /// The filter closes rows whatever another group opens
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", conflicts_with = "file")]
    pub(crate) restrictive: Option<bool>,
    /// Mask a column: COLUMN=hash, null, keep:4 (first characters), keep-last:4, or expr:SQL
    #[arg(long, value_name = "COLUMN=MASK", value_parser = mask, conflicts_with = "file")]
    pub(crate) mask: Vec<(String, ColumnRule)>,
    /// Hide a column: it does not exist for them
    #[arg(long, value_delimiter = ',', value_name = "COLUMN", conflicts_with = "file")]
    pub(crate) hide: Vec<String>,
    /// A table that the SQL may read, whole
    #[arg(long, value_delimiter = ',', value_name = "TABLE", conflicts_with = "file")]
    pub(crate) mapping: Option<Vec<String>>,
    /// Narrows members of the group that are admins too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", conflicts_with = "file")]
    pub(crate) applies_to_admin: Option<bool>,
    /// Nothing of the table leaves the server
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", conflicts_with = "file")]
    pub(crate) server_only: Option<bool>,
    /// For people
    #[arg(long, conflicts_with = "file")]
    pub(crate) note: Option<String>,
    /// All of this as JSON, as `show --json` prints it under `rules`
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

impl RulesArgs {
    /// `rules` with what was named here.
    pub(crate) fn apply(self, mut rules: PolicyRules) -> PolicyRules {
        if let Some(predicate) = self.rows {
            let mode = rules.filter.as_ref().map(|filter| filter.mode).unwrap_or_default();
            rules.filter = Some(RowFilter { predicate, mode });
        }
        if let (Some(restrictive), Some(filter)) = (self.restrictive, rules.filter.as_mut()) {
            filter.mode = if restrictive { FilterMode::Restrictive } else { FilterMode::Permissive };
        }
        let hidden = self.hide.into_iter().map(|column| (column, ColumnRule::Hidden));
        for (column, rule) in self.mask.into_iter().chain(hidden) {
            rules.columns.retain(|name, _| !name.eq_ignore_ascii_case(&column));
            rules.columns.insert(column, rule);
        }
        if let Some(tables) = self.mapping {
            rules.mapping_tables = tables.into_iter().filter(|table| !table.is_empty()).collect();
        }
        if let Some(applies) = self.applies_to_admin {
            rules.applies_to_admin = applies;
        }
        if let Some(only) = self.server_only {
            rules.distribution = if only { Distribution::ServerOnly } else { Distribution::Slice };
        }
        if let Some(note) = self.note {
            rules.note = Some(note).filter(|note| !note.is_empty());
        }
        rules
    }
}

/// `COLUMN=MASK`.
fn mask(text: &str) -> Result<(String, ColumnRule), String> {
    let known = "use COLUMN=hash, null, keep:4, keep-last:4 or expr:SQL";
    let (column, mask) = text.split_once('=').filter(|(column, _)| !column.is_empty()).ok_or(known)?;
    let kept = |digits: &str| digits.parse::<u32>().map_err(|_| known.to_owned());
    let rule = match mask.split_once(':') {
        None if mask == "hash" => ColumnRule::Hash,
        None if mask == "null" => ColumnRule::Null,
        Some(("keep", digits)) => ColumnRule::Partial { keep: kept(digits)?, from: Keep::Start },
        Some(("keep-last", digits)) => ColumnRule::Partial { keep: kept(digits)?, from: Keep::End },
        Some(("expr", sql)) => ColumnRule::Expression { sql: sql.to_owned() },
        _ => return Err(known.to_owned()),
    };
    Ok((column.to_owned(), rule))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read() {
        let rule = |text| mask(text).map(|(_, rule)| rule);
        assert_eq!(rule("a=hash"), Ok(ColumnRule::Hash));
        assert_eq!(rule("a=keep-last:4"), Ok(ColumnRule::Partial { keep: 4, from: Keep::End }));
        assert_eq!(rule("a=expr:x = 'a:b'"), Ok(ColumnRule::Expression { sql: "x = 'a:b'".to_owned() }));
        for wrong in ["a", "=hash", "a=", "a=hidden", "a=keep:x", "a=keep:-1", "a=hash:1"] {
            assert!(mask(wrong).is_err(), "{wrong}");
        }
    }
}
