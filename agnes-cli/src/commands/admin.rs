//! `agnes admin`: people, groups, grants, tables, runs, the audit log.

use agnes_core::audit::AuditFilter;
use agnes_core::local::{
    AddMember, CancelRun, CreateGrant, CreateGroup, DeleteGroup, GetRun, GetUser, Grants, Groups, ListAudit, MakeAdmin,
    Members, RemoveMember, RevokeGrant, Runs, SyncHistoryOf, SyncStates,
};
use agnes_core::policy::AccessChange;
use agnes_core::rbac::ResourceType;
use serde_json::json;

use super::people;
use super::sync::show_run;
use crate::app::App;
use crate::args::{
    ActivityArgs, ActivityCommand, AdminCommand, AuditArgs, AuditCommand, BreakGlassArgs, GrantCommand, GroupCommand,
    RunCommand, TableCommand, UserCommand,
};
use crate::failure::{Failure, Outcome};
use crate::output::text::{count, duration, or_dash, plural, safe, short_id, time};

pub(super) async fn run(app: &App, command: AdminCommand) -> Outcome {
    match command {
        AdminCommand::User(command) => people::run(app, command).await,
        AdminCommand::Token(command) => people::tokens(app, command).await,
        AdminCommand::AccessRequest(command) => super::requests::run(app, command).await,
        AdminCommand::Group(command) => group(app, command).await,
        AdminCommand::Grant(command) => grant(app, command).await,
        AdminCommand::Policy(command) => super::policy::run(app, command).await,
        AdminCommand::Table(command) => super::table::run(app, command).await,
        AdminCommand::Run(command) => runs(app, command).await,
        AdminCommand::Sync(args) => super::sync::run(app, args).await,
        AdminCommand::SyncState => sync_state(app).await,
        AdminCommand::Audit(AuditCommand::List(args)) => audit(app, args).await,
        AdminCommand::Activity(ActivityArgs { what, list }) => match what {
            None => audit(app, list).await,
            Some(ActivityCommand::Health) => super::activity::health(app).await,
            Some(ActivityCommand::Sync { since, limit }) => super::activity::syncs(app, since, limit as usize).await,
        },
        AdminCommand::InitialWorkspace(command) => super::initial::run(app, command).await,
        AdminCommand::BreakGlass(args) => break_glass(app, args).await,
        AdminCommand::AddUser(args) => people::run(app, UserCommand::Add(args)).await,
        AdminCommand::ListUsers(args) => people::run(app, UserCommand::List(args)).await,
        AdminCommand::RemoveUser(args) => people::run(app, UserCommand::Remove(args)).await,
        AdminCommand::Activate(args) => people::run(app, UserCommand::Activate(args)).await,
        AdminCommand::Deactivate(args) => people::run(app, UserCommand::Deactivate(args)).await,
        AdminCommand::ResetPassword(args) => people::run(app, UserCommand::ResetPassword(args)).await,
        AdminCommand::SetPassword(args) => people::run(app, UserCommand::SetPassword(args)).await,
        AdminCommand::Discover(args) => super::table::discover(app, args).await,
        AdminCommand::DiscoverAndRegister(args) => super::table::discover_and_register(app, args).await,
        AdminCommand::MetadataShow { table } => super::table::metadata_show(app, table).await,
        AdminCommand::MetadataApply(args) => super::table::metadata_apply(app, args).await,
        AdminCommand::RegisterTable(args) => super::table::run(app, TableCommand::Register(args)).await,
        AdminCommand::ListTables => super::table::run(app, TableCommand::List).await,
        AdminCommand::UpdateTable(args) => super::table::run(app, TableCommand::Update(args)).await,
        AdminCommand::UnregisterTable(args) => super::table::run(app, TableCommand::Remove(args)).await,
    }
}

async fn break_glass(app: &App, args: BreakGlassArgs) -> Outcome {
    let email = match args.words.as_slice() {
        [email] => email.clone(),
        [first, email] if first == "grant-admin" => email.clone(),
        _ => return Err(Failure::usage_hint("one address is needed", "agnes admin break-glass ann@example.com")),
    };
    app.confirm(&args.yes, &format!("make {} an Admin of this data folder", safe(&email)))?;
    let done = app.call(MakeAdmin { email }).await?;
    let address = safe(&done.user.email);
    let words = match (done.already_admin, done.created) {
        (true, _) => format!("{address} is an active Admin already"),
        (false, true) => format!("added {address} as an Admin"),
        (false, false) => format!("{address} is an active Admin now"),
    };
    let link = done.link.expose();
    app.out.done(&done, &format!("{words}; to set a password open this page of the server, once:\n  {link}"))
}

