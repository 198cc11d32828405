//! The initial workspace: a repository of git whose files `agnes init` writes, from an admin's word to a laptop.

use std::io::Read as _;

use serde_json::{Value, json};

use super::access::told;
use super::gits::{GIT_TOKEN, Gits};
use super::laptop::{Laptop, text};
use super::process::is_secret;
use super::world::World;

const ADMIN: &str = "/api/admin/initial-workspace";
const OFFER: &str = "/api/initial-workspace";

/// A server that may ask this machine for repositories.
fn world() -> (World, Gits, tempfile::TempDir) {
    let (gits, config) = (Gits::start(), super::jira::config());
    is_secret(GIT_TOKEN);
    let world = World::start_with(&[], &[("CONFIG_DIR", config.path().to_str().unwrap())]);
    (world, gits, config)
}

const GUIDE: &str = "# {{ instance.name }} at {{ server.url }}\n";

fn files() -> [(&'static str, &'static str); 5] {
    [
        ("README.md", "not of the workspace"),
        ("workspace/CLAUDE.md", GUIDE),
        ("workspace/.claude/settings.json", "{\"model\": \"theirs\"}\n"),
        ("workspace/macros/x.md", "{{ ref('orders') }}\n"),
        ("workspace/bin/check.sh", "#!/bin/sh\necho checked\n"),
    ]
}

fn register(world: &World, body: Value) -> super::process::Answer {
    world.send("admin", "POST", ADMIN, &body)
}

fn names(world: &World) -> Vec<(String, String)> {
    let log = world.get("admin", "/api/admin/activity?action_prefix=initial_workspace.").json();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    log["rows"].as_array().unwrap().iter().map(|row| (text(row, "action"), text(row, "result"))).collect()
}

#[test]
fn an_admin_names_a_repository_and_its_files_are_served() {
    let (world, gits, _config) = world();
    let commit = gits.commit("team.git", &files());
    assert_eq!(world.get("admin", ADMIN).json(), json!({"configured": false, "has_token": false}));
    assert_eq!(world.get("member", OFFER).json(), json!({"configured": false, "synced": false, "files": []}));
    assert_eq!(world.get("member", "/api/initial-workspace.zip").status, 404);
    for path in [ADMIN.to_owned(), format!("{ADMIN}/sync")] {
        assert_eq!(world.send("member", "POST", &path, &json!({"url": gits.url("team.git")})).status, 403);
    }
    let view = register(&world, json!({"url": gits.url("team.git")}));
    assert_eq!(view.status, 200, "{}", view.text());
    let view = view.json();
    let paths = [".claude/settings.json", "CLAUDE.md", "bin/check.sh", "macros/x.md"];
    assert_eq!((&view["commit_sha"], &view["files"]), (&json!(commit), &json!(paths)), "{view}");
    assert_eq!((&view["unrendered"], &view["has_token"]), (&json!(["macros/x.md"]), &json!(false)), "{view}");
    let offer = world.get("narrow", OFFER).json();
    assert_eq!((&offer["template_sha"], &offer["synced"]), (&json!(commit), &json!(true)), "{offer}");

    // The archive: rendered, the same whoever asks, known by its commit.
    let zip = world.get("narrow", "/api/initial-workspace.zip");
    assert_eq!((zip.status, zip.header("content-type")), (200, Some("application/zip")));
    let tag = format!("\"{commit}\"");
    assert_eq!(zip.header("etag"), Some(tag.as_str()));
    assert_eq!(world.get("admin", "/api/initial-workspace.zip").body, zip.body);
    let kept = format!("{}If-None-Match: {tag}\r\n", world.authorization("member"));
    let same = world.server.get_with("/api/initial-workspace.zip", &kept);
    assert_eq!((same.status, same.body.len()), (304, 0));
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip.body)).unwrap();
    let mut content = |name: &str| {
        let (mut entry, mut text) = (archive.by_name(name).unwrap(), String::new());
        entry.read_to_string(&mut text).unwrap();
        (text, entry.unix_mode().unwrap() & 0o777)
    };
    assert_eq!(content("CLAUDE.md"), (format!("# Acme at http://{}\n", world.server.address), 0o644));
    assert_eq!(content("macros/x.md").0, "{{ ref('orders') }}\n");
    assert_eq!(content("bin/check.sh").1, 0o755);
    // Who is signed out signs in with a browser, and is told so otherwise.
    assert_eq!(world.get("nobody", "/api/initial-workspace.zip").status, 401);
    let browser = world.server.get_with("/api/initial-workspace.zip", "Accept: text/html\r\n");
    assert_eq!(
        (browser.status, browser.header("location").is_some_and(|to| to.starts_with("/login?next="))),
        (302, true)
    );

    // The next commit; and one that does not come leaves what is here.
    let next = gits.commit("team.git", &[("workspace/CLAUDE.md", "next")]);
    let synced = world.send("admin", "POST", &format!("{ADMIN}/sync"), &Value::Null);
    assert_eq!(synced.json(), json!({"action": "update", "commit": next, "files": 1}), "{}", synced.text());
    gits.commit("team.git", &[("other/x", "")]);
    let failed = world.send("admin", "POST", &format!("{ADMIN}/sync"), &Value::Null);
    assert_eq!(told(&failed), (400, "initial_workspace_invalid".to_owned()), "{}", failed.text());
    let view = world.get("admin", ADMIN).json();
    assert_eq!(view["commit_sha"], json!(next), "{view}");
    assert!(view["last_error"].as_str().unwrap().contains("`workspace/`"), "{view}");
    assert_eq!(world.get("member", OFFER).json()["synced"], true);

    assert_eq!(world.send("admin", "DELETE", &format!("{ADMIN}?purge=true"), &Value::Null).status, 204);
    assert_eq!(world.send("admin", "DELETE", ADMIN, &Value::Null).status, 404);
    assert_eq!(world.get("member", OFFER).json()["configured"], false);
    let names = names(&world);
    for (action, result) in [
        ("initial_workspace.register", "success"),
        ("initial_workspace.sync", "success"),
        ("initial_workspace.sync_failed", "error.initial_workspace_invalid"),
        ("initial_workspace.fetch_started", "success"),
        ("initial_workspace.delete", "success"),
    ] {
        assert!(names.contains(&(action.to_owned(), result.to_owned())), "{action}: {names:?}");
    }
}

