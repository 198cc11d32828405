//! The README's tour, run command by command: what it shows is what happens.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The command, beside the folder of this test's own binary.
fn agnes() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    assert!(folder.join("agnes").is_file(), "build it first: `make build`, or run `cargo test --workspace`");
    folder
}

/// Sizes and times differ from run to run; the width of a column with them.
fn steady(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for line in text.lines() {
        for word in line.split_whitespace() {
            let number = word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            match word {
                "B" | "KiB" | "MiB" | "ms" | "s" => *words.last_mut().unwrap() = "#".to_owned(),
                _ if number && word.len() > 2 && !word.contains('.') => words.push("#".to_owned()),
                _ => words.push(word.to_owned()),
            }
        }
        words.push("\n".to_owned());
    }
    words.join(" ")
}

#[test]
fn the_tour_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    std::fs::create_dir(&shop).unwrap();
    let orders = readme.split("$ cat shop/orders.csv\n").nth(1).unwrap().split("$ ").next().unwrap();
    std::fs::write(shop.join("orders.csv"), orders).unwrap();
    std::fs::write(shop.join("salaries.csv"), "name,salary\nAda,5000\nBob,4000\n").unwrap();

    let path = format!("{}:{}", agnes().display(), std::env::var("PATH").unwrap());
    let mut commands = 0;
    for block in readme.split("```console\n").skip(1) {
        for step in block.split("```").next().unwrap().split("$ ").filter(|step| !step.is_empty()) {
            let (command, expected) = step.split_once('\n').unwrap();
            let done = Command::new("sh")
                .args(["-c", &format!("{command} 2>&1")])
                .current_dir(place.path())
                .env("PATH", &path)
                .env_remove("DATA_DIR")
                .output()
                .unwrap();
            let shown = String::from_utf8(done.stdout).unwrap();
            assert_eq!(steady(&shown), steady(expected), "`{command}` shows\n{shown}");
            commands += 1;
        }
    }
    assert_eq!(commands, 10, "commands in the README's tour");
}
