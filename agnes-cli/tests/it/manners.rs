//! Colour, pipes, signals, help, and input nobody would type.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::{Folder, agnes, text};

#[test]
fn piped_output_has_no_colour_and_no_bars() {
    let folder = Folder::governed();
    for args in [
        &["sync", "--full"][..],
        &["catalog"],
        &["admin", "user", "list"],
        &["query", "select * from orders"],
        &["doctor"],
        &["schema", "nothing"],
    ] {
        let output = folder.run(args);
        for stream in [&output.stdout, &output.stderr] {
            assert!(!stream.contains(&0x1b) && !stream.contains(&b'\r'), "{args:?}: {:?}", text(stream));
        }
    }
    let coloured = folder.run(&["schema", "nothing", "--color", "always"]);
    assert!(coloured.stderr.contains(&0x1b));
    let plain = folder.run(&["schema", "nothing", "--color", "never"]);
    assert!(!plain.stderr.contains(&0x1b));
}

#[test]
fn quiet_says_nothing_on_success() {
    let folder = Folder::governed();
    for args in [&["sync", "--quiet"][..], &["admin", "user", "add", "q@example.com", "-q"]] {
        let output = folder.run(args);
        assert!(
            output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
            "{args:?}: {output:?}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::synced();
    for format in ["csv", "table", "json", "ndjson", "arrow"] {
        let mut child = folder
            .command(&["query", "select i, i * 2 as j from range(3000000) t(i)", "--limit", "0", "-f", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 16];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{format}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{format}: {}", text(&output.stderr));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_long_query_and_leaves_the_folder_usable() {
    let folder = Folder::synced();
    let child = folder
        .command(&["query", "select count(*) from range(3000000) a(i), range(3000000) b(j) where (i * j) % 7 = 3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(|| folder.data().join("state/holder.sock").exists());
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(!folder.data().join("state/holder.sock").exists());
    folder.ok(&["query", "select 1"]);
}

/// Waits until something is so.
pub(crate) fn wait_for(mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(30), "it never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = agnes().args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains("agnes"), "{shell}");
    }
    assert_eq!(agnes().args(["completions", "tcsh"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn version_and_help() {
    for flag in ["--version", "-V"] {
        let output = agnes().arg(flag).output().unwrap();
        assert_eq!(text(&output.stdout), format!("agnes {}\n", env!("CARGO_PKG_VERSION")));
    }
    let output = agnes().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    for args in [&["--help"][..], &["query", "--help"], &["admin", "grant", "create", "--help"]] {
        let output = agnes().args(args).output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains("Example"), "{args:?}");
    }
}

#[test]
fn input_nobody_would_type_is_refused_not_a_crash() {
    let folder = Folder::synced();
    let long = "x".repeat(100_000);
    let deep = format!("select {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    for args in [
        &["query", ""][..],
        &["query", ";"],
        &["query", "select 1; select 2"],
        &["query", "\u{0}"],
        &["query", &long],
        &["query", &deep],
        &["query", "select '\u{1b}[2J'", "--limit", "99999999999999999999"],
        &["query", "select 1", "--param", "="],
        &["query", "select 1", "--limit", "-1"],
        &["schema", ""],
        &["schema", "../../etc/passwd"],
        &["schema", &long],
        &["source", "add", "", "--path", ""],
        &["source", "add", "x", "--config-json", "{"],
        &["source", "add", "x", "--config-json", "@/nonexistent"],
        &["source", "add", "x", "--set", "path"],
        &["source", "add", "x", "--kind", "files"],
        &["sync", ""],
        &["sync", "--source", "\n"],
        &["admin", "user", "add", ""],
        &["admin", "user", "add", "a@b@c"],
        &["admin", "user", "access", ""],
        &["admin", "group", "create", ""],
        &["admin", "group", "create", "  "],
        &["admin", "grant", "create", "x", "table", ""],
        &["admin", "run", "show", "%%"],
        &["admin", "run", "cancel", ""],
        &["admin", "audit", "list", "--limit", "0"],
        &["backup", ""],
        &["restore", "/nonexistent", "--yes", "--data-dir", "fresh"],
        &["sample", "orders", "-n", "99999999999"],
    ] {
        let output = folder.command(args).output();
        // A NUL cannot even be passed on.
        let Ok(output) = output else { continue };
        let told = text(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(1..=9)),
            "{:?}: {:?} {told}",
            args.iter().map(|a| a.chars().take(40).collect::<String>()).collect::<Vec<_>>(),
            output.status
        );
        assert!(!told.contains("panicked") && told.contains("error"), "{told}");
        assert!(!output.stdout.contains(&0x1b));
    }
    // Data cannot steer the terminal.
    let output = folder.run(&["query", "select chr(27) || '[2J' as x"]);
    assert!(output.status.success() && !output.stdout.contains(&0x1b), "{}", text(&output.stdout));
}

#[test]
fn a_data_folder_that_cannot_be_made_is_an_error_with_a_reason() {
    let folder = Folder::empty();
    std::fs::write(folder.path("file"), "").unwrap();
    let output = agnes().args(["--data-dir", folder.path("file/data").to_str().unwrap(), "catalog"]).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("not a directory"), "{}", text(&output.stderr));
}
