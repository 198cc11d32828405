//! `agnes setup`: the first day of a server.

use agnes_connectors::server::{Call, ServerClient};
use agnes_core::secret::Secret;
use anstyle::AnsiColor;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{BootstrapArgs, SetupCommand, SyncArgs};
use crate::failure::{Failure, Outcome};
use crate::output::text::{plural, safe};
use crate::place;

pub(super) async fn run(app: &App, command: SetupCommand) -> Outcome {
    match command {
        SetupCommand::Init => {
            let address = place::address(&app.global, &app.account)?;
            let server = place::client(&address, None, &app.account)?;
            app.account.keep_server(server.server())?;
            app.out.done(&json!({"server": server.server()}), &format!("the server is {}", server.server()))
        }
        SetupCommand::Bootstrap(args) => bootstrap(app, args).await,
        SetupCommand::TestConnection => test_connection(app).await,
        SetupCommand::FirstSync { wait } => {
            let args = SyncArgs { tables: Vec::new(), source: Vec::new(), full: false, wait };
            super::sync::at_server(app, &app.server()?, args).await
        }
        SetupCommand::Verify => verify(app).await,
    }
}

async fn bootstrap(app: &App, args: BootstrapArgs) -> Outcome {
    let server = app.server()?;
    let password = super::auth::password(app, args.password.as_deref())?;
    let body = json!({"email": args.email.trim(), "name": args.name.unwrap_or_default(), "password": password});
    let mut call = Call::post(&["auth", "bootstrap"], body).public();
    if let Some(token) = args.token {
        call = call.header("x-bootstrap-token", token);
    }
    let session = match server.ask(call).await {
        Ok(answer) => answer.body,
        // There is an Admin already: nothing is left to do here.
        Err(error) if error.code() == "bootstrap_closed" => {
            app.out.failure(&error.into());
            return Err(Failure::Told(crate::exit::FAILED));
        }
        Err(error) => return Err(error.into()),
    };
    let token = Secret::new(session["access_token"].as_str().unwrap_or_default());
    let email = session["email"].as_str().unwrap_or(args.email.trim()).to_owned();
    app.account.keep(server.server(), &token, Some(&email))?;
    let told = json!({"server": server.server(), "email": email, "user_id": session["user_id"]});
    app.out.done(&told, &format!("{} is the first Admin of {}", safe(&email), server.server()))
}

async fn test_connection(app: &App) -> Outcome {
    let server = app.server()?;
    let health = server.ask(Call::get(&["api", "health"]).public()).await?.body;
    let detailed = match server.has_token() {
        true => server.ask(Call::get(&["api", "health", "detailed"])).await?.body,
        false => Value::Null,
    };
    let told = json!({"server": server.server(), "health": health, "detailed": detailed});
    app.out.show(&told, |out| {
        let text = |value: &Value| safe(value.as_str().unwrap_or("not known: nobody is signed in"));
        writeln!(out, "{} answers: {}", server.server(), text(&health["status"]))?;
        Ok(writeln!(out, "as a whole: {}", text(&detailed["status"]))?)
    })
}

/// A check: its name, how it went, what was seen.
type Check = (&'static str, &'static str, String);

async fn verify(app: &App) -> Outcome {
    let server = app.server()?;
    let checks = checks(&server).await;
    let has = |status: &str| checks.iter().any(|(_, of, _)| *of == status);
    let overall = match (has("fail"), has("warn")) {
        (true, _) => "fail",
        (_, true) => "warn",
        _ => "pass",
    };
    let all: Vec<_> =
        checks.iter().map(|(name, status, detail)| json!({"name": name, "status": status, "detail": detail})).collect();
    app.out.show(&json!({"overall": overall, "checks": all}), |out| {
        for (name, status, detail) in &checks {
            let color = match *status {
                "fail" => AnsiColor::Red,
                "warn" => AnsiColor::Yellow,
                _ => AnsiColor::Green,
            };
            let mark = app.out.style(color.on_default(), status);
            writeln!(out, "{mark}  {name}: {}", safe(detail))?;
        }
        Ok(writeln!(out, "{}", app.out.bold(overall))?)
    })?;
    if overall == "fail" { Err(Failure::Told(crate::exit::FAILED)) } else { Ok(()) }
}

async fn checks(server: &ServerClient) -> Vec<Check> {
    let mut checks = Vec::new();
    let failed = |name, error: agnes_core::Error| (name, "fail", error.to_string());
    checks.push(match server.ask(Call::get(&["api", "health"]).public()).await {
        Ok(_) => ("server", "pass", format!("{} answers", server.server())),
        Err(error) => failed("server", error),
    });
    let me = server.ask(Call::get(&["auth", "me"])).await.map(|answer| answer.body);
    let is_admin = me.as_ref().is_ok_and(|me| me["is_admin"] == true);
    checks.push(match me {
        Ok(me) => ("auth", "pass", format!("signed in as {}", me["email"].as_str().unwrap_or("somebody"))),
        Err(error) => failed("auth", error),
    });
    checks.push(match server.ask(Call::get(&["api", "v2", "catalog"])).await {
        Ok(answer) => match answer.body["tables"].as_array().map_or(0, Vec::len) {
            0 => ("data", "warn", "there is no table to read yet: add a source, sync, grant".to_owned()),
            n => ("data", "pass", format!("{} to read", plural(n, "table"))),
        },
        Err(error) => failed("data", error),
    });
    if is_admin {
        checks.push(match server.ask(Call::get(&["api", "users"])).await {
            Ok(answer) => match answer.body.as_array().map_or(0, Vec::len) {
                n if n < 2 => ("users", "warn", "nobody else has an account: `agnes admin user add`".to_owned()),
                n => ("users", "pass", format!("{n} accounts")),
            },
            Err(error) => failed("users", error),
        });
    }
    for (name, path) in [("web_ui", ["setup"]), ("api_docs", ["openapi.json"])] {
        let call = Call::get(&path);
        checks.push(match server.page(if name == "web_ui" { call.public() } else { call }).await {
            Ok(()) => (name, "pass", format!("{} is there", server.address_of(&path))),
            Err(error) => failed(name, error),
        });
    }
    checks
}
