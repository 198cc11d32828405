//! The real binary on real data folders.

#![allow(clippy::unwrap_used)]

mod commands;
mod demo;
mod formats;
mod manners;
mod people;
mod policy;
mod programs;
mod registry;
mod sharing;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A data folder with a source of two small tables beside it.
pub(crate) struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    /// An empty data folder.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A data folder whose source `shop` is synced: `orders` (4 rows) and `people` (2 rows).
    pub(crate) fn synced() -> Self {
        let folder = Self::empty();
        let files = folder.files();
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("orders.csv"), "id,status,amount\n1,paid,10.5\n2,open,20\n3,paid,30.25\n4,lost,\n")
            .unwrap();
        std::fs::write(files.join("people.csv"), "id,name\n1,\"Ann \"\"A\"\", née B\"\n2,Bob\n").unwrap();
        folder.ok(&["source", "add", "shop", "--path", files.to_str().unwrap()]);
        folder.ok(&["sync"]);
        folder
    }

    /// A synced folder with ann (may read `orders`) and bob (may read nothing).
    pub(crate) fn governed() -> Self {
        let folder = Self::synced();
        folder.ok(&["admin", "user", "add", "ann@example.com", "--name", "Ann"]);
        folder.ok(&["admin", "user", "add", "bob@example.com"]);
        folder.ok(&["admin", "group", "create", "analysts"]);
        folder.ok(&["admin", "group", "add-member", "analysts", "ann@example.com"]);
        folder.ok(&["admin", "grant", "create", "analysts", "table", "orders"]);
        folder
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where the source's files are.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// A place for other files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `agnes <args>` on this folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = agnes();
        command.current_dir(self.dir.path()).env("DATA_DIR", self.data()).args(args);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        assert!(!text(&output.stderr).contains("panicked"), "{args:?}: {}", text(&output.stderr));
        output
    }

    /// Runs it, which must succeed; gives standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {:?}\n{}\n{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs it with `--json`, which must succeed and print exactly one document.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?} is not one JSON document: {e}\n{out}"))
    }

    /// Runs it, which must end with `code`; gives standard error.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{}\n{told}", text(&output.stdout));
        assert!(told.contains("error"), "{args:?} says nothing: {told}");
        told
    }
}

/// The binary, without the settings of whoever runs the tests.
pub(crate) fn agnes() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agnes"));
    for name in ["DATA_DIR", "STATE_DIR", "CONFIG_DIR", "AGNES_TEMP_DIR", "AGNES_LOG", "NO_COLOR"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Output as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is in a folder, at any depth.
pub(crate) fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(listing(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}
