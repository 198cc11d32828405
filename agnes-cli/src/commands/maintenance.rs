//! `agnes backup`, `restore`, `gc`, `doctor`, `completions`.

use std::io::Write;

use agnes_connectors::server::ServerError;
use agnes_core::local::{Backup, CollectGarbage, Doctor};
use agnes_core::maintenance::CheckStatus;
use anstyle::AnsiColor;
use clap::CommandFactory;

use crate::app::App;
use crate::args::{BackupArgs, Cli, DoctorArgs, DoctorPart, GcArgs, RestoreArgs};
use crate::failure::{Failure, Outcome};
use crate::output::text::{bytes, plural, safe};

pub(super) async fn backup(app: &App, args: &BackupArgs) -> Outcome {
    if app.at_server()?.is_some() {
        let what = "a backup holds the keys and secrets of the server, which never leave its machine".to_owned();
        return Err(agnes_core::Error::from(ServerError::FolderOnly { what }).into());
    }
    // The holder of the folder may run elsewhere: it gets the whole path.
    let target = std::path::absolute(&args.to).map_err(|e| Failure::file("find the folder", &e))?;
    let index = app.call(Backup { target: target.clone() }).await?;
    let size = index.files.iter().map(|file| file.size_bytes).sum();
    app.out.done(
        &index,
        &format!("backed up {} ({}) to {}", plural(index.files.len(), "file"), bytes(size), target.display()),
    )?;
    app.out.hint(&format!("`agnes restore {} --data-dir <new folder>` brings it back", args.to.display()));
    Ok(())
}

pub(super) async fn restore(app: &App, args: &RestoreArgs) -> Outcome {
    if let Some(server) = &app.global.server {
        let why = format!("a backup becomes a new data folder, not one that `{server}` serves");
        return Err(Failure::usage_hint(
            why,
            "stop the server, restore with `--data-dir <new folder>`, start it on that",
        ));
    }
    let target = app.global.folder();
    let shown = target.display().to_string();
    app.confirm(&args.yes, &format!("restore into {shown}"))?;
    let from = args.from.clone();
    let index = agnes_core::duck::blocking(move || agnes_core::maintenance::restore(&from, &target)).await?;
    app.out.done(&index, &format!("restored {} into {shown}", plural(index.files.len(), "file")))
}

pub(super) async fn gc(app: &App, args: &GcArgs) -> Outcome {
    let report = app.ask(CollectGarbage { dry_run: args.dry_run }).await?;
    app.out.show(&report, |out| {
        let verb = if report.dry_run { "would delete" } else { "deleted" };
        writeln!(
            out,
            "{verb} {} and {} ({}); {} stay",
            plural(report.generations, "generation"),
            plural(report.blobs, "blob"),
            bytes(report.bytes),
            bytes(report.kept_bytes)
        )?;
        Ok(())
    })
}

pub(super) async fn doctor(app: &App, args: &DoctorArgs) -> Outcome {
    if let Some(DoctorPart::System { local }) = args.part {
        return super::diagnose::system(app, local).await;
    }
    if let Some(server) = app.at_server()? {
        return super::diagnose::run(app, &server, args).await;
    }
    let mut report = app.call(Doctor {}).await?;
    if let Some(only) = &args.component {
        report.checks.retain(|check| check.name == *only);
    }
    app.out.show(&report, |out| {
        for check in &report.checks {
            let (mark, color) = match check.status {
                CheckStatus::Ok => ("ok     ", AnsiColor::Green),
                CheckStatus::Warning => ("warning", AnsiColor::Yellow),
                CheckStatus::Error => ("error  ", AnsiColor::Red),
            };
            writeln!(
                out,
                "{}  {}: {}",
                app.out.style(color.on_default(), mark),
                safe(&check.name),
                safe(&check.detail)
            )?;
            if let Some(hint) = &check.hint {
                writeln!(out, "         hint: {}", safe(hint))?;
            }
        }
        writeln!(out, "{}", app.out.bold(&safe(&report.overall)))?;
        Ok(())
    })?;
    if report.checks.iter().any(|check| check.status == CheckStatus::Error) { Err(Failure::Partial) } else { Ok(()) }
}

pub(super) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "agnes", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}

/// One page a command, as `man` looks for them.
pub(super) fn man(to: &std::path::Path) -> Outcome {
    std::fs::create_dir_all(to).map_err(|e| Failure::file("make the folder", &e))?;
    clap_mangen::generate_to(Cli::command(), to).map_err(|e| Failure::file("write the pages", &e))
}
