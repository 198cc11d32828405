//! The two minutes that pages and guides promise: the commands they show, as they stand, by somebody
//! who has nothing but what every system has.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::distribution::{Newcomer, offering, offering_with};
use super::laptop::{Laptop, text};
use super::world::World;

/// What a reader of a page sees.
fn unescaped(html: &str) -> String {
    let html = html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    html.replace("&amp;", "&")
}

/// The blocks of commands of `/setup`, those with an id by it, others by their place.
fn blocks(world: &World) -> Vec<(String, String)> {
    let page = world.get("session", "/setup").text();
    let blocks = page.split("<pre").skip(1).map(|block| {
        let (tag, rest) = block.split_once('>').unwrap();
        let id = tag.split_once("id=\"").map_or("", |(_, id)| id.trim_end_matches('"'));
        (id.to_owned(), unescaped(rest.split("</pre>").next().unwrap()))
    });
    blocks.collect()
}

fn block(all: &[(String, String)], id: &str) -> String {
    all.iter().find(|(of, _)| of == id).unwrap_or_else(|| panic!("no `{id}` in {all:?}")).1.clone()
}

/// Commands of a prompt: lines that stand in by four blanks.
fn commands(prompt: &str) -> String {
    prompt.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

/// Runs commands in a shell that stops at the first that fails, and knows no more than a new one.
fn run(who: &Newcomer, script: &str) -> (String, String) {
    let output = who.command(&format!("set -e\n{script}")).env("PATH", "/usr/bin:/bin").output().unwrap();
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}\n{out}\n{told}");
    (out, told)
}

#[test]
fn an_assistant_does_what_the_setup_prompt_says() {
    let (world, _folder) = offering();
    let all = blocks(&world);
    let prompt = block(&all, "prompt");
    assert!(prompt.contains("{token}"), "no token is in a page: {prompt}");
    let who = Newcomer::new();
    let script = commands(&prompt).replace("{token}", world.token("member"));
    assert!(script.lines().count() >= 8, "{script}");
    let (out, told) = run(&who, &script);
    assert!(out.contains("orders") && out.contains("healthy"), "{out}\n{told}");
    for (program, missing) in [("git", "git is not here"), ("claude", "Claude Code is not here")] {
        let is_here = who.command(&format!("command -v {program}")).output().unwrap().status.success();
        assert_eq!(out.contains(missing), !is_here, "{program}: {out}");
    }
    assert!(!prompt.contains("CERTIFICATE"), "nothing to trust without TLS: {prompt}");
    assert!(!out.contains("people"), "that is not granted: {out}");
    let work = format!("cd '{}' &&", who.path("agnes").display());
    let rows = who.json(0, &format!("{work} agnes query 'select count(*)::int as n from orders' --json"));
    assert_eq!(rows, json!([{"n": 4}]));
    assert_eq!(who.json(0, &format!("{work} agnes onboarded status --json"))["onboarded"], true);
    // Once more: it says that it is there already, and harms nothing.
    let again = who.command(&format!("set -e\n{script}")).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("is a workspace already"), "{}", text(&again.stderr));
}

/// Speaks TLS before a server, with a certificate of an authority that nobody knows.
struct Tls {
    folder: tempfile::TempDir,
    proxy: std::process::Child,
    origin: String,
}

impl Tls {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut proxy = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/tls.py"))
            .arg("0")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { folder, proxy, origin: format!("https://127.0.0.1:{}", port.trim()) }
    }

    fn is_before(&mut self, port: u16) {
        writeln!(self.proxy.stdin.take().unwrap(), "{port}").unwrap();
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

#[test]
fn a_prompt_has_an_authority_trusted_that_nobody_knows() {
    let mut tls = Tls::start();
    let chain = tls.folder.path().join("chain.pem");
    let variables = [("SERVER_URL", tls.origin.as_str()), ("AGNES_TLS_FULLCHAIN_PATH", chain.to_str().unwrap())];
    let (world, _folder) = offering_with(&variables);
    tls.is_before(world.server.address.port());
    let all = blocks(&world);
    let prompt = block(&all, "prompt");
    let authority = std::fs::read_to_string(tls.folder.path().join("ca.pem")).unwrap();
    let lines: Vec<&str> = authority.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.iter().all(|line| prompt.contains(line)), "{prompt}");
    // Nothing of it goes unchecked.
    for word in ["--insecure", " -k", "sslVerify", "SSL_NO_VERIFY"] {
        assert!(!prompt.contains(word), "{word}: {prompt}");
    }
    let who = Newcomer::new();
    let (out, _) = run(&who, &commands(&prompt).replace("{token}", world.token("member")));
    assert!(out.contains("orders") && out.contains("healthy"), "{out}");
    let kept = std::fs::read_to_string(who.path(".config/agnes/ca.pem")).unwrap();
    assert_eq!(kept.trim(), authority.trim());
    // A shell that knows nothing of it, as a hook has.
    who.does("cd agnes && agnes pull --quiet && agnes query --remote 'select 1'");
    let git = who.does(&format!("git config --global --get-urlmatch http.sslCAInfo {}/x.git", tls.origin));
    assert!(git.contains(".config/agnes/ca.pem"), "{git}");
    assert_eq!(
        who.command("git config --global --get-urlmatch http.sslCAInfo https://a.example/").output().unwrap().stdout,
        b""
    );
    // By hand it goes the same way.
    let (hand, script) = (Newcomer::new(), block(&all, "trust"));
    let keep = block(&all, "keep").replace("YOUR_TOKEN", world.token("member"));
    let install = all.iter().find(|(_, text)| text.contains("install.sh") && !text.contains("token")).unwrap();
    let (out, _) = run(&hand, &format!("{script}\n{}\nexport PATH=\"$HOME/.local/bin:$PATH\"\n{keep}", install.1));
    assert!(out.contains("is ready"), "{out}");
}

