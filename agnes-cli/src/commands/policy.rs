//! `agnes admin policy`, and previews of changes of access.

use agnes_core::local::{
    CheckPolicies, CreatePolicy, GetPolicy, ListPolicies, PolicyHistory, PreviewAccess, RemovePolicy, UpdatePolicy,
};
use agnes_core::policy::{AccessChange, AccessPreview, ColumnRule, Distribution, FilterMode, PolicyRules, SeenPart};

use crate::app::App;
use crate::args::{PolicyCommand, RulesArgs};
use crate::failure::{Failure, Outcome};
use crate::output::text::{count, plural, safe, short_id, time};

pub(super) async fn run(app: &App, command: PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::Create { group, table, rules, dry_run } => {
            let rules = rules_of(rules, PolicyRules::default())?;
            if dry_run {
                return preview(app, AccessChange::CreatePolicy { group, table, rules }).await;
            }
            let row = app.ask(CreatePolicy { group, table, rules }).await?;
            let message = format!(
                "policy {} narrows {} for {}",
                short_id(&row.policy.id),
                safe(&row.table),
                safe(&row.group_name)
            );
            app.out.done(&row, &message)?;
            if !row.granted {
                let (group, table) = (safe(&row.group_name), safe(&row.table));
                app.out.hint(&format!("the group has no grant yet: `agnes admin grant create {group} table {table}`"));
            }
            Ok(())
        }
        PolicyCommand::List { table, group } => {
            let rows = app.ask(ListPolicies { table, group }).await?;
            app.out.show(&rows, |out| {
                let lines = rows.iter().map(|row| {
                    let table = if row.published { safe(&row.table) } else { format!("{} (gone)", safe(&row.table)) };
                    let group = if row.granted {
                        safe(&row.group_name)
                    } else {
                        format!("{} (no grant)", safe(&row.group_name))
                    };
                    vec![
                        short_id(&row.policy.id),
                        table,
                        group,
                        safe(&words(&row.policy.rules)),
                        row.policy.version.to_string(),
                    ]
                });
                app.out.grid(out, &["ID", "TABLE", "GROUP", "SAYS", "VERSION"], &["VERSION"], lines.collect())
            })
        }
        PolicyCommand::Show { policy, history } => show(app, policy, history).await,
        PolicyCommand::Update { policy, rules, all_rows, show, dry_run } => {
            let row = app.ask(GetPolicy { policy }).await?.into_reply();
            let mut base = row.policy.rules;
            if all_rows {
                base.filter = None;
            }
            for column in &show {
                let before = base.columns.len();
                base.columns.retain(|name, _| !name.eq_ignore_ascii_case(column));
                if base.columns.len() == before {
                    return Err(Failure::usage(format!("the policy says nothing of the column `{}`", safe(column))));
                }
            }
            let rules = rules_of(rules, base)?;
            let policy = row.policy.id;
            if dry_run {
                return preview(app, AccessChange::UpdatePolicy { policy, rules }).await;
            }
            let row = app.ask(UpdatePolicy { policy, rules, expected: Some(row.policy.version) }).await?;
            app.out.done(&row, &format!("policy {} is at version {}", short_id(&row.policy.id), row.policy.version))
        }
        PolicyCommand::Remove { policy, dry_run, yes } => {
            if dry_run {
                return preview(app, AccessChange::RemovePolicy { policy }).await;
            }
            let row = app.ask(GetPolicy { policy }).await?;
            let what = format!("remove the policy of {} on {}", safe(&row.group_name), safe(&row.table));
            app.confirm(&yes, &what)?;
            let policy = app.ask(RemovePolicy { policy: row.policy.id.clone() }).await?;
            app.out.done(&policy, &format!("removed the policy of {} on {}", safe(&row.group_name), safe(&row.table)))
        }
        PolicyCommand::Check { policy } => {
            let checks = app.ask(CheckPolicies { policy }).await?;
            app.out.show(&checks, |out| {
                let lines = checks.iter().map(|check| {
                    let state = check.problem.as_deref().map_or_else(|| "ok".to_owned(), safe);
                    let rows = match (check.rows_left, check.rows) {
                        (Some(left), Some(all)) => format!("{} of {}", count(left), count(all)),
                        _ => "-".to_owned(),
                    };
                    vec![short_id(&check.policy_id), safe(&check.table), safe(&check.group_name), rows, state]
                });
                app.out.grid(
                    out,
                    &["ID", "TABLE", "GROUP", "ROWS LEFT TO YOU", "STATE"],
                    &["ROWS LEFT TO YOU"],
                    lines.collect(),
                )
            })?;
            if checks.iter().all(|check| check.ok) { Ok(()) } else { Err(Failure::Partial) }
        }
    }
}