#[test]
fn a_token_goes_to_its_host_alone_and_is_nowhere_to_be_read() {
    let (world, gits, _config) = world();
    gits.commit("private/team.git", &files());
    let url = gits.url("private/team.git");
    let refused = register(&world, json!({"url": url}));
    assert_eq!(told(&refused), (502, "git_failed".to_owned()), "{}", refused.text());
    let refused = register(&world, json!({"url": url, "token": "another"}));
    assert_eq!(told(&refused), (502, "git_failed".to_owned()), "{}", refused.text());
    assert!(!refused.text().contains("another") && !refused.text().contains("/tmp"), "{}", refused.text());
    assert_eq!(world.get("admin", ADMIN).json()["configured"], false);
    let taken = register(&world, json!({"url": url, "token": GIT_TOKEN}));
    assert_eq!((taken.status, &taken.json()["has_token"]), (200, &json!(true)), "{}", taken.text());
    // The same host: the token that is kept.
    assert_eq!(register(&world, json!({"url": url})).status, 200);
    assert_eq!(world.send("admin", "POST", &format!("{ADMIN}/sync"), &Value::Null).status, 200);
    // Another host: none is sent, and none is kept.
    let other = Gits::start();
    other.commit("team.git", &files());
    assert_eq!(register(&world, json!({"url": other.url("team.git")})).json()["has_token"], false);
    assert!(other.asked.lock().unwrap().iter().all(|head| !head.to_lowercase().contains("authorization")));
    assert_eq!(told(&register(&world, json!({"url": url}))).0, 502, "it was forgotten");
}

#[test]
fn what_a_repository_may_not_be_is_refused() {
    let (world, gits, _config) = world();
    gits.commit("team.git", &files());
    let taken = register(&world, json!({"url": gits.url("team.git"), "branch": "main"}));
    assert_eq!(taken.status, 200, "{}", taken.text());
    gits.commit_with("links.git", |folder| {
        std::fs::create_dir(folder.join("workspace")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("workspace/passwd")).unwrap();
    });
    gits.commit("reserved.git", &[("workspace/.claude/init-complete", "{}")]);
    gits.commit("empty.git", &[("README.md", "x")]);
    gits.commit("large.git", &[("workspace/a", &"x".repeat(33 << 20))]);
    for name in ["links.git", "reserved.git", "empty.git", "large.git"] {
        let answer = register(&world, json!({"url": gits.url(name)}));
        assert_eq!(told(&answer), (400, "initial_workspace_invalid".to_owned()), "{name}: {}", answer.text());
    }
    for (body, status, code) in [
        (json!({"url": gits.url("nothing.git")}), 502, "git_failed"),
        (json!({"url": gits.url("moved.git")}), 502, "git_failed"),
        (json!({"url": gits.url("team.git"), "branch": "no"}), 502, "git_failed"),
        (json!({"url": gits.url("team.git"), "branch": "--upload-pack=id"}), 400, "bad_branch"),
        (json!({"url": "https://localhost/team.git"}), 400, "private_url"),
        (json!({"url": "http://192.0.2.1/team.git"}), 400, "private_url"),
        (json!({"url": "ext::sh -c id"}), 400, "private_url"),
        (json!({"url": "file:///etc"}), 400, "private_url"),
        (json!({"url": "git@127.0.0.1:team.git"}), 400, "private_url"),
        (json!({"url": format!("http://u:p@{}/team.git", gits.address)}), 400, "private_url"),
        (json!({"url": gits.url("team.git?private_token=s3cret")}), 422, "invalid_field"),
        (
            json!({"url": gits.url("team.git"), "token": "x\nKEBOOLA_STACK_URL=https://evil.example"}),
            422,
            "invalid_field",
        ),
    ] {
        let answer = register(&world, body.clone());
        assert_eq!(told(&answer), (status, code.to_owned()), "{body}: {}", answer.text());
    }
    let view = world.get("admin", ADMIN).json();
    assert_eq!((&view["url"], &view["branch"]), (&json!(gits.url("team.git")), &json!("main")), "nothing changed");
    let log = world.get("admin", "/api/admin/activity?action_prefix=initial_workspace.&limit=100").text();
    assert!(log.contains("/team.git") && !log.contains("u:p@") && !log.contains("s3cret"), "{log}");
    // Another branch has its own files.
    gits.commit("team.git", &[("workspace/CLAUDE.md", "of the branch")]);
    gits.branch("team.git", "next");
    gits.commit("team.git", &[("workspace/CLAUDE.md", "main"), ("workspace/b", "main")]);
    let taken = register(&world, json!({"url": gits.url("team.git"), "branch": "next"}));
    assert_eq!(taken.json()["files"], json!(["CLAUDE.md"]), "{}", taken.text());
}

