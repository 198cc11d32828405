//! A data folder with tables and people, served.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use agnes_core::Engine;
use agnes_core::context::Client;
use agnes_core::identity::TokenLife;
use agnes_core::secret::Secret;
use serde_json::Value;

use super::process::{Answer, BINARY, Server};

/// The token of the service.
const SERVICE: &str = "a token of the service, long enough to count";

/// The password of everybody.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A server of the source `shop` with `orders` (4 rows) and `people` (2 rows), and people:
/// `admin`, `member` (may read `orders`), `stranger` (may read nothing), each with a token.
pub(crate) struct World {
    pub(crate) server: Server,
    tokens: BTreeMap<String, String>,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// Starts with further arguments and variables.
    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let orders = "id,status,amount\n1,paid,10.5\n2,open,20\n3,paid,30.25\n4,lost,\n";
        std::fs::write(files.join("orders.csv"), orders).unwrap();
        std::fs::write(files.join("people.csv"), "id,name\n1,Ann\n2,Bob\n").unwrap();
        run(&folder, &["source", "add", "shop", "--path", files.to_str().unwrap()]);
        run(&folder, &["sync"]);
        for who in ["admin", "member", "stranger"] {
            run(&folder, &["admin", "user", "add", &address(who)]);
        }
        run(&folder, &["admin", "group", "add-member", "Admin", &address("admin")]);
        run(&folder, &["admin", "group", "create", "analysts"]);
        run(&folder, &["admin", "group", "add-member", "analysts", &address("member")]);
        run(&folder, &["admin", "grant", "create", "analysts", "table", "orders"]);
        let mut tokens = tokens(folder.path());
        tokens.insert("service".to_owned(), SERVICE.to_owned());
        let variables = [variables, &[("SCHEDULER_API_TOKEN", SERVICE)]].concat();
        Self { server: Server::start_with(folder, arguments, &variables), tokens }
    }

    /// The token of `admin`, `member`, `stranger`, `narrow` (the member's for setting up a
    /// laptop) or `service`.
    pub(crate) fn token(&self, who: &str) -> &str {
        &self.tokens[who]
    }

    /// The `Authorization` of somebody, as a line of a request; of `nobody` nothing.
    pub(crate) fn authorization(&self, who: &str) -> String {
        if who == "nobody" { String::new() } else { format!("Authorization: Bearer {}\r\n", self.token(who)) }
    }

    pub(crate) fn get(&self, who: &str, path: &str) -> Answer {
        self.server.get_with(path, &self.authorization(who))
    }

    /// Sends JSON.
    pub(crate) fn send(&self, who: &str, method: &str, path: &str, body: &Value) -> Answer {
        self.send_with(who, method, path, body, "")
    }

    /// Sends JSON with further lines of a head.
    pub(crate) fn send_with(&self, who: &str, method: &str, path: &str, body: &Value, headers: &str) -> Answer {
        let (authorization, body) = (self.authorization(who), body.to_string());
        self.server.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{authorization}{headers}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Asks a query, in the format of `accept`.
    pub(crate) fn query(&self, who: &str, sql: &str, accept: &str) -> Answer {
        let body = serde_json::json!({ "sql": sql });
        self.send_with(who, "POST", "/api/query", &body, &format!("Accept: {accept}\r\nTE: trailers\r\n"))
    }

    /// Runs a command on the folder that is served; gives what it prints.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        run(&self.server.folder, arguments)
    }
}

fn address(who: &str) -> String {
    format!("{who}@example.com")
}

/// Runs a command on a folder, which must succeed; gives standard output.
pub(crate) fn run(folder: &tempfile::TempDir, arguments: &[&str]) -> String {
    let output = Command::new(BINARY)
        .args(arguments)
        .arg("--data-dir")
        .arg(folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Signs everybody in as they would, and makes a token for each.
fn tokens(folder: &std::path::Path) -> BTreeMap<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = Engine::builder(folder).for_one_command().open().await.unwrap();
        let client = Client::at(None);
        let mut tokens = BTreeMap::new();
        for who in ["admin", "member", "stranger"] {
            let letter = engine.sign_in().ask_for_setup(&address(who)).await.unwrap().unwrap();
            let password = Secret::new(PASSWORD);
            let token = letter.token.expose();
            let session =
                engine.sign_in().set_up_password(&client, &letter.email, token, &password, None).await.unwrap();
            let ctx = engine.sign_in().authenticate(&client, session.token.expose()).await.unwrap();
            let make = async |scope: &str| {
                let made = engine.tokens().create(&ctx, "tests", TokenLife::Days(1), scope).await.unwrap();
                made.token.expose().to_owned()
            };
            tokens.insert(who.to_owned(), make("general").await);
            if who == "member" {
                tokens.insert("narrow".to_owned(), make("bootstrap-analyst").await);
            }
        }
        engine.close().await.unwrap();
        tokens
    })
}
