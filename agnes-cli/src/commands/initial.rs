//! The repository that workspaces begin with: `agnes admin initial-workspace`, and its part of `agnes init`.

use agnes_connectors::server::{Call, Method, ServerClient};
use agnes_core::duck::blocking;
use agnes_core::workspace::{Taken, Template, Workspace};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{InitArgs, InitialCommand};
use crate::failure::{Failure, Outcome};
use crate::output::text::{plural, safe};

/// Most bytes of an archive.
const LONGEST: usize = 128 << 20;

pub(super) async fn run(app: &App, command: InitialCommand) -> Outcome {
    let server = app.server()?;
    let path = ["api", "admin", "initial-workspace"];
    match command {
        InitialCommand::Show => {
            let told = server.ask(Call::get(&path)).await?.body;
            app.out.show(&told, |out| lines(out, &told))
        }
        InitialCommand::Set(args) => {
            let token = match args.token.as_deref() {
                Some("-") => Some(super::auth::line_of_stdin()?),
                Some(_) => {
                    let why = "a token does not belong on a command line, where others can read it";
                    return Err(Failure::usage_hint(why, "use `--token -` and standard input"));
                }
                None => args.without_token.then(String::new),
            };
            let body = json!({"url": args.url, "branch": args.branch, "token": token});
            // As long as a repository may take, and a little.
            let call = Call::post(&path, body).within(std::time::Duration::from_secs(330));
            let told = server.ask(call).await?.body;
            app.out.show(&told, |out| lines(out, &told))
        }
        InitialCommand::Sync => {
            let call = Call::post(&[&path[..], &["sync"]].concat(), Value::Null);
            let told = server.ask(call.within(std::time::Duration::from_secs(330))).await?.body;
            let files = plural(usize::try_from(told["files"].as_u64().unwrap_or(0)).unwrap_or(0), "file");
            app.out.done(&told, &format!("took {files} of {}", text(&told["commit"])))
        }
        InitialCommand::Remove { purge, yes } => {
            app.confirm(&yes, "have workspaces begin with the usual files again")?;
            let call = Call::new(Method::DELETE, &path);
            server.ask(if purge { call.param("purge", "true") } else { call }).await?;
            app.out.done(&json!({"configured": false, "purged": purge}), "workspaces begin with the usual files")
        }
    }
}

fn text(value: &Value) -> String {
    safe(value.as_str().unwrap_or("-"))
}

fn lines(out: &mut dyn std::io::Write, told: &Value) -> Outcome {
    if told["configured"] != true {
        return Ok(writeln!(out, "no repository: workspaces begin with the usual files")?);
    }
    let yes = if told["has_token"] == true { "yes" } else { "no" };
    for (name, value) in [
        ("repository", text(&told["url"])),
        ("branch", text(&told["branch"])),
        ("token", yes.to_owned()),
        ("commit", text(&told["commit_sha"])),
        ("brought", text(&told["last_synced_at"])),
        ("last error", text(&told["last_error"])),
    ] {
        writeln!(out, "{name:<11} {value}")?;
    }
    for file in told["files"].as_array().into_iter().flatten() {
        writeln!(out, "  {}", text(file))?;
    }
    for file in told["unrendered"].as_array().into_iter().flatten() {
        writeln!(out, "{} is no template: it is given as it stands", text(file))?;
    }
    Ok(())
}

/// What a server has workspaces begin with.
pub(super) struct Begin {
    pub(super) source: String,
    pub(super) commit: String,
    template: Template,
}

impl Begin {
    /// What this server says; nothing where it has nothing of its own.
    pub(super) async fn of(server: &ServerClient) -> Outcome<Option<Self>> {
        let offer = match server.ask(Call::get(&["api", "initial-workspace"])).await {
            Ok(answer) => answer.body,
            // An older server.
            Err(error) if error.kind() == agnes_core::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (Some(source), Some(commit)) = (offer["template_source"].as_str(), offer["template_sha"].as_str()) else {
            return Ok(None);
        };
        let call = Call::get(&["api", "initial-workspace.zip"]).header("accept", "application/zip");
        let archive = server.bytes(call.unlimited(), LONGEST).await?;
        let template = blocking(move || Template::read(&archive)).await?;
        Ok(Some(Self { source: source.to_owned(), commit: commit.to_owned(), template }))
    }

    /// Asks before files become others; nothing is changed yet.
    pub(super) fn confirm(&self, app: &App, args: &InitArgs, workspace: &Workspace) -> Outcome {
        let others = workspace.overwritten_by(&self.template)?;
        if others.is_empty() {
            return Ok(());
        }
        let what = format!("{} here become those of {}", plural(others.len(), "file"), safe(&self.source));
        app.out.note(&format!("{what}:"));
        others.iter().for_each(|name| app.out.note(&format!("  {}", safe(name))));
        if args.yes {
            return Ok(());
        }
        if !app.out.can_ask() {
            return Err(Failure::usage_hint(format!("{what}: this needs a confirmation"), "add `--yes`"));
        }
        let terminal = console::Term::stderr();
        terminal.write_str("Type YES to have it so: ")?;
        if terminal.read_line()?.trim() == "YES" { Ok(()) } else { Err(Failure::usage("nothing was changed")) }
    }

    /// Writes the files, and tells the server.
    pub(super) async fn take(&self, server: &ServerClient, args: &InitArgs, workspace: &Workspace) -> Outcome<Taken> {
        let taken = workspace.take(&self.template)?;
        let body = json!({
            "mode": if args.force { "force_overwrite" } else { "fresh_install" }, "template_sha": self.commit,
            "files_overwritten": taken.overwritten, "files_created": taken.created,
        });
        // The workspace is as it should be, whether that is written down or not.
        if let Err(error) = server.ask(Call::post(&["api", "initial-workspace", "applied"], body)).await {
            tracing::warn!("the server did not note what became of its files: {error}");
        }
        Ok(taken)
    }

    pub(super) fn files(&self) -> usize {
        self.template.len()
    }
}