#[test]
fn a_person_does_what_the_setup_page_says() {
    let (world, _folder) = offering();
    let all = blocks(&world);
    let by_hand: Vec<&str> = all.iter().skip_while(|(id, _)| id == "prompt").map(|(_, text)| text.as_str()).collect();
    let [install, keep, ask, program] = by_hand[..] else { panic!("{by_hand:?}") };
    let who = Newcomer::new();
    let (_, told) = run(&who, install);
    // What it says about the shell's profile is what has to be done.
    let profile = told.lines().find(|line| line.contains("export PATH=")).unwrap_or_else(|| panic!("{told}")).trim();
    let token = world.token("member");
    let (out, _) = run(&who, &format!("{profile}\n{}\n{ask}", keep.replace("YOUR_TOKEN", token)));
    assert!(out.contains("orders"), "{out}");
    let (out, _) = run(&who, &program.replace("YOUR_TOKEN", token));
    assert!(out.contains("\"rows\"") && out.contains("orders"), "{out}");
}

#[test]
fn a_server_without_archives_says_so() {
    let world = World::start();
    let all = blocks(&world);
    assert!(!all.iter().any(|(_, text)| text.contains("install.sh")), "{all:?}");
    assert!(commands(&block(&all, "prompt")).starts_with("agnes --version\n"), "{all:?}");
    assert!(world.get("session", "/setup").text().contains("offers no archive"));
    let told = Laptop::of(&world, "member").run(&["self-upgrade"]);
    assert!(told.status.success() && text(&told.stderr).contains("offers no versions"), "{}", text(&told.stderr));
}

/// Blocks of `sh` in a guide, with what is of the example replaced.
fn of_guide(name: &str, replace: &[(&str, &str)]) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides").join(name);
    let guide = std::fs::read_to_string(path).unwrap();
    let blocks = guide.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    blocks.map(|block| replace.iter().fold(block, |text, (from, to)| text.replace(from, to))).collect()
}

#[test]
fn the_guide_for_analysts_is_true() {
    let (world, _folder) = offering();
    let (who, server) = (Newcomer::new(), format!("http://{}", world.server.address));
    std::fs::write(who.path("token.txt"), world.token("member")).unwrap();
    let blocks = of_guide("analyst.md", &[("https://agnes.example.com", &server), ("< token.txt", "< ../token.txt")]);
    assert!(!blocks.is_empty());
    let (out, _) = run(&who, &blocks.concat());
    assert!(out.contains("orders") && out.contains("paid"), "{out}");
}

#[test]
fn the_guide_for_automation_is_true() {
    let (world, _folder) = offering();
    let (who, server) = (Newcomer::new(), format!("http://{}", world.server.address));
    let blocks =
        of_guide("automation.md", &[("https://agnes.example.com", &server), ("YOUR_TOKEN", world.token("admin"))]);
    assert!(blocks.len() > 3, "{blocks:?}");
    let (out, told) =
        run(&who, &format!("{}\nexport PATH=\"$HOME/.local/bin:$PATH\"\n{}", blocks[0], blocks[1..].concat()));
    assert!(out.contains("succeeded") && who.path("report.parquet").is_file(), "{out}\n{told}");
}