async fn group(app: &App, command: GroupCommand) -> Outcome {
    match command {
        GroupCommand::List => {
            let groups = app.ask(Groups {}).await?;
            app.out.show(&groups, |out| {
                let rows = groups.iter().map(|row| {
                    vec![
                        short_id(&row.group.id),
                        safe(&row.group.name),
                        count(row.member_count as u64),
                        count(row.grant_count as u64),
                        safe(&or_dash(row.group.description.as_deref())),
                    ]
                });
                let header = ["ID", "NAME", "MEMBERS", "GRANTS", "DESCRIPTION"];
                app.out.grid(out, &header, &["MEMBERS", "GRANTS"], rows.collect())
            })
        }
        GroupCommand::Create { name, description } => {
            let group = app.ask(CreateGroup { name, description }).await?;
            app.out.done(&group, &format!("made the group {}", safe(&group.name)))?;
            app.out.hint(&format!("`agnes admin group add-member {} <user>` adds people", safe(&group.name)));
            Ok(())
        }
        GroupCommand::Delete { group, yes } => {
            app.confirm(&yes, &format!("delete the group {} with its members and grants", safe(&group)))?;
            let group = app.ask(DeleteGroup { group }).await?;
            app.out.done(&group, &format!("deleted the group {}", safe(&group.name)))
        }
        GroupCommand::Members { group } => {
            let members = app.ask(Members { group }).await?;
            app.out.show(&members, |out| {
                let rows = members.iter().map(|m| {
                    let state = if m.active { "active" } else { "inactive" };
                    vec![
                        safe(&m.email),
                        safe(&or_dash(m.name.as_deref())),
                        state.to_owned(),
                        m.source.as_str().to_owned(),
                    ]
                });
                app.out.grid(out, &["EMAIL", "NAME", "STATE", "ADDED BY"], &[], rows.collect())
            })
        }
        GroupCommand::AddMember(args) => {
            let message = format!("{} is a member of {}", safe(&args.user), safe(&args.group));
            let member = app.ask(AddMember { group: args.group, user: args.user }).await?;
            app.out.done(&member, &message)
        }
        GroupCommand::RemoveMember(args) => {
            let message = format!("{} is not a member of {} any more", safe(&args.user), safe(&args.group));
            app.ask(RemoveMember { group: args.group, user: args.user }).await?;
            app.out.done(&json!({"removed": true}), &message)
        }
    }
}

async fn grant(app: &App, command: GrantCommand) -> Outcome {
    match command {
        GrantCommand::List { resource_type, group } => {
            let only = resource_type.as_deref().map(ResourceType::parse).transpose()?;
            let mut grants = app.ask(Grants { group }).await?;
            if let Some(only) = only {
                grants = grants.only(|row| row.grant.resource_type == only);
            }
            app.out.show(&grants, |out| {
                let rows = grants.iter().map(|row| {
                    let resource = if row.resource_exists {
                        safe(&row.grant.resource_id)
                    } else {
                        format!("{} (gone)", safe(&row.grant.resource_id))
                    };
                    vec![
                        short_id(&row.grant.id),
                        safe(&row.group_name),
                        row.grant.resource_type.as_str().to_owned(),
                        resource,
                    ]
                });
                app.out.grid(out, &["ID", "GROUP", "TYPE", "RESOURCE"], &[], rows.collect())
            })
        }
        GrantCommand::Create { group, resource_type, resource_id, dry_run } => {
            let resource_type = ResourceType::parse(&resource_type)?;
            if dry_run {
                if resource_type != ResourceType::Table {
                    return Err(Failure::usage("`--dry-run` is for grants of tables"));
                }
                return super::policy::preview(app, AccessChange::Grant { group, table: resource_id }).await;
            }
            let row = app.ask(CreateGrant { group, resource_type, resource_id }).await?;
            let message = format!(
                "{} may use {} {}",
                safe(&row.group_name),
                resource_type.as_str(),
                safe(&row.grant.resource_id)
            );
            app.out.done(&row, &message)
        }
        GrantCommand::Delete { grant, dry_run, yes } => {
            if dry_run {
                return super::policy::preview(app, AccessChange::Revoke { grant }).await;
            }
            app.confirm(&yes, &format!("delete the grant {}", safe(&grant)))?;
            let grant = app.ask(RevokeGrant { grant }).await?;
            app.out.done(&grant, &format!("deleted the grant on {}", safe(&grant.resource_id)))
        }
        GrantCommand::ResourceTypes => {
            let types = ResourceType::ALL.map(ResourceType::as_str);
            app.out.show(&types, |out| {
                for name in types {
                    writeln!(out, "{name}")?;
                }
                Ok(())
            })
        }
    }
}

