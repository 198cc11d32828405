//! `agnes admin`: people, groups, grants, tables, runs, the audit log.

use agnes_core::audit::AuditFilter;
use agnes_core::identity::User;
use agnes_core::local::{
    AddMember, AddUser, CancelRun, CreateGrant, CreateGroup, DeleteGroup, GetEffectiveAccess, GetRun, GetTable,
    GetUser, Grants, Groups, ListAudit, MakeAdmin, Members, RemoveMember, RemoveUser, RevokeGrant, Runs, SetActive,
    SyncHistoryOf, SyncStates, Tables, UnregisterTable, UpdateTable, Users,
};
use agnes_core::policy::AccessChange;
use agnes_core::rbac::ResourceType;
use serde_json::json;

use super::sync::show_run;
use crate::app::App;
use crate::args::{
    AdminCommand, AuditArgs, AuditCommand, BreakGlassArgs, GrantCommand, GroupCommand, RunCommand, TableCommand,
    TableRemove, UserAdd, UserCommand, UserRef, UserRemove,
};
use crate::failure::{Failure, Outcome};
use crate::output::text::{count, duration, or_dash, plural, safe, short_id, time};

pub(super) async fn run(app: &App, command: AdminCommand) -> Outcome {
    match command {
        AdminCommand::User(command) => user(app, command).await,
        AdminCommand::Group(command) => group(app, command).await,
        AdminCommand::Grant(command) => grant(app, command).await,
        AdminCommand::Policy(command) => super::policy::run(app, command).await,
        AdminCommand::Table(command) => table(app, command).await,
        AdminCommand::Run(command) => runs(app, command).await,
        AdminCommand::SyncState => sync_state(app).await,
        AdminCommand::Audit(AuditCommand::List(args)) | AdminCommand::Activity(args) => audit(app, args).await,
        AdminCommand::BreakGlass(args) => break_glass(app, args).await,
        AdminCommand::AddUser(args) => user(app, UserCommand::Add(args)).await,
        AdminCommand::ListUsers => user(app, UserCommand::List).await,
        AdminCommand::RemoveUser(args) => user(app, UserCommand::Remove(args)).await,
        AdminCommand::Activate(args) => user(app, UserCommand::Activate(args)).await,
        AdminCommand::Deactivate(args) => user(app, UserCommand::Deactivate(args)).await,
        AdminCommand::ListTables => table(app, TableCommand::List).await,
        AdminCommand::UpdateTable(args) => table(app, TableCommand::Update(args)).await,
        AdminCommand::UnregisterTable(args) => table(app, TableCommand::Remove(args)).await,
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

async fn user(app: &App, command: UserCommand) -> Outcome {
    match command {
        UserCommand::Add(UserAdd { email, name }) => {
            let user = app.call(AddUser { email, name }).await?;
            app.out.done(&user, &format!("added {}", safe(&user.email)))
        }
        UserCommand::List => {
            let users = app.call(Users {}).await?;
            app.out.show(&users, |out| {
                let rows = users.iter().map(|u| {
                    let state = if u.active { "active" } else { "inactive" };
                    vec![
                        short_id(&u.id),
                        safe(&u.email),
                        safe(&or_dash(u.name.as_deref())),
                        state.to_owned(),
                        time(u.created_at),
                    ]
                });
                app.out.grid(out, &["ID", "EMAIL", "NAME", "STATE", "ADDED"], &[], rows.collect())
            })
        }
        UserCommand::Access(UserRef { user }) => {
            let access = app.call(GetEffectiveAccess { user }).await?;
            app.out.show(&access, |out| {
                if access.is_admin {
                    writeln!(out, "member of Admin: may use everything")?;
                }
                let rows = access.items.iter().map(|item| {
                    let via: Vec<String> = item.via_groups.iter().map(|group| safe(&group.group_name)).collect();
                    vec![item.resource_type.as_str().to_owned(), safe(&item.resource_id), via.join(", ")]
                });
                app.out.grid(out, &["TYPE", "RESOURCE", "THROUGH"], &[], rows.collect())
            })
        }
        UserCommand::Remove(UserRemove { user, yes }) => {
            let user = found(app, user).await?;
            app.confirm(&yes, &format!("remove {}", safe(&user.email)))?;
            let user = app.call(RemoveUser { user: user.id }).await?;
            app.out.done(&user, &format!("removed {}", safe(&user.email)))
        }
        UserCommand::Activate(UserRef { user }) => {
            let user = app.call(SetActive { user, active: true }).await?;
            app.out.done(&user, &format!("{} is active", safe(&user.email)))
        }
        UserCommand::Deactivate(UserRemove { user, yes }) => {
            let user = found(app, user).await?;
            app.confirm(&yes, &format!("deactivate {}", safe(&user.email)))?;
            let user = app.call(SetActive { user: user.id, active: false }).await?;
            app.out.done(&user, &format!("{} is not active any more", safe(&user.email)))
        }
    }
}

async fn found(app: &App, user: String) -> Outcome<User> {
    app.call(GetUser { user }).await
}

async fn group(app: &App, command: GroupCommand) -> Outcome {
    match command {
        GroupCommand::List => {
            let groups = app.call(Groups {}).await?;
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
            let group = app.call(CreateGroup { name, description }).await?;
            app.out.done(&group, &format!("made the group {}", safe(&group.name)))?;
            app.out.hint(&format!("`agnes admin group add-member {} <user>` adds people", safe(&group.name)));
            Ok(())
        }
        GroupCommand::Delete { group, yes } => {
            app.confirm(&yes, &format!("delete the group {} with its members and grants", safe(&group)))?;
            let group = app.call(DeleteGroup { group }).await?;
            app.out.done(&group, &format!("deleted the group {}", safe(&group.name)))
        }
        GroupCommand::Members { group } => {
            let members = app.call(Members { group }).await?;
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
            let member = app.call(AddMember { group: args.group, user: args.user }).await?;
            app.out.done(&member, &message)
        }
        GroupCommand::RemoveMember(args) => {
            let message = format!("{} is not a member of {} any more", safe(&args.user), safe(&args.group));
            app.call(RemoveMember { group: args.group, user: args.user }).await?;
            app.out.done(&json!({"removed": true}), &message)
        }
    }
}

async fn grant(app: &App, command: GrantCommand) -> Outcome {
    match command {
        GrantCommand::List { resource_type, group } => {
            let only = resource_type.as_deref().map(ResourceType::parse).transpose()?;
            let mut grants = app.call(Grants { group }).await?;
            grants.retain(|row| only.is_none_or(|only| row.grant.resource_type == only));
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
            let row = app.call(CreateGrant { group, resource_type, resource_id }).await?;
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
            let grant = app.call(RevokeGrant { grant }).await?;
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

async fn table(app: &App, command: TableCommand) -> Outcome {
    match command {
        TableCommand::List => {
            let tables = app.call(Tables {}).await?;
            app.out.show(&tables, |out| {
                let rows = tables.iter().map(|t| {
                    vec![
                        safe(&t.id),
                        safe(&t.name),
                        safe(&or_dash(t.source_name())),
                        t.query_mode.as_str().to_owned(),
                        t.sync_strategy.as_str().to_owned(),
                        safe(&or_dash(t.sync_schedule.as_deref())),
                    ]
                });
                app.out.grid(out, &["ID", "NAME", "SOURCE", "MODE", "STRATEGY", "SCHEDULE"], &[], rows.collect())
            })
        }
        TableCommand::Show { table } => {
            let table = app.call(GetTable { table }).await?;
            app.out.show(&table, |out| {
                let serde_json::Value::Object(fields) = json!(table) else { return Ok(()) };
                for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                    writeln!(out, "{name:<24}  {}", safe(&value))?;
                }
                Ok(())
            })
        }
        TableCommand::Update(args) => {
            let texts = [&args.description, &args.schedule, &args.folder];
            if texts.iter().all(|text| text.is_none()) && args.primary_key.is_none() && args.server_only.is_none() {
                return Err(Failure::usage_hint(
                    "there is nothing to change",
                    "`agnes admin table update --help` lists what can be",
                ));
            }
            let mut table = app.call(GetTable { table: args.table }).await?;
            // An empty text takes the value away.
            let set = |field: &mut Option<String>, value: Option<String>| {
                if let Some(value) = value {
                    *field = Some(value).filter(|value| !value.trim().is_empty());
                }
            };
            set(&mut table.description, args.description);
            set(&mut table.sync_schedule, args.schedule);
            set(&mut table.folder, args.folder);
            if let Some(columns) = args.primary_key {
                table.primary_key = Some(columns).filter(|columns| columns.iter().any(|column| !column.is_empty()));
            }
            table.server_only = args.server_only.unwrap_or(table.server_only);
            let table = app.call(UpdateTable { table }).await?;
            app.out.done(&table, &format!("changed {}", safe(&table.name)))
        }
        TableCommand::Remove(TableRemove { table, yes }) => {
            app.confirm(&yes, &format!("take the table {} out of the registry", safe(&table)))?;
            let table = app.call(UnregisterTable { table }).await?;
            app.out.done(&table, &format!("removed {} from the registry", safe(&table.name)))
        }
    }
}

async fn runs(app: &App, command: RunCommand) -> Outcome {
    match command {
        RunCommand::List { limit } => {
            let runs = app.call(Runs { limit }).await?;
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
            let run = app.call(GetRun { id }).await?;
            app.out.show(&run, |out| show_run(app.out, out, &run))
        }
        RunCommand::Cancel { id } => {
            let cancelled = app.call(CancelRun { id }).await?;
            let message = if cancelled { "the run is being stopped" } else { "the run had ended already" };
            app.out.done(&json!({"cancelled": cancelled}), message)
        }
        RunCommand::History { table, limit } => {
            let history = app.call(SyncHistoryOf { table, limit }).await?;
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
    let states = app.call(SyncStates {}).await?;
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
        Some(reference) => Some(match app.call(GetUser { user: reference.clone() }).await {
            Ok(user) => user.id,
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
        limit: args.limit as usize,
        before: None,
        ..AuditFilter::default()
    };
    let events = app.call(ListAudit { filter }).await?;
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
