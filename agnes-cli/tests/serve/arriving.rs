//! How somebody arrives at a server: with a browser, over TLS of an authority of their own, or at
//! nothing at all.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::browser::browser;
use super::laptop::{Laptop, files_below, text};
use super::mailbox::tools;
use super::world::{PASSWORD, World};

#[test]
fn somebody_signs_in_with_a_browser() {
    let (Some(browser), Some(tools)) = (browser(), tools("node_modules/playwright-core")) else { return };
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    let login = ["auth", "login", "--web", "--no-browser", "--server", &laptop.server];
    let mut waiting = laptop.command(&login).spawn().unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("Sign in at ").unwrap_or_else(|| panic!("no address: {line}"));
    let given = json!({
        "address": address, "email": "member@example.com", "password": PASSWORD, "tools": tools, "browser": browser,
    });
    let run = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/web_login.mjs"))
        .env("AGNES_PAGES", given.to_string())
        .output()
        .unwrap();
    if !run.status.success() {
        let _ = waiting.kill();
    }
    assert!(text(&run.stdout).contains("all held"), "{}{}", text(&run.stdout), text(&run.stderr));
    assert!(waiting.wait().unwrap().success());
    let me = laptop.json(&["auth", "whoami"]);
    assert_eq!((&me["email"], &me["token"]["type"]), (&json!("member@example.com"), &json!("pat")), "{me}");
    assert!(laptop.ok(&["catalog"]).contains("orders"), "the server that was signed in at is kept");
}

#[test]
fn the_question_of_a_sign_in_is_nowhere_but_in_its_address() {
    let laptop = Laptop::new("http://127.0.0.1:9");
    let temporary = laptop.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let login = ["auth", "login", "--web", "--no-browser", "--server", &laptop.server];
    let mut waiting = laptop.command(&login).env("TMPDIR", &temporary).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(waiting.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let (left, state) = (files_below(&temporary), line.trim().split_once("&state=").map(|(_, state)| state.len()));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert_eq!((left, state), (Vec::new(), Some(43)), "{line}");
}

#[test]
fn a_server_may_have_an_authority_of_its_own() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/tls.py"))
        .arg(world.server.address.port().to_string())
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let laptop = Laptop::new(&format!("https://127.0.0.1:{}", port.trim()));
    let run = |arguments: &[&str], authority: Option<&Path>| {
        let mut command = laptop.command(arguments);
        command.env("AGNES_TOKEN", world.token("member"));
        if let Some(file) = authority {
            command.env("AGNES_CA_FILE", file);
        }
        command.output().unwrap()
    };
    let catalog = ["catalog", "--server", &laptop.server, "--json"];
    let refused = run(&catalog, None);
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("certificate"), "{}", text(&refused.stderr));
    let authority = folder.path().join("ca.pem");
    let output = run(&catalog, Some(&authority));
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Setting up, pulling and asking go the same way.
    let output = run(&["init", "--server-url", &laptop.server, "--token", world.token("member")], Some(&authority));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 4}]));
    let output = run(&["query", "--remote", "select count(*)::int as n from orders", "--json"], Some(&authority));
    assert!(output.status.success() && text(&output.stdout).contains("4"), "{}", text(&output.stderr));
    // Kept with the server: a new shell needs not be told again; another server is not trusted for it.
    let output = run(&["catalog", "--json"], None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let port = laptop.server.rsplit(':').next().unwrap();
    assert_eq!(run(&["catalog", "--server", &format!("https://localhost:{port}")], None).status.code(), Some(7));
    for bad in ["leaf.key", "nothing.pem"] {
        let output = run(&catalog, Some(&folder.path().join(bad)));
        assert!(!output.status.success(), "{bad}");
        assert!(text(&output.stderr).contains("bad_certificates"), "{bad}: {}", text(&output.stderr));
    }
    let _ = proxy.kill();
    let _ = proxy.wait();
}

#[test]
fn reading_makes_no_data_folder() {
    let laptop = Laptop::new("");
    for arguments in [
        &["query", "select 1"] as &[&str],
        &["catalog"],
        &["schema", "orders"],
        &["describe", "orders"],
        &["sample", "orders"],
        &["profile", "orders"],
        &["manifest"],
        &["source", "list"],
        &["gc"],
        &["mcp"],
    ] {
        let told = laptop.fails(2, arguments);
        assert!(told.contains("agnes init") && told.contains("--data-dir"), "{arguments:?}: {told}");
        assert!(files_below(&laptop.folder()).is_empty() && !laptop.path("data").exists(), "{arguments:?}");
    }
    // Whoever begins one does.
    laptop.ok(&["admin", "group", "create", "analysts"]);
    assert!(laptop.path("data").is_dir());
    laptop.ok(&["catalog"]);
}
