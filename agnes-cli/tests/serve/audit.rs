//! Which operation leaves what in the audit log: every one, called by who may call it, with what
//! it needs.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::afar::Site;
use super::described::{operations, undescribed};
use super::gits::Gits;
use super::matrix::{self, everything};
use super::process::Answer;
use super::world::{PASSWORD, World};

/// What a client of OAuth proves itself by, and what it shows of it first.
pub(super) const VERIFIER: &str = "a-verifier-of-a-client-that-a-test-has-made-up";
pub(super) const CHALLENGE: &str = "t3ovXhboXUWNKLmua-eLQk5odTglYqtcJfCFCwLYb18";

/// What operations need, made when it is asked for.
struct Things {
    world: World,
    site: Site,
    gits: Gits,
    made: Cell<u32>,
}

impl Things {
    /// A name that nothing has.
    fn name(&self) -> String {
        self.made.set(self.made.get() + 1);
        format!("thing{}", self.made.get())
    }

    /// Makes something, and gives a field of the answer.
    fn make(&self, who: &str, path: &str, body: Value, field: &str) -> String {
        let answer = self.world.send(who, "POST", path, &body);
        assert!(answer.status < 300, "{who}: POST {path}: {}", answer.text());
        answer.json()[field].as_str().unwrap().to_owned()
    }

    fn user(&self) -> String {
        self.make("admin", "/api/users", json!({"email": format!("{}@example.com", self.name())}), "id")
    }

    fn group(&self) -> String {
        self.make("admin", "/api/admin/groups", json!({"name": self.name()}), "id")
    }

    fn grant(&self) -> String {
        let body = json!({"group_id": self.group(), "resource_type": "table", "resource_id": "orders"});
        self.make("admin", "/api/admin/grants", body, "id")
    }

    fn policy(&self) -> String {
        let body = json!({"group_id": self.group(), "table": "orders", "rules": matrix::rules()});
        self.make("admin", "/api/admin/policies", body, "id")
    }

    fn request(&self) -> String {
        self.make("member", "/api/access-requests", json!({"resource_id": self.name()}), "id")
    }

    fn table(&self) -> String {
        let body = json!({"name": self.name(), "source": "shop", "source_table": "people.csv"});
        self.make("admin", "/api/admin/register-table", body, "id")
    }

    fn run(&self) -> String {
        let run = self.make("admin", "/api/sync/trigger", json!(["people"]), "run_id");
        let address = format!("/api/sync/runs/{run}");
        while ["queued", "running"].contains(&self.world.get("admin", &address).json()["state"].as_str().unwrap()) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        run
    }

    fn token(&self) -> String {
        self.make("session", "/auth/tokens", json!({"name": self.name()}), "id")
    }

    /// A one-shot code for a desktop application or the command line.
    fn code(&self, cli: bool) -> String {
        let told = if cli {
            let answer = self.world.form("session", "/cli/auth/start", "port=12345");
            answer.header("location").unwrap().to_owned()
        } else {
            self.make("session", "/api/desktop/authorize", Value::Null, "url")
        };
        told.split_once("code=").unwrap().1.split('&').next().unwrap().to_owned()
    }

    /// What a client asks a person for, as fields of an address or a form.
    fn wanted(&self) -> String {
        let body = json!({"client_name": "assistant", "redirect_uris": ["https://a.example/cb"]});
        let client = self.make("nobody", "/oauth/register", body, "client_id");
        format!(
            "client_id={client}&redirect_uri=https://a.example/cb&response_type=code&code_challenge={CHALLENGE}\
             &code_challenge_method=S256&state=x"
        )
    }

    /// A code for a client, as fields of the form that gets a token for it.
    fn grant_of_client(&self) -> String {
        let wanted = self.wanted();
        let answer = self.world.form("session", "/oauth/authorize", &format!("{wanted}&decision=allow"));
        let told = answer.header("location").unwrap();
        let code = told.split_once("code=").unwrap().1.split('&').next().unwrap();
        format!("{wanted}&grant_type=authorization_code&code={code}&code_verifier={VERIFIER}")
    }

