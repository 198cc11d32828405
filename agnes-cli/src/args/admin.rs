//! `agnes admin`: nouns, verbs, and the older names that still work.

use clap::{Args, Subcommand};

use super::Yes;
use super::initial::InitialCommand;
use super::policy::PolicyCommand;
use super::table::{DiscoverArgs, MetadataApply, TableCommand, TableRegister, TableRemove, TableUpdate, TakeArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// People
    #[command(subcommand, after_help = "Example:\n  agnes admin user add ann@example.com --name Ann")]
    User(UserCommand),
    /// Personal access tokens
    #[command(subcommand, after_help = "Example:\n  agnes admin token list")]
    Token(TokenCommand),
    /// What people ask to be given
    #[command(
        subcommand,
        alias = "access-requests",
        after_help = "Example:\n  agnes admin access-request approve 3f2a --group analysts"
    )]
    AccessRequest(RequestCommand),
    /// Groups of people
    #[command(subcommand, after_help = "Example:\n  agnes admin group create analysts")]
    Group(GroupCommand),
    /// What groups may use
    #[command(subcommand, after_help = "Example:\n  agnes admin grant create analysts table orders")]
    Grant(GrantCommand),
    /// What groups see of the tables they may read: row filters, masks, hidden columns
    #[command(
        subcommand,
        after_help = "Example:\n  agnes admin policy create europe orders --rows \"region = 'EU'\" --mask email=hash --dry-run"
    )]
    Policy(PolicyCommand),
    /// Registered tables
    #[command(subcommand, after_help = "Example:\n  agnes admin table list")]
    Table(TableCommand),
    /// List the tables that sources offer, registered or not
    #[command(after_help = "Examples:\n  agnes admin discover\n  agnes admin discover shop --json")]
    Discover(DiscoverArgs),
    /// Register the tables that sources offer; what is registered stays as it is
    #[command(after_help = "Examples:
  agnes admin discover-and-register --dry-run
  agnes admin discover-and-register shop")]
    DiscoverAndRegister(TakeArgs),
    /// What is written about the columns of a table
    #[command(after_help = "Example:\n  agnes admin metadata-show orders")]
    MetadataShow {
        /// Id or name of the table
        table: String,
    },
    /// Write what is known of columns, from a file
    #[command(after_help = "Example:
  agnes admin metadata-apply orders.json --dry-run

