//! `agnes query` without a query: a shell on a terminal, else statements of standard input.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::laptop::{Laptop, text};
use super::process::BINARY;
use super::world::World;

/// Talks to the shell on a terminal; its history has to be in `history`.
fn talk(laptop: &Laptop, mode: &str, history: &Path, arguments: &[&str]) {
    let of = laptop.command(&[]);
    let mut python = Command::new("python3");
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/shell.py")).arg(history).arg(BINARY);
    python.arg("query").args(arguments).current_dir(laptop.folder()).env_clear();
    for (name, value) in of.get_envs() {
        python.env(name, value.unwrap());
    }
    python.env("PATH", std::env::var_os("PATH").unwrap());
    let output = python.output().unwrap();
    assert!(output.status.success(), "{mode}: {}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn a_shell_asks_a_workspace() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    talk(&laptop, "workspace", &laptop.path(".agnes/query_history"), &[]);
}

#[test]
fn a_shell_asks_a_server() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    talk(&laptop, "server", &laptop.home().join(".config/agnes/query_history"), &["--remote"]);
}

#[test]
fn a_shell_asks_a_data_folder() {
    // The server holds the folder; the shell is served by it, and has the place to itself after that.
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    let history = laptop.home().join(".config/agnes/query_history");
    let folder = world.server.folder.path().to_str().unwrap().to_owned();
    talk(&laptop, "folder", &history, &["--data-dir", &folder]);
    world.server.signal("TERM");
    let (_, folder) = world.server.ended();
    std::fs::remove_file(&history).unwrap();
    talk(&laptop, "folder", &history, &["--data-dir", folder.path().to_str().unwrap()]);
}

#[test]
fn statements_come_from_standard_input_too() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    for more in [&[] as &[&str], &["--remote"]] {
        let ask = |input: &str, format: &[&str]| laptop.with_input(&[&["query"], more, format].concat(), input);
        let output = ask("select 1 as a; -- one\nselect ';' as b\n;\nselect count(*) as c from orders", &["-f", "csv"]);
        assert_eq!(text(&output.stdout), "a\n1\nb\n;\nc\n4\n", "{}", text(&output.stderr));
        assert!(output.status.success());
        // The first that fails ends it.
        let output = ask("select 1 as a;\nselect * from people;\nselect 2 as b;\n", &["-f", "csv"]);
        assert_eq!(text(&output.stdout), "a\n1\n");
        assert!(!output.status.success() && text(&output.stderr).contains("people"), "{}", text(&output.stderr));
        // Commands of the shell work there too.
        let output = ask("\\dt\n\\f csv\nselect id from orders where id = 3;\n\\q\nselect 1;\n", &[]);
        let shown = text(&output.stdout);
        assert!(shown.contains("orders") && shown.ends_with("id\n3\n"), "{shown}{}", text(&output.stderr));
        // For a program: one document a line, of one statement as of many.
        let output =
            ask("select 1 as a;\nselect id from orders order by id limit 2;select 1 as a where false", &["--json"]);
        let shown = text(&output.stdout);
        let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [json!([{"a": 1}]), json!([{"id": 1}, {"id": 2}]), json!([])], "{shown}");
        assert_eq!(text(&ask("select 1 as a", &["-f", "json"]).stdout), "[{\"a\":1}]\n");
        let output = ask("select 1 as a;\n\\dt\n", &["--json"]);
        assert_eq!((text(&output.stdout), output.status.code()), ("[{\"a\":1}]\n".to_owned(), Some(2)));
        let output = ask("select 1;select 2", &["-f", "arrow"]);
        assert!(output.status.code() == Some(2) && text(&output.stderr).contains("one statement"));
        let output = ask(" -- nothing\n;", &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
}
