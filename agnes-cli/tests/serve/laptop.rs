//! Somebody's computer: signs in at a server, works in a folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::process::BINARY;
use super::world::World;

pub(crate) struct Laptop {
    home: tempfile::TempDir,
    pub(crate) server: String,
}

impl Laptop {
    /// Of somebody who is not signed in yet.
    pub(crate) fn new(server: &str) -> Self {
        Self { home: tempfile::tempdir().unwrap(), server: server.to_owned() }
    }

    /// Of somebody whose home is in `folder`.
    pub(crate) fn inside(folder: &Path, server: &str) -> Self {
        Self { home: tempfile::tempdir_in(folder).unwrap(), server: server.to_owned() }
    }

    /// Of `who`, whose workspace is set up and holds the tables.
    pub(crate) fn of(world: &World, who: &str) -> Self {
        let laptop = Self::new(&format!("http://{}", world.server.address));
        laptop.set_up(world.token(who), &[]);
        laptop
    }

    /// Sets the workspace up, which must succeed.
    pub(crate) fn set_up(&self, token: &str, more: &[&str]) -> String {
        let arguments = [&["init", "--server-url", &self.server, "--token", "-"], more].concat();
        let output = self.with_input(&arguments, token);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The home folder.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The workspace.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.home.path().join("work");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder().join(below)
    }

    /// `agnes <arguments>` in the workspace, without anything of whoever runs the tests.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        let library = std::env::var_os("LD_LIBRARY_PATH");
        command.args(arguments).current_dir(self.folder()).env_clear().env("HOME", self.home.path());
        // What a server is asked is what a test means to ask.
        command.env("AGNES_NO_UPDATE_CHECK", "1");
        if let Some(library) = library {
            command.env("LD_LIBRARY_PATH", library);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        assert!(!text(&output.stderr).contains("panicked"), "{arguments:?}: {}", text(&output.stderr));
        output
    }

    pub(crate) fn with_input(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs it, which must succeed; gives standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, told) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {:?}\n{out}\n{told}", output.status);
        out
    }

    /// Runs it with `--json`; it must end with `code` and print one document.
    pub(crate) fn json_with(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let (out, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{told}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?} is no document: {e}\n{out}\n{told}"))
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.json_with(0, arguments)
    }

    /// Runs it, which must end with `code`; gives standard error.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{}\n{told}", text(&output.stdout));
        told
    }

    /// What a query of the files here answers.
    pub(crate) fn asks(&self, sql: &str) -> Value {
        self.json(&["query", sql])
    }

    /// Tables that lie there as files.
    pub(crate) fn files(&self) -> Vec<String> {
        files_below(&self.path("server/parquet"))
    }

    /// The state that a pull keeps.
    pub(crate) fn state(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(".agnes/sync_state.json")).unwrap()).unwrap()
    }
}

pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn sha256(path: &Path) -> String {
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn signing_in_says_who_and_where_and_signing_out_ends_it() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    let told = laptop.fails(7, &["auth", "whoami"]);
    assert!(told.contains("no server is named") && told.contains("AGNES_SERVER"), "{told}");
    let told = laptop.fails(7, &["catalog", "--server", &laptop.server]);
    assert!(
        told.contains("nobody is signed in") && told.contains(&format!("agnes auth login --server {}", laptop.server)),
        "{told}"
    );
    let login = ["auth", "login", "--server", &laptop.server, "--email", "member@example.com", "--password", "-"];
    let refused = laptop.with_input(&login, "wrong\n");
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
    let output = laptop.with_input(&login, &format!("{}\n", super::world::PASSWORD));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let me = laptop.json(&["auth", "whoami"]);
    assert_eq!((&me["email"], &me["server"]), (&json!("member@example.com"), &json!(laptop.server)));
    assert_eq!(
        (&me["is_admin"], &me["token"]["type"], &me["verified"]),
        (&json!(false), &json!("session"), &json!(true))
    );
    let groups: Vec<&str> =
        me["groups"].as_array().unwrap().iter().filter_map(|group| group["name"].as_str()).collect();
    assert!(groups.contains(&"analysts"), "{me}");
    // A session makes tokens; each is found by name and never guessed.
    let raw = laptop.ok(&["auth", "token", "create", "--name", "desk", "--ttl", "1d", "--raw"]);
    super::process::is_secret(raw.trim());
    assert_eq!(raw.trim().split('.').count(), 3, "one token and nothing else");
    // Where there is no room for it, that is said.
    if cfg!(target_os = "linux") {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran =
            laptop.command(&["auth", "token", "create", "--name", "lost", "--raw"]).stdout(full).output().unwrap();
        assert!(ran.status.code() == Some(1) && !text(&ran.stderr).contains("panicked"), "{}", text(&ran.stderr));
    }
    let listed = laptop.json(&["tokens", "list"]);
    assert!(listed.as_array().unwrap().iter().any(|token| token["name"] == "desk"), "{listed}");
    let other = Laptop::new(&laptop.server);
    let imported = other.with_input(&["auth", "import-token", "--server", &laptop.server, "--token", "-"], &raw);
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    assert_eq!(other.json(&["auth", "whoami"])["token"]["type"], "pat");
    laptop.ok(&["auth", "token", "revoke", "desk"]);
    laptop.fails(8, &["auth", "token", "revoke", "nothing"]);
    other.fails(7, &["auth", "whoami"]);
    let bad = other.with_input(&["auth", "import-token", "--server", &laptop.server, "--token", "-"], "nonsense");
    assert_eq!(bad.status.code(), Some(7), "{}", text(&bad.stderr));
    // The copied token of an ended session is worth nothing.
    let config = laptop.home.path().join(".config/agnes/token.json");
    let copy = std::fs::read(&config).unwrap();
    laptop.ok(&["auth", "logout"]);
    assert!(!config.exists());
    std::fs::write(&config, copy).unwrap();
    laptop.fails(7, &["auth", "whoami"]);
    let away = Laptop::new("http://127.0.0.1:9");
    away.fails(7, &["catalog", "--server", &away.server]);
    let output = away.command(&["catalog", "--server", &away.server]).env("AGNES_TOKEN", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("cannot be reached"), "{}", text(&output.stderr));
}

#[test]
fn verbs_answer_the_same_at_a_server() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    let catalog = laptop.json(&["catalog"]);
    let catalog = catalog["tables"].as_array().unwrap();
    let names: Vec<&str> = catalog.iter().filter_map(|table| table["name"].as_str()).collect();
    assert!(names.contains(&"orders") && !names.contains(&"people"), "{names:?}");
    let table = laptop.ok(&["catalog", "--refresh"]);
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head[..5], ["ID", "TABLE", "SOURCE", "MODE", "ENTITY"], "{table}");
    assert!(table.contains("orders"), "{table}");
    let columns = laptop.json(&["schema", "orders"])["columns"].clone();
    assert_eq!(columns.as_array().unwrap().iter().map(|c| &c["name"]).collect::<Vec<_>>(), ["id", "status", "amount"]);
    assert_eq!(laptop.json(&["sample", "orders", "-n", "2"])["rows"].as_array().unwrap().len(), 2);
    let described = laptop.json(&["describe", "orders"]);
    assert_eq!(described["schema"]["columns"], columns);
    assert_eq!(described["sample"]["rows"].as_array().unwrap().len(), 4);
    assert_eq!(laptop.json(&["profile", "orders"])["row_count"], 4);
    let told = laptop.fails(8, &["schema", "people"]);
    assert!(told.contains("HTTP 403"), "{told}");
    laptop.fails(8, &["sample", "nothing"]);
    let told = laptop.fails(2, &["sample", "orders", "-n", "101"]);
    assert!(told.contains("HTTP 422"), "{told}");
    let rows =
        laptop.json(&["query", "--remote", "select status, count(*)::int as n from orders group by all order by all"]);
    assert_eq!(rows, json!([{"status": "lost", "n": 1}, {"status": "open", "n": 1}, {"status": "paid", "n": 2}]));
    let told = laptop.fails(8, &["query", "--remote", "select * from people"]);
    assert!(told.contains("HTTP 403"), "{told}");
    let told = laptop.fails(2, &["query", "--remote", "selec 1"]);
    assert!(told.contains("HTTP 400"), "{told}");
    let out = laptop.run(&["query", "--remote", "select id from orders order by id", "--limit", "2", "-f", "csv"]);
    assert_eq!(text(&out.stdout), "id\n1\n2\n");
    assert!(text(&out.stderr).contains("there is more"), "{}", text(&out.stderr));
    let asked = laptop.run(&["query", "--remote", "select $n + 1 as n", "--param", "n=41", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&asked.stdout).unwrap(), json!([{"n": 42}]), "{}", text(&asked.stderr));
    // An admin sees what somebody else would see.
    let admin = Laptop::of(&world, "admin");
    let seen = admin.json(&["catalog", "--as", "member@example.com"]);
    assert!(seen["tables"].as_array().unwrap().iter().all(|table| table["name"] != "people"), "{seen}");
    assert_eq!(admin.json(&["source", "list", "--server", &admin.server])[0]["name"], "shop");
}

