//! `docs/errors.md` names every code there is, and no other.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Texts in double quotes that look like a code.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2).filter(|word| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

/// Codes that `impl Coded` blocks of this file answer.
fn codes(text: &str) -> Vec<String> {
    let text = text.split("mod tests {").next().unwrap_or_default();
    let mut found: Vec<String> = text
        .split("fn code(&self)")
        .skip(1)
        .flat_map(|rest| quoted(rest.split("\n    }").next().unwrap_or_default()))
        .map(ToOwned::to_owned)
        .collect();
    // Variants that carry their code.
    found.extend(text.split("code: ").skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix('"')?;
        quoted(&format!("\"{}\"", rest.split('"').next()?)).next().map(ToOwned::to_owned)
    }));
    found
}

/// Codes that the server answers by itself: after a status, or of a status.
fn codes_of_server(text: &str) -> Vec<String> {
    let text = text.split("mod tests {").next().unwrap_or_default();
    let first = |rest: &str| {
        let rest = rest.trim_start().strip_prefix('"')?;
        quoted(&format!("\"{}\"", rest.split('"').next()?)).next().map(ToOwned::to_owned)
    };
    let after_status = text.split("StatusCode::").skip(1).filter_map(|rest| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == '_');
        first(rest.strip_prefix(',').or_else(|| rest.strip_prefix(" => ("))?)
    });
    let of_the_rest = text.split("_ => (").skip(1).filter_map(first);
    after_status.chain(of_the_rest).collect()
}

fn in_server() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join("agnes-http/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.extend(codes_of_server(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

fn in_code() -> BTreeSet<String> {
    let root = root();
    let mut found = BTreeSet::new();
    let mut folders = ["agnes-core/src", "agnes-connectors/src"].map(|member| root.join(member)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                found.extend(codes(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

fn in_docs() -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let codes = page.split("\n## The codes, by subject\n").nth(1).unwrap();
    codes
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next().map(ToOwned::to_owned))
        .collect()
}

/// Codes of the table of the server.
fn in_docs_of_server() -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let section = page.split("Codes of the server alone").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|line| line.split('`').next().map(ToOwned::to_owned)).collect()
}

/// The statuses of this table are held against the server by a test of its own.
#[test]
fn the_page_names_every_code_of_the_server() {
    let (code, docs) = (in_server(), in_docs_of_server());
    assert!(code.len() > 15, "found only {code:?}: is the scan broken?");
    let engine = in_code();
    let missing: Vec<_> = code.iter().filter(|code| !docs.contains(*code) && !engine.contains(*code)).collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
    let gone: Vec<_> = docs.difference(&code).collect();
    assert!(gone.is_empty(), "docs/errors.md still names {gone:?}");
}

#[test]
fn the_page_names_every_code() {
    let (code, docs) = (in_code(), in_docs());
    assert!(code.len() > 60, "found only {} codes: is the scan broken?", code.len());
    let missing: Vec<_> = code.difference(&docs).collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
}

#[test]
fn the_page_names_no_code_that_is_gone() {
    let root = root();
    let mut text = String::new();
    let mut folders = ["agnes-core/src", "agnes-connectors/src", "agnes-py/src"].map(|m| root.join(m)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let gone: Vec<_> = in_docs().into_iter().filter(|code| !text.contains(&format!("\"{code}\""))).collect();
    assert!(gone.is_empty(), "docs/errors.md still names {gone:?}");
}