    /// The address of an operation, with ids of things that are there.
    fn address(&self, named: &str, path: &str) -> String {
        let group = self.group();
        let pieces = path.split('/').skip(1).map(|piece| match piece {
            "{group_id}" => group.clone(),
            "{user_id}" if named.contains("/members/") || named.starts_with("DELETE /api/admin/users/") => {
                let user = self.user();
                let body = json!({"user_id": user});
                let members = format!("/api/admin/groups/{group}/members");
                assert_eq!(self.world.send("admin", "POST", &members, &body).status, 201);
                user
            }
            "{user_id}" => self.user(),
            "{grant_id}" => self.grant(),
            "{policy_id}" => self.policy(),
            "{request_id}" => self.request(),
            "{source}" if named.starts_with("DELETE") => {
                let name = self.name();
                self.world.command(&["source", "add", &name, "--set", &format!("path={}", self.site.file("kept"))]);
                name
            }
            "{source}" => "shop".to_owned(),
            "{token_id}" => self.token(),
            "{run_id}" => self.run(),
            "{view_id}" => {
                let body = json!({"name": self.name(), "query": {"action_prefix": "query."}});
                self.make("admin", "/api/admin/observability/views", body, "id")
            }
            "{permission_id}" => {
                let body = json!({"dataset": "orders", "group": self.group()});
                self.make("admin", "/api/permissions", body, "id")
            }
            "{table_id}" if named.starts_with("DELETE") => self.table(),
            "{table_id}" | "{table_name}" => "orders".to_owned(),
            "{attachment_id}" => "1".to_owned(),
            "{file}" => "index.css".to_owned(),
            "{filename}" => {
                let name = format!("{}.jsonl", self.name());
                let sent = self.world.upload("admin", "/api/upload/sessions", &[], &name, b"{}\n");
                assert_eq!(sent.status, 200, "{}", sent.text());
                name
            }
            piece => piece.to_owned(),
        });
        let mut address: String = pieces.map(|piece| format!("/{piece}")).collect();
        if named == "GET /oauth/authorize" {
            let _ = write!(address, "?{}", self.wanted());
        }
        match path {
            "/api/sync/assets/{kind}/download" => {
                let docs = self.world.server.folder.path().join("docs");
                std::fs::create_dir_all(&docs).unwrap();
                std::fs::write(docs.join("start.md"), "# Start here").unwrap();
                address = "/api/sync/assets/docs/download?path=start.md".to_owned();
            }
            "/api/v2/metadata-cache/refresh" => address += "?table=orders",
            "/api/permissions/check" => address += "?user=member@example.com&dataset=orders",
            "/api/access-requests/{request_id}/preview" => {
                let _ = write!(address, "?group_id={}", self.group());
            }
            _ => {}
        }
        address
    }

    /// What an operation is sent.
    fn body(&self, named: &str) -> Value {
        let user = || json!({"user_id": self.user()});
        match named {
            "POST /auth/token" | "POST /auth/password/login" => {
                json!({"email": "stranger@example.com", "password": PASSWORD})
            }
            "POST /auth/password/change" => json!({"current_password": PASSWORD, "new_password": PASSWORD}),
            "POST /api/admin/groups/{group_id}/members" => user(),
            "POST /api/admin/users/{user_id}/memberships" => json!({"group_id": self.group()}),
            "POST /api/admin/grants" => {
                json!({"group_id": self.group(), "resource_type": "table", "resource_id": "orders"})
            }
            "POST /api/admin/policies" => {
                json!({"group_id": self.group(), "table": "orders", "rules": matrix::rules()})
            }
            "POST /api/permissions" => json!({"dataset": "orders", "group": self.group()}),
            "POST /api/access-requests/{request_id}/approve" => {
                json!({"group_id": self.group(), "note": "for a month"})
            }
            "POST /api/access-requests/{request_id}/deny" => json!({"note": "ask for the summary"}),
            "POST /api/sync/trigger" => json!({"tables": ["people"]}),
            "POST /api/admin/sources" => {
                json!({"name": self.name(), "kind": "files", "config": {"path": self.site.file("rates")}})
            }
            "POST /api/query/replay" => {
                let body = json!({"sql": "select count(*) from orders", "receipt": true});
                self.world.send("admin", "POST", "/api/query", &body).json()["receipt"].clone()
            }
            "POST /api/admin/register-table" => {
                json!({"name": self.name(), "source": "shop", "source_table": "people.csv"})
            }
            "POST /api/admin/metadata/{table_id}" => {
                json!({"columns": [{"column_name": "amount", "description": "net, in euro"}]})
            }
            "POST /api/desktop/unlink" => {
                let body = json!({"code": self.code(false), "device_name": "laptop"});
                self.make("nobody", "/api/desktop/token", body, "token");
                json!({})
            }
            "POST /api/admin/initial-workspace" => json!({"url": self.gits.url("team.git"), "branch": "main"}),
            "POST /auth/email/send-link" => json!({"email": "stranger@example.com"}),
            "POST /api/desktop/token" => json!({"code": self.code(false), "device_name": "Ann's laptop"}),
            "POST /cli/auth/exchange" => json!({"code": self.code(true), "name": "laptop"}),
            "POST /api/mcp/http" => {
                let sql = "FROM orders SELECT status, count(*) AS n GROUP BY ALL";
                let params = json!({"name": "query", "arguments": {"sql": sql}});
                json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
            }
            other => matrix::body(other),
        }
    }