#[test]
fn a_server_is_set_up_from_a_laptop() {
    let server = super::process::Server::start();
    let laptop = super::laptop::Laptop::new(&format!("http://{}", server.address));
    let (_, printed) = server.said.split_once("/first-time-setup?token=").unwrap();
    let token = printed.split_whitespace().next().unwrap();
    laptop.ok(&["setup", "init", "--server", &laptop.server]);
    assert_eq!(laptop.json(&["setup", "test-connection"])["health"]["status"], "ok");
    let told = laptop.json_with(1, &["setup", "verify"]);
    assert_eq!((&told["overall"], &told["checks"][1]["status"]), (&json!("fail"), &json!("fail")), "{told}");
    let arguments = ["setup", "bootstrap", "ann@example.com", "--password", "-", "--token", token];
    let output = laptop.with_input(&arguments, "correct horse battery\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(laptop.json(&["auth", "whoami"])["is_admin"], true);
    let closed = laptop.with_input(&arguments, "correct horse battery\n");
    assert_eq!(closed.status.code(), Some(1), "{}", text(&closed.stderr));
    let told = laptop.json(&["setup", "verify"]);
    let names: Vec<_> =
        told["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["server", "auth", "data", "users", "web_ui", "api_docs"], "{told}");
    assert_eq!((&told["overall"], &told["checks"][4]["status"]), (&json!("warn"), &json!("pass")), "{told}");
    laptop.json(&["setup", "first-sync"]);
    assert_eq!(laptop.json(&["onboarded", "status"])["onboarded"], false);
    laptop.ok(&["onboarded", "on"]);
    assert_eq!(laptop.json(&["onboarded", "status"])["onboarded"], true);
    laptop.ok(&["onboarded", "off"]);
    assert_eq!(laptop.json(&["onboarded", "status"])["onboarded"], false);
    let guides = laptop.json(&["skills", "list"]);
    for guide in guides.as_array().unwrap() {
        assert!(guide["description"].is_string(), "{guide}");
        assert!(laptop.ok(&["skills", "show", guide["name"].as_str().unwrap()]).starts_with('#'), "{guide}");
    }
    laptop.fails(2, &["skills", "show", "nothing"]);
}

#[test]
fn what_the_command_line_names_comes_before_the_environment() {
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    let init = ["init", "--server-url", &laptop.server, "--token", "-", "--lazy", "--no-pull", "--json"];
    let mut command = laptop.command(&init);
    command.env("AGNES_SERVER", "http://127.0.0.1:9").env("AGNES_TOKEN", "nonsense");
    // A certificate that is not there would make every server unknown.
    command.env("SSL_CERT_FILE", "/nonexistent/ca.pem").stdin(Stdio::piped());
    let mut begun = command.spawn().unwrap();
    begun.stdin.take().unwrap().write_all(world.token("member").as_bytes()).unwrap();
    let begun = begun.wait_with_output().unwrap();
    let told = text(&begun.stderr);
    assert!(begun.status.success() && told.contains("`SSL_CERT_FILE` names a file that is not there"), "{told}");
    let would = |args: &[&str]| laptop.json(&[&["pull", "--dry-run"], args].concat())["would_download"].clone();
    assert_eq!(would(&[]), json!([]), "nothing comes before it is asked for");
    assert_eq!(would(&["--all"])[0]["table"], "orders");

    let mut init = laptop.command(&["init", "--force", "--server-url", &laptop.server, "--token", "-"]);
    init.env("AGNES_SERVER", "http://127.0.0.1:9").env("AGNES_TOKEN", "nonsense").stdin(Stdio::piped());
    let mut begun = init.spawn().unwrap();
    begun.stdin.take().unwrap().write_all(world.token("member").as_bytes()).unwrap();
    let begun = begun.wait_with_output().unwrap();
    assert!(begun.status.success(), "{}", text(&begun.stderr));
    laptop.ok(&["pull", "orders"]);

    // Programs of assistants start it anywhere: the workspace is the one that was set up last.
    let tools = |command: &mut Command| {
        let mut assistant = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut ask, told) =
            (assistant.stdin.take().unwrap(), BufReader::new(assistant.stdout.take().unwrap()).lines());
        let who =
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        for said in [
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": who}),
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
        ] {
            writeln!(ask, "{said}").unwrap();
        }
        let mut answers = told.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
        let listed = answers.find(|answer| answer["id"] == 2).unwrap()["result"]["tools"].clone();
        drop(ask);
        assert!(assistant.wait().unwrap().success());
        listed.as_array().unwrap().iter().any(|tool| tool["name"] == "query_local")
    };
    assert!(tools(laptop.command(&["mcp"]).current_dir("/")));
    assert!(!tools(laptop.command(&["mcp"]).current_dir("/").env("AGNES_LOCAL_DIR", "/nonexistent")));
    // Files of another server are not beside its tables.
    assert!(tools(&mut laptop.command(&["mcp"])));
    assert!(!tools(&mut laptop.command(&["mcp", "--server", "http://127.0.0.1:9"])));
}
