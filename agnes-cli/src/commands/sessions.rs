//! `agnes push` and its hooks: sessions of an assistant, and those that stay here.

use std::io::{Read as _, stdin};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::app::App;
use crate::args::PushArgs;
use crate::failure::{Failure, Outcome};
use crate::output::text::{plural, safe};
use crate::place::{self, variable};

/// Longest message of a hook.
const LONGEST: u64 = 1 << 20;

pub(super) async fn push(app: &App, args: PushArgs) -> Outcome {
    let workspace = place::here()?;
    let home = args.scan.then(|| variable("HOME").map(PathBuf::from)).flatten();
    if args.dry_run {
        let would = workspace.would_push(home.as_deref());
        let summary =
            format!("{} would be sent, {} stay here", plural(would.sessions.len(), "session"), would.private.len());
        let told = json!({
            "dry_run": true,
            "would_upload": {"sessions": would.sessions, "local_md": would.local_md},
            "would_skip_private": would.private,
            "summary": summary,
        });
        return app.out.show(&told, |out| Ok(writeln!(out, "{summary}")?));
    }
    let report = workspace.push(&app.server()?, home.as_deref()).await?;
    if app.out.json || !app.out.quiet {
        app.out.show(&report, |out| {
            let notes = if report.local_md { ", and your notes" } else { "" };
            Ok(writeln!(out, "{} sent{notes}; {} private", plural(report.sessions, "session"), report.private_skipped)?)
        })?;
    }
    report.errors.iter().filter(|_| !app.out.json).for_each(|error| app.out.warn(&safe(error)));
    if report.errors.is_empty() { Ok(()) } else { Err(Failure::Partial) }
}

/// What a hook says; nothing where it says nothing that can be read.
fn told() -> String {
    let mut text = String::new();
    let _ = stdin().lock().take(LONGEST).read_to_string(&mut text);
    text
}

/// A hook must not fail: whatever goes wrong, the session goes on.
pub(super) fn capture() -> Outcome {
    if let Ok(workspace) = place::here()
        && let Err(error) = workspace.capture_session(&told())
    {
        tracing::warn!("a session is not queued: {error}");
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
    let told: Value = serde_json::from_str(&told()).unwrap_or_default();
    let session = told["session_id"].as_str().unwrap_or_default();
    if place::here().is_ok_and(|workspace| workspace.is_private(session)) {
        println!("🔒 agnes-private");
    }
    Ok(())
}