    /// Who calls an operation: who may.
    fn who(named: &str, operation: &Value) -> &'static str {
        const SESSIONS: [&str; 10] = [
            "POST /auth/tokens",
            "GET /auth/tokens/{token_id}",
            "DELETE /auth/tokens/{token_id}",
            "POST /auth/logout",
            "POST /auth/logout-all",
            "POST /auth/password/change",
            "POST /cli/auth/start",
            "POST /desktop/link",
            "POST /api/desktop/authorize",
            "POST /api/desktop/unlink",
        ];
        match named {
            named if SESSIONS.contains(&named) => "session",
            "GET /cli/auth/start" | "GET /desktop/link" | "GET /oauth/authorize" | "POST /oauth/authorize" => "session",
            "POST /api/access-requests" | "DELETE /api/access-requests/{request_id}" => "member",
            _ if operation.get("security").is_none() => "nobody",
            _ => "admin",
        }
    }

    /// A repository that workspaces begin with.
    fn initial_workspace(&self) {
        let body = json!({"url": self.gits.url("team.git"), "branch": "main"});
        let answer = self.world.send("admin", "POST", "/api/admin/initial-workspace", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn call(&self, named: &str, method: &str, path: &str, operation: &Value) -> (Value, Answer) {
        if path.contains("/initial-workspace") {
            self.initial_workspace();
        }
        let (who, address) = (Self::who(named, operation), self.address(named, path));
        if path.starts_with("/api/upload/") && path != "/api/upload/local-md" {
            let csv = b"id,name\n1,Ann\n";
            return (Value::Null, self.world.upload(who, &address, &[], &format!("{}.csv", self.name()), csv));
        }
        if let Some(fields) = matrix::form(named) {
            // Somebody who is known, where the matrix asks for nobody.
            let fields = match named {
                "POST /oauth/authorize" => format!("{}&decision=allow", self.wanted()),
                "POST /oauth/token" => self.grant_of_client(),
                "POST /oauth/revoke" => {
                    let given = self.world.form("nobody", "/oauth/token", &self.grant_of_client()).json();
                    format!("token={}", given["refresh_token"].as_str().unwrap())
                }
                _ => fields.replace("gone@", "stranger@"),
            };
            return (Value::Null, self.world.form(who, &address, &fields));
        }
        if method == "GET" {
            return (Value::Null, self.world.get(who, &address));
        }
        let body = if method == "DELETE" { Value::Null } else { self.body(named) };
        let answer = self.world.send_with(who, method, &address, &body, matrix::accept(path));
        (body, answer)
    }

    /// Actions of every row of the log, by request.
    fn log(&self) -> BTreeMap<String, BTreeSet<String>> {
        let (mut rows, mut page) = (BTreeMap::<String, BTreeSet<String>>::new(), String::new());
        loop {
            let told = self.world.get("admin", &format!("/api/admin/activity?limit=200{page}")).json();
            for row in told["rows"].as_array().unwrap() {
                let action = row["action"].as_str().unwrap().to_owned();
                rows.entry(row["correlation_id"].as_str().unwrap_or_default().to_owned()).or_default().insert(action);
            }
            let Some(next) = told["next_cursor"].as_object() else { return rows };
            page = format!("&cursor_ts={}&cursor_id={}", next["ts"].as_str().unwrap(), next["id"].as_str().unwrap());
        }
    }
}

/// A body as an example: short, and without what opens something.
fn example(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().take(2).map(example).collect(),
        Value::Object(fields) => {
            let hide = |name: &str, value: &Value| {
                if name == "path" && value.as_str().is_some_and(|path| path.starts_with('/')) {
                    return json!("/srv/exports");
                }
                let secret = ["token", "access_token", "refresh_token", "code", "reset_url", "invite_url", "url"]
                    .contains(&name);
                if secret && value.as_str().is_some_and(|text| text.len() > 16) { json!("...") } else { example(value) }
            };
            let short = fields.len() > 40;
            let fields = fields.iter().take(if short { 5 } else { usize::MAX });
            Value::Object(fields.map(|(name, value)| (name.clone(), hide(name, value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Whether an example has the parts of what was asked and answered now. Values do not count, nor
/// what two runs need not have in common: how long a list is, whether there is a value at all, and
/// what was noted of a call.
fn is_alike(kept: &Value, fresh: &Value) -> bool {
    match (kept, fresh) {
        (Value::Object(kept), Value::Object(fresh)) => {
            let alike = |name: &String, value: &Value| {
                name.starts_with("params") || fresh.get(name).is_some_and(|fresh| is_alike(value, fresh))
            };
            kept.len() == fresh.len() && kept.iter().all(|(name, value)| alike(name, value))
        }
        (Value::Array(kept), Value::Array(fresh)) => match (kept.first(), fresh.first()) {
            (Some(kept), Some(fresh)) => is_alike(kept, fresh),
            _ => true,
        },
        (Value::Null, _) | (_, Value::Null) => true,
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        _ => true,
    }
}

/// The operations whose kept example is out of date.
fn stale(kept: &Value, fresh: &Map<String, Value>) -> Vec<String> {
    let kept = kept.as_object().unwrap();
    let named: BTreeSet<&String> = kept.keys().chain(fresh.keys()).collect();
    let alike = |name: &str| Some(is_alike(kept.get(name)?, fresh.get(name)?));
    named.into_iter().filter(|name| alike(name) != Some(true)).cloned().collect()
}

#[test]
fn a_stale_example_is_seen() {
    let fresh = json!({"GET /a": {"answer": {"count": 3, "rows": [{"id": 1}, {"id": 2}], "of": null}, "status": 200}});
    let fresh = fresh.as_object().unwrap();
    let with = |text: &str| stale(&serde_json::from_str(text).unwrap(), fresh);
    for same in [
        r#"{"GET /a": {"answer": {"count": 9, "rows": [{"id": "b"}], "of": {"x": 1}}, "status": 201}}"#,
        r#"{"GET /a": {"answer": {"count": 9, "rows": [], "of": "x"}, "status": 200}}"#,
    ] {
        assert!(with(same).is_empty(), "{same}");
    }
    for (other, named) in [
        (r#"{}"#, "GET /a"),
        (r#"{"GET /a": {"answer": {"count": 9, "rows": [{"id": 7, "old": 1}], "of": 1}, "status": 200}}"#, "GET /a"),
        (r#"{"GET /a": {"answer": {"rows": [{"id": 7}], "of": 1}, "status": 200}}"#, "GET /a"),
        (r#"{"GET /a": {"answer": {"count": [], "rows": [{"id": 7}], "of": 1}, "status": 200}}"#, "GET /a"),
    ] {
        assert_eq!(with(other), [named], "{other}");
    }
    let gone = r#"{"GET /a": {"answer": {"count": 9, "rows": [], "of": 1}, "status": 200}, "GET /b": {}}"#;
    assert_eq!(with(gone), ["GET /b"]);
}

#[test]
fn every_operation_leaves_what_the_table_says() {
    let (site, gits, config) = (Site::open(), Gits::start(), super::jira::config());
    gits.commit("team.git", &[("workspace/CLAUDE.md", "# {{ instance.name }}\n")]);
    let listed = ("AGNES_REMOTE_ATTACH_HOST_ALLOWLIST", &*site.address.to_string());
    let configured = ("CONFIG_DIR", config.path().to_str().unwrap());
    let world = World::start_with(&[], &[&everything()[..], &[listed, configured]].concat());
    let things = Things { world, site, gits, made: Cell::new(0) };
    let (mut called, mut examples, mut missing) = (Vec::new(), Map::new(), Vec::new());
    for (named, method, path, operation) in operations() {
        things.world.renew_session();
        let (body, answer) = things.call(&named, &method, &path, operation);
        missing.extend(undescribed(operation, &answer).map(|what| format!("{named}: {what}")));
        let mut one = json!({});
        if operation.pointer("/requestBody/content/application~1json").is_some() && !body.is_null() {
            one["request"] = example(&body);
        }
        let is_json = answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        if answer.status < 300 && is_json && path != "/openapi.json" {
            (one["status"], one["answer"]) = (answer.status.into(), example(&answer.json()));
        }
        if one != json!({}) {
            examples.insert(named.clone(), one);
        }
        called.push((named, answer.status, answer.header("x-request-id").unwrap().to_owned()));
    }
    assert!(missing.is_empty(), "not described:\n{}", missing.join("\n"));
    let log = things.log();
    let mut table = String::new();
    for (named, status, request) in called {
        let actions = log.get(&request).map(|actions| actions.iter().cloned().collect::<Vec<_>>().join(", "));
        writeln!(table, "{named:<66}{status:>5}  {}", actions.as_deref().unwrap_or("-")).unwrap();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = here.join("tests/serve/audit.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &table).unwrap();
        let examples = serde_json::to_string_pretty(&examples).unwrap();
        std::fs::write(here.join("../agnes-http/src/examples.json"), examples + "\n").unwrap();
    }
    let kept = std::fs::read_to_string(here.join("../agnes-http/src/examples.json")).unwrap();
    let stale = stale(&serde_json::from_str(&kept).unwrap(), &examples);
    assert!(stale.is_empty(), "examples that are out of date; `UPDATE_GOLDEN=1` writes them:\n{}", stale.join("\n"));
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(golden == table, "the table changed; `UPDATE_GOLDEN=1` writes it to {}:\n{table}", file.display());
}
