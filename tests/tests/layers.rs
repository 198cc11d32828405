//! Who may depend on whom, and which crate a module may name: the rules of
//! `docs/ARCHITECTURE.md`, held by a test.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Direct dependencies of every member, but those only its tests use.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let told = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: Value = serde_json::from_slice(&told.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap();
            (name(package), all.iter().filter(|dependency| dependency["kind"] != "dev").map(name).collect())
        })
        .collect()
}

#[test]
fn crates_point_inwards() {
    let dependencies = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("agnes-core", &[] as &[&str]),
        ("agnes-connectors", &["agnes-core"]),
        // For the one HTTP client: signing in elsewhere and mail keep to the rules of the sources.
        ("agnes-http", &["agnes-core", "agnes-connectors"]),
        // The composition roots: they alone see the traits and the implementations.
        ("agnes-cli", &["agnes-core", "agnes-connectors", "agnes-http"]),
        ("agnes-py", &["agnes-core", "agnes-connectors"]),
        ("agnes-examples", &["agnes-core", "agnes-connectors"]),
        ("agnes-benches", &["agnes-core", "agnes-connectors"]),
        ("agnes-tests", &[]),
    ]);
    let known: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(known, allowed.keys().copied().collect(), "a member without a rule, or a rule without a member");
    for (member, names) in &dependencies {
        for name in names.iter().filter(|name| name.starts_with("agnes-")) {
            assert!(allowed[member.as_str()].contains(&name.as_str()), "`{member}` must not depend on `{name}`");
        }
    }
}

#[test]
fn outside_crates_keep_to_one_home() {
    let dependencies = dependencies();
    for (outside, homes) in [
        ("axum", &["agnes-http"] as &[&str]),
        ("clap", &["agnes-cli"]),
        ("pyo3", &["agnes-py"]),
        // Benchmarks compare with it, an example plays a producer that knows nothing of Agnes.
        ("duckdb", &["agnes-core", "agnes-benches", "agnes-examples"]),
        ("sqlparser", &["agnes-core"]),
        // Who calls out keeps to the rules of `outbound`; the command calls its operator's own server,
        // which those rules would refuse.
        ("reqwest", &["agnes-connectors", "agnes-cli"]),
    ] {
        for (member, names) in &dependencies {
            assert!(
                homes.contains(&member.as_str()) || !names.contains(outside),
                "`{member}` must not depend on `{outside}`: its home is {homes:?}"
            );
        }
    }
}

/// Every Rust file of the workspace, with its path below the root and its text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["agnes-core", "agnes-connectors", "agnes-http", "agnes-cli", "agnes-py", "examples", "benches", "tests"]
            .iter()
            .map(|member| root.join(member))
            .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
                files.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 30, "found only {} files: is the walk broken?", files.len());
    files
}

/// The text without comment lines and without the `mod tests` at its foot.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("mod tests {"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

/// Whether `line` names the crate `name` (`name::..`, `::name::..`).
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        // `::name::` is the crate, `store::name::` is a module.
        let before = line[..at].strip_suffix("::").unwrap_or(&line[..at]);
        !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':'))
    })
}

#[test]
fn only_the_bridge_names_the_engine() {
    check_homes(
        "duckdb",
        &[
            "agnes-core/src/duck/",
            "agnes-core/src/store/duckdb/",
            // An extract and the master are DuckDB files; these read and write them.
            "agnes-core/src/extract/",
            "agnes-core/src/orchestrator/",
            // So is the database of a workspace.
            "agnes-core/src/workspace/views.rs",
        ],
    );
}

#[test]
fn only_where_text_of_others_is_read_is_the_second_parser() {
    check_homes(
        "sqlparser",
        &[
            "agnes-core/src/sandbox/",
            "agnes-core/src/scan/",
            "agnes-core/src/orchestrator/remote_view.rs",
            "agnes-core/src/warehouse/reads.rs",
        ],
    );
}

#[test]
fn only_one_place_reaches_out() {
    check_homes(
        "reqwest",
        &[
            "agnes-connectors/src/outbound/",
            // A server that its user named: the rules about addresses are not for it.
            "agnes-connectors/src/server/",
            "agnes-cli/src/commands/scheduler.rs",
        ],
    );
}

/// Production code names the crate `name` only below `homes`.
fn check_homes(name: &str, homes: &[&str]) {
    let found: Vec<String> = sources()
        .iter()
        .filter(|(file, _)| file.starts_with("agnes-") && file.contains("/src/") && !file.ends_with("tests.rs"))
        .filter(|(file, _)| !homes.iter().any(|home| file.starts_with(home)))
        .flat_map(|(file, text)| {
            code(text).filter(|(_, line)| names_crate(line, name)).map(move |(number, _)| format!("{file}:{number}"))
        })
        .collect();
    assert!(found.is_empty(), "`{name}` is named outside {homes:?}: {found:#?}");
}

#[test]
fn adapters_hold_no_sql() {
    let starts =
        ["SELECT ", "INSERT ", "UPDATE ", "DELETE FROM", "ATTACH ", "CREATE TABLE", "CREATE VIEW", "COPY ", "PRAGMA "];
    let found: Vec<String> = sources()
        .iter()
        .filter(|(file, _)| {
            ["agnes-http/src/", "agnes-cli/src/", "agnes-py/src/"].iter().any(|adapter| file.starts_with(adapter))
        })
        .flat_map(|(file, text)| {
            code(text)
                .filter(|(_, line)| starts.iter().any(|start| line.contains(&format!("\"{start}"))))
                .map(move |(number, line)| format!("{file}:{number}: {}", line.trim()))
        })
        .collect();
    assert!(found.is_empty(), "SQL in an adapter belongs in agnes-core: {found:#?}");
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! ") && !text.starts_with("#![doc = include_str!("))
        .map(|(file, _)| file)
        .collect();
    assert!(silent.is_empty(), "the first line must be a `//!` comment: {silent:#?}");
}

#[test]
fn the_scan_sees_what_it_should() {
    for (line, named) in [
        ("use duckdb::Connection;", true),
        ("fn f(c: &::duckdb::Connection) {}", true),
        ("::duckdb::Connection::open()", true),
        ("use crate::store::duckdb::Store;", false),
        ("pub(crate) use super::duckdb::Store;", false),
        ("let libduckdb::x = 1;", false),
    ] {
        assert_eq!(names_crate(line, "duckdb"), named, "{line}");
    }
    let text = "//! doc\nlet a = 1;\n// note\n#[cfg(test)]\nmod tests {\n    let b = 2;\n}\n";
    assert_eq!(code(text).map(|(number, _)| number).collect::<Vec<_>>(), [2, 4]);
}
