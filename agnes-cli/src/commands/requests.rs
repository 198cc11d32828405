//! `agnes admin access-request`: what people ask to be given.

use agnes_core::local::{ApproveRequest, DenyRequest, PendingRequests, PreviewApproval};
use serde_json::json;

use crate::app::App;
use crate::args::RequestCommand;
use crate::failure::Outcome;
use crate::output::text::{count, or_dash, safe, short_id, time};

pub(super) async fn run(app: &App, command: RequestCommand) -> Outcome {
    match command {
        RequestCommand::List { limit } => {
            let waiting = app.ask(PendingRequests { limit }).await?;
            app.out.show(&waiting, |out| {
                let rows = waiting.iter().map(|row| {
                    let known = if row.resource_exists { "" } else { " (unknown)" };
                    let having: Vec<String> = row.groups_with_grant.iter().map(|group| safe(&group.name)).collect();
                    vec![
                        short_id(&row.request.id),
                        safe(&row.user_email),
                        row.request.resource_type.as_str().to_owned(),
                        format!("{}{known}", safe(&row.request.resource_id)),
                        having.join(", "),
                        safe(&or_dash(row.request.reason.as_deref())),
                        time(Some(row.request.created_at)),
                    ]
                });
                let header = ["ID", "WHO", "TYPE", "RESOURCE", "GROUPS WITH IT", "REASON", "ASKED"];
                app.out.grid(out, &header, &[], rows.collect())
            })
        }
        RequestCommand::Approve { request, group, note, dry_run } => {
            if dry_run {
                let preview = app.ask(PreviewApproval { request, group }).await?;
                let approval = &preview.approval;
                return app.out.show(&preview, |out| {
                    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
                    writeln!(out, "becomes a member   {}", yes_no(approval.given.membership_added))?;
                    writeln!(out, "group gets grant   {}", yes_no(approval.given.grant_added))?;
                    writeln!(out, "people gaining it  {}", approval.people_gaining_access)?;
                    let others: Vec<String> = approval.other_tables.iter().map(|table| safe(table)).collect();
                    let others = if others.is_empty() { "-".to_owned() } else { others.join(", ") };
                    writeln!(out, "tables besides     {others}")?;
                    Ok(())
                });
            }
            let told = app.ask(ApproveRequest { request, group, note }).await?;
            let said = told.said().cloned();
            let (request, approval) = told.into_reply();
            let gained = match approval.people_gaining_access {
                1 => "1 person gained access".to_owned(),
                people => format!("{} people gained access", count(people)),
            };
            let message = format!("approved the request for {}: {gained}", safe(&request.resource_id));
            let mut shown = json!(request);
            if let (Some(shown), Some(facts)) = (shown.as_object_mut(), json!(approval).as_object()) {
                shown.extend(facts.clone());
            }
            app.out.done(&said.unwrap_or(shown), &message)
        }
        RequestCommand::Deny { request, note } => {
            let request = app.ask(DenyRequest { request, note }).await?;
            app.out.done(&request, &format!("refused the request for {}", safe(&request.resource_id)))
        }
    }
}
