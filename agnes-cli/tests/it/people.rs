//! `agnes admin user` and `agnes admin token`: people, links, passwords.

use std::io::Write as _;
use std::process::Stdio;

use crate::{Folder, text};

#[test]
fn a_person_is_invited_shown_and_given_a_password() {
    let folder = Folder::governed();
    let args = ["admin", "user", "add", "new@example.com", "--name", "Nina", "--group", "analysts", "--invite"];
    let made = folder.json(&args);
    let link = made["invite_url"].as_str().unwrap();
    assert!(link.starts_with("/auth/password/setup?email=new%40example.com&token="), "{link}");
    assert_eq!(made["invite_email_sent"], false);
    let shown = folder.json(&["admin", "user", "show", "new@"]);
    let groups: Vec<&str> = shown["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!((groups, &shown["has_password"]), (vec!["Everyone", "analysts"], &false.into()));
    let list = |more: &[&str]| folder.json(&[&["admin", "user", "list"], more].concat()).as_array().unwrap().len();
    assert_eq!((list(&[]), list(&["--search", "NINA"]), list(&["--active", "false"])), (3, 1, 0));
    let again = folder.json(&["admin", "user", "invite", "new@example.com"]);
    assert_ne!(again["link"], made["invite_url"], "the new link takes the place of the old one");
    let reset = folder.json(&["admin", "reset-password", "new@example.com"]);
    assert!(reset["link"].as_str().unwrap().starts_with("/auth/password/reset?"), "{reset}");
    assert!(folder.ok(&["admin", "user", "reset-password", "new"]).contains("/auth/password/reset?"));
    folder.fails(8, &["admin", "user", "invite", "nobody@example.com"]);
    folder.fails(8, &["admin", "user", "add", "x@example.com", "--group", "none"]);
    assert_eq!(list(&[]), 3, "nobody is made whose group is not there");
}

#[test]
fn a_password_comes_from_standard_input_alone() {
    let folder = Folder::governed();
    // Nobody is there to be asked.
    folder.fails(2, &["admin", "user", "set-password", "ann"]);
    let told = folder.fails(2, &["admin", "user", "set-password", "ann", "--password", "correct horse battery"]);
    assert!(!told.contains("correct horse"), "{told}");
    let set = |password: &str, more: &[&str]| {
        let args = [&["admin", "set-password", "ann", "--password", "-", "--json"], more].concat();
        let mut child = folder.command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    assert_eq!(set("short\n", &[]).0, Some(2));
    let (code, out) = set("correct horse battery\n", &[]);
    assert_eq!(code, Some(0));
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&out["email"], &out["must_change"]), (&"ann@example.com".into(), &true.into()));
    assert_eq!(set("another horse battery\r\n", &["--keep"]).0, Some(0));
    assert_eq!(folder.json(&["admin", "user", "show", "ann"])["has_password"], true);
    let rows = folder.ok(&["admin", "audit", "list", "--json"]);
    assert!(rows.contains("user.set_password") && !rows.contains("horse"));
}

#[test]
fn tokens_and_requests_of_nobody_are_listed_as_none() {
    let folder = Folder::governed();
    for args in
        [&["admin", "token", "list"][..], &["admin", "access-request", "list"], &["admin", "access-requests", "list"]]
    {
        assert_eq!(folder.json(args), serde_json::json!([]), "{args:?}");
    }
    folder.fails(8, &["admin", "token", "revoke", "none", "--yes"]);
    folder.fails(2, &["admin", "token", "revoke", "none"]);
    folder.fails(8, &["admin", "access-request", "deny", "none"]);
    folder.fails(8, &["admin", "access-request", "approve", "none", "--group", "analysts"]);
}
