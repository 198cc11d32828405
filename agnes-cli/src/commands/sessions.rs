//! `agnes push` and its hooks: sessions of an assistant, and those that stay here.

use std::io::{self, Read as _, Write as _, stdin, stdout};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::app::App;
use crate::args::PushArgs;
use crate::exit;
use crate::failure::{Failure, Outcome};
use crate::output::text::{plural, safe};
use crate::place::{self, variable};

/// Longest message of a hook.
const LONGEST: u64 = 1 << 20;
/// How long a hook may take to say it.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn push(app: &App, args: PushArgs) -> Outcome {
    let workspace = place::here()?;
    let home = variable("HOME").map(PathBuf::from);
    if args.dry_run {
        let would = workspace.would_push(home.as_deref(), args.scan);
        let told = json!({
            "dry_run": true,
            "would_upload": {"sessions": would.sessions, "local_md": would.local_md},
            "would_skip_private": would.private,
            "summary": {
                "sessions_count": would.sessions.len(),
                "private_skipped_count": would.private.len(),
                "local_md_present": would.has_local_md,
                "uploaded_log": would.uploaded_log,
            },
        });
        return app.out.show(&told, |out| {
            let sessions = plural(would.sessions.len(), "session");
            let notes = if would.local_md { ", and your notes" } else { "" };
            Ok(writeln!(out, "{sessions} would be sent{notes}; {} stay here", would.private.len())?)
        });
    }
    let server = app.server()?;
    if !server.has_token() {
        return Err(agnes_core::Error::from(server.without_token()).into());
    }
    // Another push runs: it sends what there is.
    let Some(report) = workspace.push(&server, home.as_deref(), args.scan).await? else { return Ok(()) };
    if app.out.json || !app.out.quiet {
        app.out.show(&report, |out| {
            let notes = if report.local_md { ", and your notes" } else { "" };
            Ok(writeln!(out, "{} sent{notes}; {} private", plural(report.sessions, "session"), report.private_skipped)?)
        })?;
    }
    if app.out.quiet || report.errors.is_empty() {
        return Ok(());
    }
    report.errors.iter().filter(|_| !app.out.json).for_each(|error| app.out.warn(&safe(error)));
    Err(report.ended_by.map_or(Failure::Partial, |(kind, code)| Failure::Told(exit::code(kind, &code))))
}

/// What a hook says.
fn told() -> io::Result<String> {
    let (tell, heard) = std::sync::mpsc::channel();
    // Left behind when it hears nothing: the process ends soon.
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdin().lock().take(LONGEST).read_to_string(&mut text);
        let _ = tell.send(read.map(|_| text));
    });
    heard.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A hook must not fail: whatever goes wrong, the session goes on.
pub(super) fn capture(app: &App) -> Outcome {
    let became = match place::here() {
        Ok(workspace) => {
            let captured = workspace.capture_session(told());
            format!("{} {}", captured.outcome, safe(&captured.detail))
        }
        Err(_) => "this folder is not a workspace".to_owned(),
    };
    if app.global.verbose > 0 {
        app.out.note(&format!("capture-session: {}", became.trim_end()));
    }
    Ok(())
}

pub(super) fn mark_private(app: &App) -> Outcome {
    let Some(session) = variable("CLAUDE_CODE_SESSION_ID") else {
        let message = "there is no session: `CLAUDE_CODE_SESSION_ID` is not set".to_owned();
        return Err(Failure::File { message });
    };
    let is_new = place::here()?.mark_private(&session)?;
    let words = if is_new { "is private now" } else { "was private already" };
    app.out.done(&json!({"session_id": session, "private": true}), &format!("this session {words}: it is not sent"))
}

/// Says what there is to say, and never fails.
pub(super) fn status_line() -> Outcome {
    let told: Value = told().ok().and_then(|told| serde_json::from_str(&told).ok()).unwrap_or_default();
    let session = told["session_id"].as_str().unwrap_or_default();
    if place::here().is_ok_and(|workspace| workspace.is_private(session)) {
        let _ = writeln!(stdout(), "🔒 agnes-private");
    }
    Ok(())
}