#[test]
fn a_laptop_begins_with_the_files_of_the_repository() {
    let (world, gits, _config) = world();
    let commit = gits.commit("team.git", &files());
    let admin = Laptop::new(&format!("http://{}", world.server.address));
    let at = ["--server", &admin.server];
    let signed =
        admin.with_input(&["auth", "import-token", "--server", &admin.server, "--token", "-"], world.token("admin"));
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    assert!(admin.ok(&["admin", "initial-workspace", "show"]).contains("no repository"));
    let url = gits.url("team.git");
    let shown = admin.ok(&[&["admin", "initial-workspace", "set", &url][..], &at[..]].concat());
    assert!(shown.contains(&commit) && shown.contains("bin/check.sh"), "{shown}");

    let laptop = Laptop::new(&admin.server);
    let out = laptop.set_up(world.token("member"), &[]);
    assert!(out.contains("4 files") && out.contains(&url), "{out}");
    let read = |below: &str| std::fs::read_to_string(laptop.path(below)).unwrap();
    assert_eq!(read("CLAUDE.md"), format!("# Acme at {}\n", laptop.server));
    assert_eq!(read(".claude/settings.json"), "{\"model\": \"theirs\"}\n", "no hooks are put into it");
    for absent in ["AGNES_WORKSPACE.md", ".claude/commands", ".claude/CLAUDE.local.md"] {
        assert!(!laptop.path(absent).exists(), "{absent}");
    }
    let done: Value = serde_json::from_str(&read(".claude/init-complete")).unwrap();
    assert_eq!(
        (&done["override"], &done["template_source"], &done["template_sha"]),
        (&json!(true), &json!(url), &json!(commit))
    );
    assert_eq!(laptop.asks("select count(*)::int as n from orders"), json!([{"n": 4}]));
    assert!(laptop.ok(&["diagnose", "--component", "hooks"]).contains(&commit));
    let applied = || {
        let log = world.get("admin", "/api/admin/activity?action_prefix=initial_workspace.applied").json();
        log["rows"].as_array().unwrap().iter().map(|row| row["params"].clone()).collect::<Vec<_>>()
    };
    let fresh = json!({"mode": "fresh_install", "template_sha": commit, "files_overwritten": 0, "files_created": 4});
    assert_eq!(applied(), [fresh]);

    // Again: nothing that somebody wrote is lost without a word.
    std::fs::write(laptop.path("CLAUDE.md"), "mine").unwrap();
    let again = ["init", "--server-url", &laptop.server, "--force"];
    let told = laptop.fails(2, &again);
    assert!(told.contains("CLAUDE.md") && told.contains("--yes"), "{told}");
    assert_eq!(read("CLAUDE.md"), "mine");
    let summary = laptop.json(&[&again[..], &["--yes"]].concat());
    assert_eq!(
        (&summary["template"]["overwritten"], &summary["template"]["created"]),
        (&json!(1), &json!(0)),
        "{summary}"
    );
    assert_eq!(read("CLAUDE.md"), format!("# Acme at {}\n", laptop.server));
    assert!(applied().iter().any(|row| row["mode"] == "force_overwrite" && row["files_overwritten"] == 1));

    // A link in the way is not followed.
    let outside = laptop.home().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    std::fs::remove_file(laptop.path("CLAUDE.md")).unwrap();
    std::os::unix::fs::symlink(&outside, laptop.path("CLAUDE.md")).unwrap();
    let told = laptop.fails(5, &[&again[..], &["--yes"]].concat());
    assert!(told.contains("in the way"), "{told}");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "mine");

    assert!(admin.json(&["admin", "initial-workspace", "sync"])["commit"] == commit.as_str());
    admin.ok(&["admin", "initial-workspace", "remove", "--yes", "--purge"]);
    let usual = Laptop::new(&admin.server);
    usual.set_up(world.token("member"), &["--no-pull"]);
    assert!(usual.path("AGNES_WORKSPACE.md").exists(), "the usual files again");
}
