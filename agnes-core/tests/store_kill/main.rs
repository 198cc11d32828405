//! The state when its process is killed, its disk is full, or its log is damaged: in a
//! migration, between the commits of jobs, and afterwards.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod jobs;
mod log;
mod migration;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set in a child: the state file it works on.
const CHILD: &str = "AGNES_TEST_STATE";

/// The state file of a child; `None` in the process that runs the tests.
fn state_of_child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// This binary again, running only the test `name` on the state file at `path`, with a fault.
fn child(name: &str, path: &Path, fault: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env(CHILD, path).env("AGNES_FAULT_AT", fault);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Names in the state's folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
