//! A data folder with tables and people, served.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use agnes_core::context::Client;
use agnes_core::identity::{NewUser, TokenLife};
use agnes_core::rbac::{ClientKind, Principal, ResourceType};
use agnes_core::secret::Secret;
use agnes_core::{CallContext, Engine};
use serde_json::Value;

use super::laptop::files_below;
use super::process::{Answer, BINARY, Server, is_secret};

/// The token of the service.
const SERVICE: &str = "a token of the service, long enough to count";

/// The password of everybody.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A server of the source `shop` with `orders` (4 rows) and `people` (2 rows), and people:
/// `admin`, `member` (may read `orders`), `stranger` (may read nothing), each with a token.
pub(crate) struct World {
    pub(crate) server: Server,
    tokens: BTreeMap<String, String>,
    /// The member's, as a browser has it, once it was asked for.
    session: Mutex<Option<String>>,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// Starts with further arguments and variables.
    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_for(0, arguments, variables)
    }

    /// Starts with some people more: `admin0`, `member0` and so on, each with [`PASSWORD`].
    pub(crate) fn start_for(spare: usize, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), spare, arguments, variables)
    }

    /// Starts in an empty folder.
    pub(crate) fn start_in(
        folder: tempfile::TempDir,
        spare: usize,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut tokens = match spare {
            0 => from_first(folder.path()),
            _ => fill(&folder, spare),
        };
        run(&folder, &["sync"]);
        tokens.insert("service".to_owned(), SERVICE.to_owned());
        tokens.values().for_each(|token| is_secret(token));
        is_secret(PASSWORD);
        let variables = [variables, &[("SCHEDULER_API_TOKEN", SERVICE)]].concat();
        Self { server: Server::start_with(folder, arguments, &variables), tokens, session: Mutex::default() }
    }

    /// Stopped politely and started again with other variables; with how it ended.
    pub(crate) fn restarted(self, variables: &[(&str, &str)]) -> (Self, std::process::ExitStatus) {
        let Self { server, tokens, .. } = self;
        server.signal("TERM");
        let (status, folder) = server.ended();
        let variables = [variables, &[("SCHEDULER_API_TOKEN", SERVICE)]].concat();
        (Self { server: Server::start_with(folder, &[], &variables), tokens, session: Mutex::default() }, status)
    }

    /// Stopped politely, and started again after `change` was made to its folder.
    pub(crate) fn changed(self, change: impl FnOnce(&Path)) -> Self {
        self.server.signal("TERM");
        let Self { server, tokens, .. } = self;
        let (_, folder) = server.ended();
        change(folder.path());
        let server = Server::start_with(folder, &[], &[("SCHEDULER_API_TOKEN", SERVICE)]);
        Self { server, tokens, session: Mutex::default() }
    }

    /// The token of `admin`, `member`, `stranger`, `narrow` (the member's for setting up a
    /// laptop) or `service`.
    pub(crate) fn token(&self, who: &str) -> &str {
        &self.tokens[who]
    }

    /// Who somebody is, as a line of a request: their token, of `session` the member's cookie, of
    /// `nobody` nothing.
    pub(crate) fn authorization(&self, who: &str) -> String {
        match who {
            "nobody" => String::new(),
            "session" => format!("Cookie: access_token={}\r\n", self.session()),
            who => format!("Authorization: Bearer {}\r\n", self.token(who)),
        }
    }

    fn session(&self) -> String {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.get_or_insert_with(|| Self::sign_in(&self.server, &address("member"), PASSWORD)).clone()
    }

    /// Signs the member in again where their session has ended.
    pub(crate) fn renew_session(&self) {
        if self.get("session", "/auth/me").status == 401 {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    pub(crate) fn get(&self, who: &str, path: &str) -> Answer {
        self.server.get_with(path, &self.authorization(who))
    }

    /// Waits for the end of the server, and starts another one on its folder.
    pub(crate) fn start_again(self, variables: &[(&str, &str)]) -> Self {
        let (_, folder) = self.server.ended();
        let variables = [variables, &[("SCHEDULER_API_TOKEN", SERVICE)]].concat();
        Self { server: Server::start_with(folder, &[], &variables), tokens: self.tokens, session: Mutex::default() }
    }

    /// Sends JSON to a server that may be gone.
    pub(crate) fn try_send(&self, who: &str, method: &str, path: &str, body: &Value) -> Option<Answer> {
        self.server.try_send(request(&self.authorization(who), method, path, body, "").as_bytes())
    }

    /// [`try_send`](Self::try_send) as who holds a token.
    pub(crate) fn try_send_as(&self, token: &str, method: &str, path: &str, body: &Value) -> Option<Answer> {
        self.server.try_send(request(&format!("Authorization: Bearer {token}\r\n"), method, path, body, "").as_bytes())
    }

    /// Sends JSON.
    pub(crate) fn send(&self, who: &str, method: &str, path: &str, body: &Value) -> Answer {
        self.send_with(who, method, path, body, "")
    }

    /// Sends JSON with further lines of a head.
    pub(crate) fn send_with(&self, who: &str, method: &str, path: &str, body: &Value, headers: &str) -> Answer {
        self.server.send(&request(&self.authorization(who), method, path, body, headers))
    }

    /// A session of somebody, who must get one.
    pub(crate) fn sign_in(server: &Server, email: &str, password: &str) -> String {
        let body = serde_json::json!({"email": email, "password": password}).to_string();
        let answer = server.send(&format!(
            "POST /auth/token HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Sends a form, as a page of the server would.
    pub(crate) fn form(&self, who: &str, path: &str, fields: &str) -> Answer {
        self.server.form(path, fields, &self.authorization(who))
    }

    /// Sends a form: fields, then one file.
    pub(crate) fn upload(&self, who: &str, path: &str, fields: &[(&str, &str)], name: &str, content: &[u8]) -> Answer {
        self.try_upload(who, path, fields, name, content).unwrap()
    }

    /// [`upload`](Self::upload) to a server that may be gone.
    pub(crate) fn try_upload(
        &self,
        who: &str,
        path: &str,
        fields: &[(&str, &str)],
        name: &str,
        content: &[u8],
    ) -> Option<Answer> {
        let mut body = Vec::new();
        for (field, value) in fields {
            body.extend(
                format!("--cut\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n").bytes(),
            );
        }
        let head = format!("--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        body.extend(head.bytes().chain(content.iter().copied()).chain(b"\r\n--cut--\r\n".iter().copied()));
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{}\
             Content-Type: multipart/form-data; boundary=cut\r\nContent-Length: {}\r\n\r\n",
            self.authorization(who),
            body.len()
        )
        .into_bytes();
        request.extend(body);
        self.server.try_send(&request)
    }

    /// Ends the server as a power cut would, and starts another one on its folder.
    pub(crate) fn killed_and_started(self) -> Self {
        let Self { server, tokens, .. } = self;
        server.signal("KILL");
        let (_, folder) = server.ended();
        Self {
            server: Server::start_with(folder, &[], &[("SCHEDULER_API_TOKEN", SERVICE)]),
            tokens,
            session: Mutex::default(),
        }
    }

    /// Asks a query, in the format of `accept`.
    pub(crate) fn query(&self, who: &str, sql: &str, accept: &str) -> Answer {
        let body = serde_json::json!({ "sql": sql });
        self.send_with(who, "POST", "/api/query", &body, &format!("Accept: {accept}\r\nTE: trailers\r\n"))
    }

    /// Takes a table from everybody who was granted it.
    pub(crate) fn revoke(&self, table: &str) {
        let grants: Vec<Value> = serde_json::from_str(&self.command(&["admin", "grant", "list", "--json"])).unwrap();
        for grant in grants.iter().filter(|grant| grant["resource_id"] == table) {
            self.command(&["admin", "grant", "delete", grant["id"].as_str().unwrap(), "--yes"]);
        }
    }

    /// Publishes other rows of `orders`.
    pub(crate) fn publish_orders(&self, rows: usize) {
        let lines: String = (0..rows).map(|n| format!("{n},x{n},1\n")).collect();
        let file = self.server.folder.path().join("files/orders.csv");
        std::fs::write(file, format!("id,status,amount\n{lines}")).unwrap();
        self.command(&["sync", "--source", "shop"]);
    }

    /// Runs a command on the folder that is served; gives what it prints.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        run(&self.server.folder, arguments)
    }
}

/// The text of a request with JSON.
fn request(authorization: &str, method: &str, path: &str, body: &Value, headers: &str) -> String {
    let body = body.to_string();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{authorization}{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
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

/// The source, never synced, and everybody in an empty folder; gives their tokens.
fn fill(folder: &tempfile::TempDir, spare: usize) -> BTreeMap<String, String> {
    let files = folder.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let orders = "id,status,amount\n1,paid,10.5\n2,open,20\n3,paid,30.25\n4,lost,\n";
    std::fs::write(files.join("orders.csv"), orders).unwrap();
    std::fs::write(files.join("people.csv"), "id,name\n1,Ann\n2,Bob\n").unwrap();
    run(folder, &["source", "add", "shop", "--path", files.to_str().unwrap()]);
    people(folder.path(), spare)
}

/// What [`fill`] makes, made once, as many tests begin with it: before a sync, after which files
/// name their folder.
fn from_first(folder: &Path) -> BTreeMap<String, String> {
    struct First {
        folder: PathBuf,
        files: Vec<(String, Vec<u8>, Permissions)>,
        tokens: BTreeMap<String, String>,
    }
    static FIRST: OnceLock<First> = OnceLock::new();
    let first = FIRST.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let tokens = fill(&folder, 0);
        let files = files_below(folder.path()).into_iter().map(|name| {
            let path = folder.path().join(&name);
            (name, std::fs::read(&path).unwrap(), path.metadata().unwrap().permissions())
        });
        First { files: files.collect(), folder: folder.path().to_owned(), tokens }
    });
    for (name, content, permissions) in &first.files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, permissions.clone()).unwrap();
    }
    let state = duckdb::Connection::open(folder.join("state/system.duckdb")).unwrap();
    let moved = "UPDATE sources SET config = replace(config::VARCHAR, ?, ?)";
    assert_eq!(state.execute(moved, [&first.folder, folder].map(Path::to_string_lossy)).unwrap(), 1);
    first.tokens.clone()
}

/// Makes everybody, in this process as every command is one more to wait for; signs them in as they
/// would, and makes a token for each.
fn people(folder: &Path, spare: usize) -> BTreeMap<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = Engine::builder(folder).for_one_command().open().await.unwrap();
        let client = Client::at(None);
        let mut tokens = BTreeMap::new();
        let owner = CallContext::new(Principal::trusted_owner_of_the_data_folder("tests", ClientKind::Cli));
        let identity = engine.identity();
        identity.create_group(&owner, "analysts", None).await.unwrap();
        identity.grant(&owner, "analysts", ResourceType::Table, "orders").await.unwrap();
        let mut people = vec![("admin".to_owned(), "Admin"), ("member".to_owned(), "analysts")];
        people.extend((0..spare).map(|number| (format!("admin{number}"), "Admin")));
        people.extend((0..spare).map(|number| (format!("member{number}"), "analysts")));
        people.push(("stranger".to_owned(), ""));
        for (who, group) in &people {
            let groups = if group.is_empty() { Vec::new() } else { vec![(*group).to_owned()] };
            let new = NewUser { email: address(who), groups, ..NewUser::default() };
            identity.create_user(&owner, &new).await.unwrap();
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
            tokens.insert(who.clone(), make("general").await);
            if who == "member" {
                tokens.insert("narrow".to_owned(), make("bootstrap-analyst").await);
            }
        }
        engine.close().await.unwrap();
        tokens
    })
}
