//! Programs that write an extract themselves: what they can reach, how long, and what of a bad
//! one is seen.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{Folder, text};

fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name).join("extractor");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// An extract as a program would write it, by another data folder.
fn template() -> Folder {
    let folder = Folder::empty();
    std::fs::create_dir_all(folder.files()).unwrap();
    std::fs::write(folder.files().join("leads.csv"), "id,name\n1,Ada\n2,Bob\n").unwrap();
    folder.ok(&["source", "add", "shop", "--path", folder.files().to_str().unwrap()]);
    folder.ok(&["sync"]);
    folder
}

fn sync(folder: &Folder, settings: &str) -> serde_json::Value {
    std::fs::create_dir_all(folder.path("config")).unwrap();
    let needed =
        "instance: {name: x}\nauth: {allowed_domain: example.com}\nserver: {host: 127.0.0.1, hostname: localhost}\n";
    std::fs::write(folder.path("config/instance.yaml"), format!("{needed}{settings}")).unwrap();
    let output = folder
        .command(&["sync", "--json"])
        .env("CONNECTORS_DIR", folder.path("connectors"))
        .env("CRM_TOKEN", "hunter2-crm")
        .env("OTHER_TOKEN", "hunter2-other")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    for secret in ["hunter2-crm", "hunter2-other"] {
        assert!(!text(&output.stderr).contains(secret) && !text(&output.stdout).contains(secret));
    }
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_program_brings_its_tables_with_its_own_credentials_only() {
    let other = template();
    let folder = Folder::synced();
    let connectors = folder.path("connectors");
    // What it is to copy has to lie where it may read.
    std::fs::create_dir_all(connectors.join("crm")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(other.data().join("extracts/shop"))
        .arg(connectors.join("crm/extract"))
        .status()
        .unwrap();
    assert!(copied.success());
    program(
        &connectors,
        "crm",
        "cp -r extract/. \"$DATA_DIR/extracts/crm/\"\n\
         out=\"$DATA_DIR/extracts/crm/probe.txt\"\n\
         env > \"$out\"\n\
         echo \"token $CRM_TOKEN\" >&2\n\
         cat \"$DATA_DIR/state/system.duckdb\" > /dev/null 2>&1 && echo read-state >> \"$out\"\n\
         ls \"$DATA_DIR/extracts/shop\" > /dev/null 2>&1 && echo read-other >> \"$out\"\n\
         touch \"$DATA_DIR/extracts/other\" 2> /dev/null && echo wrote-other >> \"$out\"\n\
         cat /proc/$PPID/environ > /dev/null 2>&1 && echo read-environment >> \"$out\"\n\
         touch \"$TMPDIR/mine\" && echo scratch >> \"$out\"",
    );
    program(&connectors, "failing", "exit 3");
    program(&connectors, "not-a-name", "exit 0");
    std::fs::write(connectors.join("readme.md"), "no program").unwrap();
    let run = sync(&folder, "connectors: {env: ['crm=CRM_TOKEN', 'failing=OTHER_TOKEN']}\n");
    let rows = folder.ok(&["query", "SELECT string_agg(name, ' ' ORDER BY id) AS names FROM leads", "--format", "csv"]);
    assert_eq!(rows.trim(), "names\nAda Bob");
    let probe = std::fs::read_to_string(folder.data().join("extracts/crm/probe.txt")).unwrap();
    assert!(probe.contains("CRM_TOKEN=hunter2-crm") && probe.contains("scratch"), "{probe}");
    assert!(!probe.contains("OTHER_TOKEN") && !probe.contains("CONNECTORS_DIR"), "{probe}");
    for reached in ["read-state", "read-other", "wrote-other", "read-environment"] {
        assert!(!probe.contains(reached), "{probe}");
    }
    let told = run.to_string();
    assert!(told.contains("the program of `failing` ended with status 3"), "{told}");
    assert!(told.contains("not-a-name"), "{told}");
    assert_eq!(folder.ok(&["query", "SELECT count(*) AS n FROM orders", "--format", "csv"]).trim(), "n\n4");
}

#[test]
fn a_program_that_does_not_end_is_ended_with_all_it_started() {
    let folder = Folder::synced();
    program(
        &folder.path("connectors"),
        "slow",
        "(sleep 300; echo late) &\necho $! > \"$DATA_DIR/extracts/slow/child\"\nsleep 300",
    );
    let run = sync(&folder, "connectors: {timeout_seconds: 1}\n");
    assert!(run.to_string().contains("took longer than 1 s"), "{run}");
    let child = std::fs::read_to_string(folder.data().join("extracts/slow/child")).unwrap();
    // Its number may be somebody else's by now; a shell that sleeps for it is not.
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", child.trim())).unwrap_or_default();
    assert!(!command.contains("sleep"), "{command}");
}
