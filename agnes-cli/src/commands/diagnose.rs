//! `agnes diagnose` of somebody who works with a server: is it there, am I let in, is all here.

use std::time::Instant;

use agnes_connectors::server::{Call, Served as _, ServerClient};
use agnes_core::Error;
use agnes_core::local::Doctor;
use agnes_core::maintenance::CheckStatus;
use anstyle::AnsiColor;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::DoctorArgs;
use crate::failure::{Failure, Outcome};
use crate::output::text::{plural, safe};
use crate::place;

/// How many sessions may be here and not be sent.
const BEHIND: usize = 3;

/// What was looked at.
#[derive(Default)]
struct Checks {
    all: Vec<Value>,
    actions: Vec<String>,
}

impl Checks {
    fn add(&mut self, name: &str, status: &str, detail: impl Into<String>) {
        self.all.push(json!({"name": name, "status": status, "detail": detail.into()}));
    }

    fn fail(&mut self, name: &str, error: &Error) {
        self.add(name, "error", error.to_string());
        if let Some(hint) = error.hint().filter(|hint| !self.actions.contains(hint)) {
            self.actions.push(hint);
        }
    }

    fn has(&self, status: &str) -> bool {
        self.all.iter().any(|check| check["status"] == status)
    }
}

/// `agnes diagnose system`: how the server is, or what a pull left here.
pub(super) async fn system(app: &App, is_local: bool) -> Outcome {
    if is_local {
        return super::status::run(app).await;
    }
    let health = app.server()?.ask(Call::get(&["api", "health", "detailed"])).await?.body;
    let text = |value: &Value| safe(value["status"].as_str().unwrap_or("unknown"));
    app.out.show(&health, |out| {
        writeln!(out, "{}", app.out.bold(&text(&health)))?;
        for (name, service) in health["services"].as_object().into_iter().flatten() {
            writeln!(out, "{:<10} {}", text(service), safe(name))?;
        }
        Ok(())
    })
}

pub(super) async fn run(app: &App, server: &ServerClient, args: &DoctorArgs) -> Outcome {
    let mut checks = Checks::default();
    of_token(app, server, &mut checks);
    of_server(server, args, &mut checks).await;
    of_workspace(&mut checks);
    if let Some(only) = &args.component {
        checks.all.retain(|check| {
            check["name"].as_str().is_some_and(|name| name == only || name.ends_with(&format!(":{only}")))
        });
    }
    let overall = match (checks.has("error"), checks.has("warning")) {
        (true, _) => "unhealthy",
        (_, true) => "degraded",
        _ => "healthy",
    };
    let mut told = json!({"overall": overall, "checks": checks.all, "suggested_actions": checks.actions});
    if let Some(symptom) = &args.symptom {
        told["symptom"] = json!(symptom);
    }
    app.out.show(&told, |out| {
        for check in &checks.all {
            let text = |name: &str| safe(check[name].as_str().unwrap_or_default());
            let color = match check["status"].as_str() {
                Some("error") => AnsiColor::Red,
                Some("warning") => AnsiColor::Yellow,
                _ => AnsiColor::Green,
            };
            let mark = app.out.style(color.on_default(), &format!("{:<8}", text("status")));
            writeln!(out, "{mark} {}: {}", text("name"), text("detail"))?;
        }
        for action in &checks.actions {
            writeln!(out, "try: {}", safe(action))?;
        }
        Ok(writeln!(out, "{}", app.out.bold(overall))?)
    })?;
    if overall == "unhealthy" { Err(Failure::Partial) } else { Ok(()) }
}

fn of_token(app: &App, server: &ServerClient, checks: &mut Checks) {
    match app.account.token(server.server(), &place::variable) {
        Ok(Some(kept)) => checks.add("token", "ok", format!("it is in {}", super::auth::place_of(kept.from))),
        Ok(None) => checks.add("token", "info", "none is kept for this server"),
        Err(error) => checks.fail("token", &error),
    }
}

