//! `agnes init`: a folder to work in.

use agnes_connectors::server::{Call, ServerClient};
use agnes_core::secret::Secret;
use agnes_core::workspace::{PullOptions, Setup, Workspace};
use chrono::Utc;
use serde_json::json;

use super::initial::Begin;
use crate::app::App;
use crate::args::InitArgs;
use crate::failure::{Failure, Outcome};
use crate::output::text::{plural, safe};
use crate::place::{self, variable};

pub(super) async fn run(app: &App, args: InitArgs) -> Outcome {
    let root =
        args.workspace.clone().or_else(|| variable("AGNES_LOCAL_DIR").map(Into::into)).unwrap_or_else(|| ".".into());
    let workspace = Workspace::at(&root)?;
    let home = variable("HOME").map(std::path::PathBuf::from);
    workspace.check_place(home.as_deref(), app.account.folder(), args.force)?;
    let address = match &args.server_url {
        Some(address) => address.clone(),
        None => place::address(&app.global, &app.account)?,
    };
    let token = match args.token.as_deref() {
        Some("-") => Some(Secret::new(super::auth::line_of_stdin()?)),
        Some(token) => Some(Secret::new(token.trim())),
        None => None,
    };
    let server = place::client(&address, token.clone(), &app.account)?;
    let me = match server.ask(Call::get(&["auth", "me"])).await {
        Ok(answer) => answer.body,
        Err(error) => {
            if matches!(error.code(), "not_signed_in") || error.kind() == agnes_core::ErrorKind::Unauthenticated {
                app.out.hint(&format!("{}/setup tells how to get a token", server.server()));
            }
            return Err(error.into());
        }
    };
    let text = |name: &str| me[name].as_str().unwrap_or_default().to_owned();
    let (user_id, email) = (text("user_id"), text("email"));
    match &token {
        Some(token) => drop(app.account.keep(server.server(), token, Some(&email))?),
        None => app.account.keep_server(server.server())?,
    }
    let begin = Begin::of(&server).await?;
    if let Some(begin) = &begin {
        begin.confirm(app, &args, &workspace)?;
    }
    std::fs::create_dir_all(workspace.root()).map_err(|e| Failure::file("make the workspace", &e))?;
    workspace.claim(server.server(), &user_id, &email)?;
    if args.lazy {
        workspace.keep_lazy()?;
    }
    // The transcript of the session this runs in may hold the token.
    if let Some(session) = variable("CLAUDE_CODE_SESSION_ID")
        && let Err(error) = workspace.mark_private(&session)
    {
        app.out.warn(&format!("this session is not kept private: {error}"));
    }
    let welcome = match &begin {
        Some(_) => None,
        None => welcome(&server).await?,
    };
    let taken = match &begin {
        Some(begin) => Some(begin.take(&server, &args, &workspace).await?),
        None => None,
    };
    let setup = Setup {
        server: server.server(),
        version: env!("CARGO_PKG_VERSION"),
        welcome: welcome.as_deref(),
        now: Utc::now(),
    };
    let report = if args.no_pull {
        None
    } else {
        let options = PullOptions {
            skip_materialized: args.skip_materialize,
            limits: super::pull::limits()?,
            ..PullOptions::default()
        };
        match super::pull::pull(app, &server, &workspace, &options).await {
            Ok(report) => Some(report),
            Err(failure) => {
                app.out.hint("`agnes init` again goes on where this ended");
                return Err(failure);
            }
        }
    };
    let told = match &begin {
        Some(begin) => {
            workspace.set_up_from(&setup, &begin.source, &begin.commit)?;
            Vec::new()
        }
        None => workspace.set_up(&setup)?,
    };
    // For assistants, whose programs start `agnes mcp` anywhere.
    app.account.keep_workspace(workspace.root())?;
    onboarded(&server).await;
    let template = begin.as_ref().zip(taken).map(|(begin, taken)| {
        json!({
            "source": begin.source, "sha": begin.commit, "files": begin.files(),
            "overwritten": taken.overwritten, "created": taken.created,
        })
    });
    let summary = json!({
        "workspace": workspace.root(), "server": server.server(), "email": email, "user_id": user_id,
        "template": template, "pull": report,
    });
    app.out.show(&summary, |out| {
        writeln!(out, "the workspace in {} is ready", safe(&workspace.root().to_string_lossy()))?;
        if let Some(begin) = &begin {
            writeln!(out, "it begins with {} of {}", plural(begin.files(), "file"), safe(&begin.source))?;
        }
        if let Some(report) = &report {
            writeln!(out, "pulled {} from {}", plural(report.parquets_total, "file"), safe(server.server()))?;
        }
        Ok(())
    })?;
    told.iter().for_each(|line| app.out.note(line));
    let errors = report.as_ref().map(|report| report.errors.as_slice()).unwrap_or_default();
    for error in errors {
        app.out.warn(&safe(&error.error));
    }
    if errors.is_empty() {
        app.out.hint("`agnes catalog` shows the tables, `agnes query 'select ...'` asks them");
        Ok(())
    } else {
        Err(Failure::Partial)
    }
}

/// The server's own `CLAUDE.md`, where it has one.
async fn welcome(server: &ServerClient) -> Outcome<Option<String>> {
    let call = Call::get(&["api", "welcome"]).param("server_url", server.server());
    match server.ask(call).await {
        Ok(answer) => Ok(answer.body["content"].as_str().map(ToOwned::to_owned)),
        Err(error) if error.kind() == agnes_core::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells the server that its user is on board; a server that knows nothing of it is none the worse.
async fn onboarded(server: &ServerClient) {
    let _ =
        server.ask(Call::post(&["api", "me", "onboarded"], json!({"source": "agnes_init", "onboarded": true}))).await;
}