async fn show(app: &App, policy: String, history: bool) -> Outcome {
    if history {
        let versions = app.ask(PolicyHistory { policy }).await?;
        return app.out.show(&versions, |out| {
            let lines = versions.iter().map(|version| {
                let says = version.rules.as_ref().map_or_else(|| "removed".to_owned(), |rules| safe(&words(rules)));
                let by = safe(version.changed_by.as_deref().unwrap_or("-"));
                vec![version.version.to_string(), time(version.changed_at), by, says]
            });
            app.out.grid(out, &["VERSION", "SINCE", "BY", "SAYS"], &["VERSION"], lines.collect())
        });
    }
    let row = app.ask(GetPolicy { policy }).await?;
    app.out.show(&row, |out| {
        let (policy, rules) = (&row.policy, &row.policy.rules);
        writeln!(
            out,
            "{} on {} for {}, version {}",
            policy.id,
            safe(&row.table),
            safe(&row.group_name),
            policy.version
        )?;
        if let Some(filter) = &rules.filter {
            let mode = if filter.mode == FilterMode::Restrictive { "restrictive" } else { "permissive" };
            writeln!(out, "rows ({mode}): {}", safe(&filter.predicate))?;
        }
        for (column, rule) in &rules.columns {
            writeln!(out, "column {}: {}", safe(column), safe(&mask(rule)))?;
        }
        if !rules.mapping_tables.is_empty() {
            writeln!(out, "mapping tables: {}", safe(&rules.mapping_tables.join(", ")))?;
        }
        if rules.distribution == Distribution::ServerOnly {
            writeln!(out, "nothing of it leaves the server")?;
        }
        if rules.applies_to_admin {
            writeln!(out, "applies to admins")?;
        }
        if let Some(note) = &rules.note {
            writeln!(out, "note: {}", safe(note))?;
        }
        Ok(())
    })
}

/// The rules of the command line over `base`, or those of a file.
fn rules_of(args: RulesArgs, base: PolicyRules) -> Outcome<PolicyRules> {
    let rules = match &args.file {
        None => {
            let restrictive = args.restrictive.is_some();
            let rules = args.apply(base);
            if restrictive && rules.filter.is_none() {
                return Err(Failure::usage_hint("there is no row filter to be restrictive", "add `--rows SQL`"));
            }
            rules
        }
        Some(file) => {
            let text = std::fs::read(file).map_err(|e| Failure::file(&format!("read `{}`", file.display()), &e))?;
            serde_json::from_slice(&text)
                .map_err(|e| Failure::usage(format!("`{}` is not the rules of a policy: {e}", file.display())))?
        }
    };
    Ok(rules)
}

fn mask(rule: &ColumnRule) -> String {
    match rule {
        ColumnRule::Expression { sql } => format!("= {sql}"),
        ColumnRule::Partial { keep, from } => {
            let end = if *from == agnes_core::policy::Keep::Start { "first" } else { "last" };
            format!("{end} {keep} characters")
        }
        rule => rule.as_str().to_owned(),
    }
}

/// What a policy says, in one line.
fn words(rules: &PolicyRules) -> String {
    let mut parts = Vec::new();
    if let Some(filter) = &rules.filter {
        let only = if filter.mode == FilterMode::Restrictive { "only " } else { "" };
        parts.push(format!("{only}rows {}", filter.predicate));
    }
    parts.extend(rules.columns.iter().map(|(column, rule)| format!("{column}: {}", mask(rule))));
    if rules.distribution == Distribution::ServerOnly {
        parts.push("server only".to_owned());
    }
    if rules.applies_to_admin {
        parts.push("admins too".to_owned());
    }
    parts.join("; ")
}

/// Shows what a change would do.
pub(super) async fn preview(app: &App, change: AccessChange) -> Outcome {
    let preview = app.ask(PreviewAccess { change }).await?;
    app.out.show(&preview, |out| {
        if preview.changes.is_empty() {
            writeln!(out, "nobody would see anything else of {}", safe(&preview.table))?;
            return Ok(());
        }
        let lines = preview.changes.iter().map(|change| {
            let columns = [("+", &change.gained_columns), ("-", &change.lost_columns)];
            let columns: Vec<String> = columns
                .iter()
                .flat_map(|(sign, names)| names.iter().map(move |name| format!("{sign}{}", safe(name))))
                .collect();
            vec![
                safe(&change.email),
                seen(&preview, change.before.as_ref()),
                seen(&preview, change.after.as_ref()),
                columns.join(" "),
            ]
        });
        app.out.grid(out, &["WHO", "SEES NOW", "WOULD SEE", "COLUMNS"], &[], lines.collect())?;
        if preview.more > 0 {
            writeln!(out, "and {}", plural(preview.more as u64, "more person"))?;
        }
        Ok(())
    })?;
    app.out.note(&format!("nothing was changed; {} would see the same", plural(preview.unchanged as u64, "user")));
    Ok(())
}

fn seen(preview: &AccessPreview, part: Option<&SeenPart>) -> String {
    let Some(part) = part else { return "nothing".to_owned() };
    let rows = match part.rows {
        Some(rows) if rows == preview.rows => "all rows".to_owned(),
        Some(rows) => format!("{} of {} rows", count(rows), count(preview.rows)),
        None => "some rows".to_owned(),
    };
    let masked: Vec<String> = part.masked.iter().map(|(name, how)| format!("{} {how}", safe(name))).collect();
    let masked = if masked.is_empty() { String::new() } else { format!(", {}", masked.join(", ")) };
    let stays = if part.distribution == Distribution::ServerOnly { ", server only" } else { "" };
    format!("{rows}{masked}{stays}")
}