#[test]
fn a_server_that_is_named_is_meant_though_files_of_another_are_here() {
    let (world, other) = (World::start(), World::start());
    other.publish_orders(2);
    let laptop = Laptop::of(&world, "member");
    let there = format!("http://{}", other.server.address);
    let ask = |arguments: &[&str]| {
        let mut command = laptop.command(&[arguments, &["--server", &there]].concat());
        command.env("AGNES_TOKEN", other.token("member")).output().unwrap()
    };
    let sql = "select count(*)::int as n from orders";
    for (more, told) in [(&[][..], ""), (&["--scope", "auto"], "the files here are of another server: asking ")] {
        let output = ask(&[&["query", sql, "--json"], more].concat());
        assert_eq!(text(&output.stdout), "[{\"n\":2}]\n", "{more:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(told), "{more:?}: {}", text(&output.stderr));
    }
    laptop.ok(&["snapshot", "create", "orders", "--as", "kept"]);
    for arguments in [
        &["query", sql, "--scope", "local"][..],
        &["explore", "orders"],
        &["snapshot", "create", "orders", "--as", "mixed"],
        &["snapshot", "refresh", "kept"],
    ] {
        let output = ask(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}{told}", text(&output.stdout));
        assert!(told.contains(&laptop.server) && told.contains(&there), "{arguments:?}: {told}");
    }
    assert_eq!(laptop.asks("select count(*)::int as n from kept"), json!([{"n": 4}]));
    // Its own, however it is written, is that of the files: nobody is asked.
    let own = format!("{}/", laptop.server.replace("http", "HTTP"));
    let output = laptop.command(&["query", sql, "--json", "--server", &own]).env("AGNES_TOKEN", "x").output().unwrap();
    assert_eq!(text(&output.stdout), "[{\"n\":4}]\n", "{}", text(&output.stderr));
}

#[test]
fn an_admin_does_from_a_laptop_what_the_api_does() {
    let world = World::start();
    let laptop = Laptop::of(&world, "admin");
    let added = laptop.json(&["admin", "user", "add", "eve@example.com", "--name", "Eve", "--group", "analysts"]);
    assert_eq!((&added["email"], &added["is_admin"]), (&json!("eve@example.com"), &json!(false)), "{added}");
    laptop.fails(6, &["admin", "add-user", "eve@example.com"]);
    let users = laptop.json(&["admin", "list-users"]);
    assert!(
        users
            .as_array()
            .unwrap()
            .iter()
            .any(|user| user["email"] == "eve@example.com" && user["has_password"] == false)
    );
    assert!(laptop.ok(&["admin", "user", "list"]).contains("eve@example.com"));
    assert_eq!(laptop.json(&["admin", "user", "show", "eve@"])["id"], added["id"], "a unique begin is enough");
    let told = laptop.fails(2, &["admin", "user", "show", ""]);
    assert!(told.contains("may be a user"), "{told}");
    laptop.fails(8, &["admin", "user", "show", "nobody@example.com"]);
    let reset = laptop.run(&["admin", "reset-password", "eve@example.com"]);
    assert!(text(&reset.stderr).contains("no mail went out"), "{}", text(&reset.stderr));
    assert!(text(&reset.stdout).contains("token="), "{}", text(&reset.stdout));
    laptop.json(&["admin", "group", "create", "sales"]);
    let member = laptop.json(&["admin", "group", "add-member", "sales", "eve@example.com"]);
    assert_eq!(member["email"], "eve@example.com", "{member}");
    let grant = laptop.json(&["admin", "grant", "create", "sales", "table", "people"]);
    assert_eq!(grant["group_name"], "sales", "{grant}");
    let grants = laptop.json(&["admin", "grant", "list", "--group", "sales"]);
    assert_eq!(grants.as_array().unwrap().len(), 1, "{grants}");
    assert_eq!(laptop.json(&["admin", "grant", "list", "--type", "marketplace_plugin"]), json!([]));
    let access = laptop.json(&["admin", "user", "access", "eve@example.com"]);
    assert!(access.to_string().contains("people"), "{access}");
    laptop.ok(&["admin", "grant", "delete", grant["id"].as_str().unwrap(), "--yes"]);
    assert_eq!(laptop.json(&["admin", "grant", "list", "--group", "sales"]), json!([]));
    assert_eq!(laptop.json(&["admin", "deactivate", "eve@example.com", "--yes"])["active"], false);
    let told = laptop.fails(2, &["admin", "group", "delete", "sales"]);
    assert!(told.contains("--yes"), "{told}");
    laptop.ok(&["admin", "group", "delete", "sales", "--yes"]);
    laptop.ok(&["admin", "user", "remove", "eve@example.com", "--yes"]);
    let rows = laptop.json(&["admin", "audit", "list", "--action", "user"]);
    assert!(rows["rows"].as_array().is_some_and(|rows| !rows.is_empty()), "{rows}");
    let run = laptop.json(&["sync", "orders", "--wait"]);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(laptop.json(&["admin", "run", "show", run["id"].as_str().unwrap()])["id"], run["id"]);
    assert_eq!(laptop.json(&["admin", "sync", "orders", "--wait"])["state"], "succeeded");
    let take = |kind: &str| laptop.json(&["admin", "discover-and-register", "--source-type", kind, "--dry-run"]);
    assert_eq!((&take("files")["source"], &take("files")["skipped"]), (&json!("files"), &json!(2)));
    assert_eq!((&take("postgres")["source"], &take("postgres")["skipped"]), (&json!("local"), &json!(0)));
    let member = Laptop::of(&world, "member");
    let told = member.fails(8, &["admin", "user", "list"]);
    assert!(told.contains("HTTP 403"), "{told}");
}

#[test]
fn a_damaged_sign_in_is_written_anew_by_signing_in() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    let kept = laptop.path("../.config/agnes");
    std::fs::create_dir_all(&kept).unwrap();
    let login = ["auth", "login", "--server", &laptop.server, "--email", "member@example.com", "--password", "-"];
    let import = ["auth", "import-token", "--server", &laptop.server, "--token", "-"];
    let token = world.token("member").to_owned();
    for (arguments, input) in [(login.as_slice(), super::world::PASSWORD), (&import, &token)] {
        for (names, server) in
            [(&["token.json"][..], None), (&["config.yaml", "token.json", "ca.pem"], Some(laptop.server.as_str()))]
        {
            names.iter().for_each(|name| std::fs::write(kept.join(name), "[").unwrap());
            let catalog: Vec<&str> = ["catalog"].into_iter().chain(server.map(|_| "--server")).chain(server).collect();
            if server.is_some() {
                let told = laptop.fails(5, &["catalog"]);
                assert!(told.contains("agnes auth login --server URL"), "{told}");
                let told = laptop.fails(5, &catalog);
                assert!(told.contains("cannot be read"), "{told}");
            }
            let output = laptop.with_input(arguments, input);
            assert!(output.status.success(), "{arguments:?} {names:?}: {}", text(&output.stderr));
            assert!(laptop.ok(&["catalog"]).contains("orders"), "{arguments:?} {names:?}");
        }
    }
}