async fn runs(app: &App, command: RunCommand) -> Outcome {
    match command {
        RunCommand::List { limit } => {
            let runs = app.ask(Runs { limit }).await?;
            app.out.show(&runs, |out| {
                let rows = runs.iter().map(|run| {
                    let tables = run.outcome.as_ref().map_or(0, |outcome| outcome.tables.len());
                    let took = run.started_at.zip(run.finished_at).map(|(from, to)| (to - from).num_milliseconds());
                    vec![
                        run.id.clone(),
                        run.state.as_str().to_owned(),
                        time(Some(run.created_at)),
                        took.and_then(|ms| u64::try_from(ms).ok()).map_or_else(|| "-".to_owned(), duration),
                        plural(tables, "table"),
                        safe(&or_dash(run.error.as_deref())),
                    ]
                });
                app.out.grid(out, &["ID", "STATE", "ASKED", "TOOK", "TABLES", "ERROR"], &[], rows.collect())
            })
        }
        RunCommand::Show { id } => {
            let run = app.ask(GetRun { id }).await?;
            app.out.show(&run, |out| show_run(app.out, out, &run))
        }
        RunCommand::Cancel { id } => {
            let cancelled = app.ask(CancelRun { id }).await?.into_reply();
            let message = if cancelled { "the run is being stopped" } else { "the run had ended already" };
            app.out.done(&json!({"cancelled": cancelled}), message)
        }
        RunCommand::History { table, limit } => {
            let history = app.ask(SyncHistoryOf { table, limit }).await?;
            app.out.show(&history, |out| {
                let rows = history.iter().map(|row| {
                    vec![
                        time(Some(row.synced_at)),
                        row.status.as_str().to_owned(),
                        row.rows.map_or_else(|| "-".to_owned(), count),
                        row.duration_ms.and_then(|ms| u64::try_from(ms).ok()).map_or_else(|| "-".to_owned(), duration),
                        safe(&or_dash(row.error.as_deref())),
                    ]
                });
                app.out.grid(out, &["ENDED", "STATUS", "ROWS", "TOOK", "ERROR"], &["ROWS"], rows.collect())
            })
        }
    }
}

async fn sync_state(app: &App) -> Outcome {
    let states = app.ask(SyncStates {}).await?;
    app.out.show(&states, |out| {
        let rows = states.iter().map(|state| {
            vec![
                safe(&state.table_id),
                state.status.as_str().to_owned(),
                time(state.last_sync),
                state.rows.map_or_else(|| "-".to_owned(), count),
                safe(&or_dash(state.error.as_deref())),
            ]
        });
        app.out.grid(out, &["TABLE", "STATUS", "LAST SYNC", "ROWS", "ERROR"], &["ROWS"], rows.collect())
    })
}

async fn audit(app: &App, args: AuditArgs) -> Outcome {
    // Rows name people by id; the owner of the folder and deleted people have no user row.
    let user_id = match args.user {
        Some(reference) => Some(match app.ask(GetUser { user: reference.clone() }).await {
            Ok(user) => user.into_reply().id,
            Err(Failure::Engine(error)) if error.code() == "user_not_found" => reference,
            Err(error) => return Err(error),
        }),
        None => None,
    };
    let filter = AuditFilter {
        since: chrono::Utc::now().checked_sub_signed(args.since),
        user_id,
        action_prefix: args.action,
        resource: args.resource,
        result_prefix: args.result,
        text: args.search,
        limit: args.limit as usize,
        before: None,
        ..AuditFilter::default()
    };
    let events = app.ask(ListAudit { filter }).await?;
    app.out.show(&events, |out| {
        let rows = events.iter().map(|event| {
            vec![
                time(Some(event.timestamp)),
                safe(&or_dash(event.user_id.as_deref())),
                safe(&event.action),
                safe(&or_dash(event.resource.as_deref())),
                safe(&or_dash(event.result.as_deref())),
            ]
        });
        app.out.grid(out, &["TIME", "WHO", "WHAT", "ON", "RESULT"], &[], rows.collect())
    })
}
