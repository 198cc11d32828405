//! A stand-in for Jira Cloud that others wrote (`backlot`): what we keep is what it says, by our
//! backfill and by our consistency check.
//!
//! It differs from the site: it has no `remotelink` and counts nothing (404, which is read as "none"),
//! has no `myself` (answered here), takes dates and order in a search for nothing, and shows what is
//! public to whoever has no account.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agnes_core::testing::Request;
use serde_json::{Value, json};

use crate::support::{Site, owner};

/// Opens every issue of the stand-in.
const TOKEN: &str = "admin-service-token";

/// The program; `None` when it is not there, which is told loudly.
fn program() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let given = std::env::var_os("AGNES_TEST_TOOLS").map(PathBuf::from);
    let program = given.unwrap_or_else(|| root.join(".duckdb/tools")).join("sources/bin/backlot");
    if program.is_file() {
        return Some(program);
    }
    let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    assert!(
        !required("CI", "true") && !required("AGNES_REQUIRE_COMPONENTS", "1"),
        "scripts/fetch-source-tools.sh was not run"
    );
    eprintln!("SKIPPED: the stand-in for Jira is missing; scripts/fetch-source-tools.sh gets it");
    None
}

/// The stand-in, at the root of an address of its own: it has Jira below `/atlassian`.
struct Peer {
    child: Child,
    url: String,
    /// What it said of each issue, by key.
    said: Arc<Mutex<BTreeMap<String, Value>>>,
    _folder: tempfile::TempDir,
}

impl Peer {
    fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let command = || {
            let mut command = Command::new(program);
            command.env("DO_NOT_TRACK", "1").env("BACKLOT_TELEMETRY", "0").env("HOME", folder.path());
            command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let made = command().args(["import", "--bundled", "--data-dir"]).arg(&data).status().unwrap();
        assert!(made.success(), "no corpus was made");
        let port = agnes_core::testing::free_port();
        let child = command().args(["serve", "--port", &port.to_string(), "--data-dir"]).arg(&data).spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "the stand-in does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let said: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let noted = said.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = noted.clone();
                std::thread::spawn(move || pass_on(&stream, port, &noted));
            }
        });
        Self { child, url, said, _folder: folder }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Hands one request on, and its answer back. Pages hold five issues, so that there are some.
fn pass_on(mut stream: &TcpStream, port: u16, said: &Mutex<BTreeMap<String, Value>>) -> Option<()> {
    let request = Request::read(&mut BufReader::new(stream))?;
    if (request.method.as_str(), request.target.as_str()) == ("GET", "/rest/api/3/myself") {
        let me = r#"{"accountId": "5b10", "displayName": "Bot"}"#;
        return write!(stream, "HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{me}", me.len()).ok();
    }
    let head = request.head_without(&["Content-Length", "Connection"]);
    let body = String::from_utf8(request.body).ok()?.replace("\"maxResults\":100", "\"maxResults\":5");
    let (method, rest) = head.split_once(' ')?;
    let asked = request.target;
    let length = body.len();
    let sent = format!("{method} /atlassian{rest}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let mut upstream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    upstream.write_all(sent.as_bytes()).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    if asked.contains("/issue/") && asked.contains("expand=") {
        let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        if let Ok(issue) = serde_json::from_slice::<Value>(&answer[at + 4..])
            && let Some(key) = issue["key"].as_str()
        {
            said.lock().unwrap().insert(key.to_owned(), issue);
        }
    }
    stream.write_all(&answer).ok()
}

/// Every table says what the stand-in said.
async fn is_same(site: &Site, peer: &Peer) -> usize {
    let said = peer.said.lock().unwrap().clone();
    let (mut issues, mut others) = (Vec::new(), Vec::new());
    for (key, issue) in &said {
        let fields = &issue["fields"];
        let text = |value: &Value| value.as_str().unwrap_or("NULL").to_owned();
        issues.push(format!(
            "{key}|{}|{}|{}|{}",
            text(&fields["summary"]),
            text(&fields["status"]["name"]),
            text(&fields["reporter"]["emailAddress"]),
            fields["comment"]["total"]
        ));
        for (what, list) in [
            ("comment", &fields["comment"]["comments"]),
            ("change", &issue["changelog"]["histories"]),
            ("link", &fields["issuelinks"]),
            ("file", &fields["attachment"]),
        ] {
            others
                .extend(list.as_array().into_iter().flatten().map(|one| format!("{what}|{key}|{}", text(&one["id"]))));
        }
    }
    let mut found = site.ask("SELECT issue_key, summary, status, reporter_email, comment_count FROM jira_issues").await;
    found.sort();
    issues.sort();
    assert_eq!(found, issues);
    let sql = "SELECT 'comment', issue_key, comment_id FROM jira_comments UNION ALL \
               SELECT DISTINCT 'change', issue_key, change_id FROM jira_changelog UNION ALL \
               SELECT 'link', issue_key, link_id FROM jira_issuelinks UNION ALL \
               SELECT 'file', issue_key, attachment_id FROM jira_attachments";
    let mut found = site.ask(sql).await;
    found.sort();
    others.sort();
    assert_eq!(found, others);
    assert_eq!(
        site.ask("SELECT count(*) FROM jira_issues WHERE created_at IS NULL OR description IS NULL").await,
        ["0"]
    );
    said.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_of_others_is_read_as_it_is() {
    let Some(program) = program() else { return };
    let peer = Peer::start(&program);
    let site = Site::opened_by(TOKEN, |config| {
        config["domain"] = json!(peer.url);
        config["email"] = json!("somebody@acme.com");
    })
    .await;
    site.synced().await;
    let all = is_same(&site, &peer).await;
    assert!(all > 10, "{all} issues");
    // One that was never had is found and fetched by the check, over all days there are.
    let lost = peer.said.lock().unwrap().keys().next().unwrap().clone();
    std::fs::remove_file(site.root.path().join(format!("extracts/jira/raw/issues/{lost}.json"))).unwrap();
    let report = site.engine.pushes().check(&owner(), "jira", 36_500).await.unwrap();
    assert_eq!(report["discrepancies"]["missing_in_json"], json!([lost]));
    assert_eq!(report["actions"]["auto_backfilled"], json!([lost]));
    assert_eq!((&report["status"], &report["counts"]["jira_api"]), (&json!("success"), &json!(all)));
    is_same(&site, &peer).await;
    let report = site.engine.pushes().check(&owner(), "jira", 36_500).await.unwrap();
    assert_eq!(report["counts"], json!({"jira_api": all, "raw_json": all, "parquet": all}));
    site.engine.close().await.unwrap();
}