The file is JSON: {\"table_id\": \"orders\", \"columns\": [{\"column_name\": \"amount\", \"description\": \"net, in euro\"}]}")]
    MetadataApply(MetadataApply),
    /// Sync runs
    #[command(subcommand, alias = "runs", after_help = "Example:\n  agnes admin run list")]
    Run(RunCommand),
    /// Same as `sync`
    #[command(hide = true, after_help = "Example:\n  agnes admin sync orders --wait")]
    Sync(super::SyncArgs),
    /// State of each table's sync
    #[command(after_help = "Example:\n  agnes admin sync-state --json")]
    SyncState,
    /// What happened: who did what, allowed or not
    #[command(subcommand, after_help = "Example:\n  agnes admin audit list --since 24h")]
    Audit(AuditCommand),

    /// The repository that workspaces begin with
    #[command(
        subcommand,
        after_help = "Example:\n  agnes admin initial-workspace set https://git.example.com/team/workspace.git"
    )]
    InitialWorkspace(InitialCommand),

    /// Make somebody an active Admin when nobody else can: the owner of the data folder may
    #[command(after_help = "Example:\n  agnes admin break-glass ann@example.com")]
    BreakGlass(BreakGlassArgs),

    /// Same as `admin user add`
    #[command(hide = true, after_help = "Example:\n  agnes admin add-user ann@example.com")]
    AddUser(UserAdd),
    /// Same as `admin user list`
    #[command(hide = true, after_help = "Example:\n  agnes admin list-users")]
    ListUsers(UserList),
    /// Same as `admin user remove`
    #[command(hide = true, after_help = "Example:\n  agnes admin remove-user ann@example.com --yes")]
    RemoveUser(UserRemove),
    /// Same as `admin user activate`
    #[command(hide = true, after_help = "Example:\n  agnes admin activate ann@example.com")]
    Activate(UserRef),
    /// Same as `admin user deactivate`
    #[command(hide = true, after_help = "Example:\n  agnes admin deactivate ann@example.com --yes")]
    Deactivate(UserRemove),
    /// Same as `admin table register`
    #[command(
        hide = true,
        after_help = "Example:\n  agnes admin register-table orders --source-type files --source-table orders.csv"
    )]
    RegisterTable(TableRegister),
    /// Same as `admin user reset-password`
    #[command(hide = true, after_help = "Example:\n  agnes admin reset-password ann@example.com")]
    ResetPassword(UserRef),
    /// Same as `admin user set-password`
    #[command(hide = true, after_help = "Example:\n  agnes admin set-password ann@example.com")]
    SetPassword(PasswordArgs),
    /// Same as `admin table list`
    #[command(hide = true, after_help = "Example:\n  agnes admin list-tables")]
    ListTables,
    /// Same as `admin table update`
    #[command(hide = true, after_help = "Example:\n  agnes admin update-table orders --schedule 'every 15m'")]
    UpdateTable(TableUpdate),
    /// Same as `admin table remove`
    #[command(hide = true, after_help = "Example:\n  agnes admin unregister-table orders --yes")]
    UnregisterTable(TableRemove),
    /// Same as `admin audit list`; below it, how the installation is doing and how syncs went
    #[command(after_help = "Examples:
  agnes admin activity --since 24h
  agnes admin activity health
  agnes admin activity sync --since 7d")]
    Activity(ActivityArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add somebody
    #[command(after_help = "Example:\n  agnes admin user add ann@example.com --name Ann")]
    Add(UserAdd),
    /// List everybody
    #[command(
        after_help = "Examples:\n  agnes admin user list --json\n  agnes admin user list --search ann --active true"
    )]
    List(UserList),
    /// Show one person with their groups
    #[command(after_help = "Example:\n  agnes admin user show ann@example.com")]
    Show(UserRef),
    /// What somebody may use, and through which group
    #[command(after_help = "Example:\n  agnes admin user access ann@example.com")]
    Access(UserRef),
    /// Delete somebody; audit rows stay
    #[command(alias = "delete", after_help = "Example:\n  agnes admin user remove ann@example.com --yes")]
    Remove(UserRemove),
    /// Let somebody in again
    #[command(after_help = "Example:\n  agnes admin user activate ann@example.com")]
    Activate(UserRef),
    /// Lock somebody out
    #[command(after_help = "Example:\n  agnes admin user deactivate ann@example.com --yes")]
    Deactivate(UserRemove),
    /// Make a link with which somebody sets their first password, good for 7 days
    #[command(after_help = "Example:\n  agnes admin user invite ann@example.com")]
    Invite(UserRef),
    /// Make a link with which somebody sets a new password, good for 24 hours
    #[command(after_help = "Example:\n  agnes admin user reset-password ann@example.com")]
    ResetPassword(UserRef),
    /// Set somebody's password; their sessions end
    #[command(after_help = "Examples:
  agnes admin user set-password ann@example.com
  agnes admin user set-password ann@example.com --password - < password.txt")]
    SetPassword(PasswordArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct UserList {
    /// Whose address or name holds this text
    #[arg(long)]
    pub(crate) search: Option<String>,
    /// Who are active, or who are not
    #[arg(long, value_name = "BOOL")]
    pub(crate) active: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct PasswordArgs {
    /// Address, id or a unique prefix of one
    pub(crate) user: String,
    /// `-` reads it from standard input; without it you are asked
    #[arg(long, value_name = "-")]
    pub(crate) password: Option<String>,
    /// Do not ask for another one at the next sign-in
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// List everybody's tokens, newest first
    #[command(after_help = "Example:\n  agnes admin token list --user ann@example.com")]
    List {
        /// Only of this address
        #[arg(long)]
        user: Option<String>,
    },
    /// Revoke a token: it is refused from the next call on
    #[command(after_help = "Example:\n  agnes admin token revoke 3f2a --yes")]
    Revoke {
        /// The token's id or a unique prefix of it
        token: String,
        #[command(flatten)]
        yes: Yes,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RequestCommand {
    /// List what waits for an answer, newest first
    #[command(after_help = "Example:\n  agnes admin access-request list")]
    List {
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Give what was asked for through a group
    #[command(after_help = "Examples:
  agnes admin access-request approve 3f2a --group analysts --dry-run
  agnes admin access-request approve 3f2a --group analysts --note 'for the quarterly report'")]
    Approve {
        /// The request's id or a unique prefix of it
        request: String,
        /// The group that gets the grant, and who asks with it: name, id or a unique prefix
        #[arg(long)]
        group: String,
        /// Words for who asks
        #[arg(long)]
        note: Option<String>,
        /// Only show what it would do
        #[arg(long)]
        dry_run: bool,
    },
    /// Refuse what was asked for
    #[command(after_help = "Example:\n  agnes admin access-request deny 3f2a --note 'ask for the summary instead'")]
    Deny {
        /// The request's id or a unique prefix of it
        request: String,
        /// Words for who asks
        #[arg(long)]
        note: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BreakGlassArgs {
    /// Address; an older form has `grant-admin` before it
    #[arg(required = true, num_args = 1..=2, value_name = "EMAIL")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Args)]
pub(crate) struct UserAdd {
    /// Address
    pub(crate) email: String,
    /// For people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A group to begin with, beside Everyone; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// Make a link with which they set their password
    #[arg(long)]
    pub(crate) invite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UserRef {
    /// Address, id or a unique prefix of one
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct UserRemove {
    /// Address, id or a unique prefix of one
    pub(crate) user: String,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups
    #[command(after_help = "Example:\n  agnes admin group list")]
    List,
    /// Make a group
    #[command(after_help = "Example:\n  agnes admin group create analysts --description 'People who ask'")]
    Create {
        /// Its name
        name: String,
        /// For people
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a group with its members and grants
    #[command(after_help = "Example:\n  agnes admin group delete analysts --yes")]
    Delete {
        /// Name, id or a unique prefix of one
        group: String,
        #[command(flatten)]
        yes: Yes,
    },
    /// List the members of a group
    #[command(after_help = "Example:\n  agnes admin group members analysts")]
    Members {
        /// Name, id or a unique prefix of one
        group: String,
    },
    /// Add somebody to a group
    #[command(after_help = "Example:\n  agnes admin group add-member analysts ann@example.com")]
    AddMember(Membership),
    /// Take somebody out of a group
    #[command(after_help = "Example:\n  agnes admin group remove-member analysts ann@example.com")]
    RemoveMember(Membership),
}

#[derive(Debug, Args)]
pub(crate) struct Membership {
    /// Name, id or a unique prefix of one
    pub(crate) group: String,
    /// Address, id or a unique prefix of one
    pub(crate) user: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// List the grants
    #[command(after_help = "Example:\n  agnes admin grant list --group analysts")]
    List {
        /// Only of this type
        #[arg(long = "type", value_name = "TYPE")]
        resource_type: Option<String>,
        /// Only of this group
        #[arg(long)]
        group: Option<String>,
    },
    /// Open a resource to a group
    #[command(after_help = "Example:\n  agnes admin grant create analysts table orders")]
    Create {
        /// Name, id or a unique prefix of one
        group: String,
        /// `agnes admin grant resource-types` lists them
        resource_type: String,
        /// Which resource
        resource_id: String,
        /// Only show who would see what
        #[arg(long)]
        dry_run: bool,
    },
    /// Close it again
    #[command(after_help = "Example:\n  agnes admin grant delete 3f2a --yes")]
    Delete {
        /// The grant's id or a unique prefix of it
        grant: String,
        /// Only show who would lose what
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        yes: Yes,
    },
    /// List what kinds of resource there are
    #[command(after_help = "Example:\n  agnes admin grant resource-types")]
    ResourceTypes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// List the runs, newest first
    #[command(after_help = "Example:\n  agnes admin run list --limit 5")]
    List {
        /// At most this many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show what one run did
    #[command(after_help = "Example:\n  agnes admin run show 3f2a...")]
    Show {
        /// The run's id
        id: String,
    },
    /// Stop a run
    #[command(after_help = "Example:\n  agnes admin run cancel 3f2a...")]
    Cancel {
        /// The run's id
        id: String,
    },
    /// Past syncs of one table, newest first
    #[command(after_help = "Example:\n  agnes admin run history orders")]
    History {
        /// The table
        table: String,
        /// At most this many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List audit rows, newest first
    #[command(after_help = "Example:\n  agnes admin audit list --since 7d --action query. --result denied")]
    List(AuditArgs),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ActivityArgs {
    #[command(subcommand)]
    pub(crate) what: Option<ActivityCommand>,
    #[command(flatten)]
    pub(crate) list: AuditArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ActivityCommand {
    /// How the installation is doing, in a few words
    #[command(after_help = "Example:\n  agnes admin activity health --json")]
    Health,
    /// Past syncs of every table, newest first
    #[command(after_help = "Example:\n  agnes admin activity sync --since 7d --limit 20")]
    Sync {
        /// Not older than: `30m`, `24h`, `7d`, or minutes
        #[arg(long, default_value = "24h", value_parser = since)]
        since: chrono::TimeDelta,
        /// At most this many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Not older than: `30m`, `24h`, `7d`, or minutes
    #[arg(long, default_value = "24h", value_parser = since)]
    pub(crate) since: chrono::TimeDelta,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Whose action starts with this
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Of this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// On this resource
    #[arg(long)]
    pub(crate) resource: Option<String>,
    /// Whose result starts with this: `success`, `denied`, `error`
    #[arg(long)]
    pub(crate) result: Option<String>,
    /// Whose details hold this text; of the last 7 days
    #[arg(long, value_name = "TEXT")]
    pub(crate) search: Option<String>,
}

/// `30m`, `24h`, `7d`, or minutes.
pub(super) fn since(text: &str) -> Result<chrono::TimeDelta, String> {
    let (digits, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, "m"),
    };
    let minutes = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        _ => 0,
    };
    digits
        .parse::<i64>()
        .ok()
        .filter(|n| minutes > 0 && *n <= 10_000_000)
        .map(|n| chrono::TimeDelta::minutes(n * minutes))
        .ok_or_else(|| "use a number of minutes, or a time such as `30m`, `24h`, `7d`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_reads_minutes_hours_and_days() {
        for (text, minutes) in [("30m", 30), ("24h", 1440), ("7d", 10080), ("90", 90), ("0", 0)] {
            assert_eq!(since(text), Ok(chrono::TimeDelta::minutes(minutes)), "{text}");
        }
        for text in ["", "h", "-1h", "1w", "1.5h", "99999999999d", "7 d", "٣h"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