async fn of_server(server: &ServerClient, args: &DoctorArgs, checks: &mut Checks) {
    let asked = Instant::now();
    match server.ask(Call::get(&["api", "health"]).public()).await {
        Ok(_) => checks.add("api", "ok", format!("{} answers in {} ms", server.server(), asked.elapsed().as_millis())),
        Err(error) => {
            checks.fail("api", &error);
            if error.code() == "server_unreachable" {
                return;
            }
        }
    }
    let me = match server.ask(Call::get(&["auth", "me"])).await {
        Ok(answer) => answer.body,
        Err(error) => return checks.fail("auth", &error),
    };
    checks.add("auth", "ok", format!("signed in as {}", me["email"].as_str().unwrap_or("somebody")));
    match server.ask(Call::get(&["api", "sync", "manifest"])).await {
        Ok(answer) => {
            let tables = answer.body["tables"].as_object().map_or(0, serde_json::Map::len);
            checks.add("manifest", "ok", format!("{} may be pulled", plural(tables, "table")));
        }
        Err(error) => checks.fail("manifest", &error),
    }
    let detailed = Call::get(&["api", "health", "detailed"]).maybe("include", args.include_schema.then_some("schema"));
    match server.ask(detailed).await {
        Ok(answer) => {
            for (name, service) in answer.body["services"].as_object().into_iter().flatten() {
                let status = service["status"].as_str().unwrap_or("unknown");
                let facts = service
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(name, value)| *name != "status" && !value.is_null());
                let facts: Vec<String> = facts.map(|(name, value)| format!("{name} {value}")).collect();
                checks.add(&format!("service:{name}"), status, facts.join(", "));
            }
        }
        Err(error) => checks.fail("services", &error),
    }
    // What is for admins is left out for others.
    if me["is_admin"] == true {
        match (Doctor {}).ask(server).await {
            Ok(report) => {
                for check in &report.checks {
                    let status = match check.status {
                        CheckStatus::Ok => "ok",
                        CheckStatus::Warning => "warning",
                        CheckStatus::Error => "error",
                    };
                    checks.add(&format!("doctor:{}", check.name), status, &check.detail);
                    checks.actions.extend(check.hint.clone());
                }
            }
            // A server of before has no such route.
            Err(error) if error.code() == "not_found" => {}
            Err(error) => checks.fail("doctor", &error),
        }
    }
}

fn of_workspace(checks: &mut Checks) {
    let Ok(workspace) = place::here() else { return checks.add("workspace", "info", "this folder is no workspace") };
    match workspace.has_all_files() {
        Ok(true) => checks.add("workspace", "ok", "every file is here as it was pulled"),
        Ok(false) => {
            checks.add("workspace", "warning", "files are missing, or were changed");
            checks.actions.push("`agnes pull` repairs them".to_owned());
        }
        Err(error) => checks.fail("workspace", &error),
    }
    if let Some(commit) = workspace.template_sha() {
        checks.add("hooks", "info", format!("the files are those of the repository at {commit}"));
    } else if workspace.has_hooks() {
        checks.add("hooks", "ok", "the assistant keeps this folder fresh");
    } else {
        checks.add("hooks", "warning", "the assistant's hooks are not those of this version");
        checks.actions.push("`agnes init --force` puts them in".to_owned());
    }
    let waiting = format!("{} wait to be sent", workspace.pending_sessions());
    let lately = place::variable("HOME").map(|home| workspace.captured_lately(home.as_ref()));
    match lately.filter(|(written, _)| *written > 0) {
        None => checks.add("capture-session", "info", format!("no session of the last 7 days is here; {waiting}")),
        Some((written, sent)) => {
            let is_behind = written - sent > BEHIND;
            let status = if is_behind { "warning" } else { "ok" };
            let detail = format!("{written} sessions of the last 7 days are here, {sent} of them were sent; {waiting}");
            checks.add("capture-session", status, detail);
            if is_behind {
                checks.actions.push("`agnes push --scan` sends them".to_owned());
            }
        }
    }
}
