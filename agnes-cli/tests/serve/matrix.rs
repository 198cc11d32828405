//! Who may call what: every operation, as everybody, against a running server.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::described::{operations, undescribed};
use super::world::{PASSWORD, World};

/// In the order of their rights, so that whoever may not change anything tries first.
/// `narrow` is a token of the member that only sets up a laptop, `session` the member in a
/// browser, `service` the scheduler's token; the others come with a token of their own.
const EVERYBODY: [&str; 7] = ["nobody", "stranger", "narrow", "member", "session", "service", "admin"];

/// Variables that switch everything on; nothing of it is reached.
pub(super) fn everything() -> [(&'static str, &'static str); 5] {
    [
        ("AGNES_AUTH_RATELIMIT_ENABLED", "0"),
        ("DESKTOP_JWT_SECRET", "a secret of desktop applications, long enough"),
        ("SMTP_HOST", "127.0.0.1"),
        ("SMTP_PORT", "9"),
        ("SMTP_FROM", "agnes@example.com"),
    ]
}

/// Rules of a policy that takes nothing away.
pub(super) fn rules() -> Value {
    json!({"filter": {"predicate": "true"}})
}

/// A receipt that no server wrote.
fn forged() -> Value {
    let hash = "0".repeat(64);
    json!({
        "version": 1, "id": "0".repeat(32), "issued_at": "2026-11-21T10:00:00Z", "expires_at": "2026-11-22T10:00:00Z",
        "user_id": "nobody", "generation": 1, "tables": [], "policy_fingerprint": hash, "sql": "select 1",
        "params": "[]", "limit": null, "max_bytes": null, "sql_hash": hash, "engine_version": "v1", "rows": 1,
        "truncated": false, "result_hash": hash, "mark": hash,
    })
}

/// A body that is taken by whoever may call the operation.
pub(super) fn body(operation: &str) -> Value {
    match operation {
        // A password that nobody has: 401 is the answer of the operation, not of the gate.
        "POST /auth/token" | "POST /auth/password/login" => json!({"email": "gone@example.com", "password": "x"}),
        "POST /auth/bootstrap" => json!({"email": "gone@example.com", "password": "long enough"}),
        "POST /auth/password/setup" => json!({"email": "gone@example.com", "token": "x", "password": "long enough"}),
        "POST /auth/password/change" => json!({"current_password": PASSWORD, "new_password": PASSWORD}),
        "POST /auth/tokens" => json!({"name": "made by the matrix"}),
        "POST /auth/logout" | "POST /auth/logout-all" => Value::Null,
        "POST /auth/refresh-groups" | "POST /me/profile/refetch-groups" => Value::Null,
        "POST /api/query" | "POST /api/query/hybrid" => json!({"sql": "select 1"}),
        "POST /api/admin/bigquery/test-connection" | "POST /api/admin/run-bq-metadata-refresh" => Value::Null,
        "POST /api/v2/metadata-cache/refresh" | "POST /api/admin/cache-warmup/run" => Value::Null,
        "POST /api/admin/server-config" => json!({"sections": {"instance": {"subtitle": "of the matrix"}}}),
        "POST /api/admin/configure" => json!({"data_source": "local"}),
        "POST /api/v2/scan" | "POST /api/v2/scan/estimate" => json!({"table_id": "orders"}),
        "POST /api/me/onboarded" => json!({}),
        "PUT /api/admin/welcome-template" | "PUT /api/admin/workspace-prompt-template" => {
            json!({"content": "Set {{ instance.name }} up on this computer."})
        }
        "POST /api/admin/welcome-template/preview" | "POST /api/admin/workspace-prompt-template/preview" => {
            json!({"content": "Set {{ instance.name }} up on this computer."})
        }
        // Not an address that may be asked: 400 is the answer of the operation.
        "POST /api/admin/initial-workspace" => json!({"url": "https://localhost/team/workspace.git"}),
        "POST /api/admin/initial-workspace/sync" => Value::Null,
        "POST /api/initial-workspace/applied" => json!({
            "mode": "fresh_install", "template_sha": "9fceb02d0ae598e95dc970b74767f19372d61af8",
            "files_overwritten": 0, "files_created": 4,
        }),
        "POST /api/sync/settings" | "POST /api/sync-settings" => json!({"datasets": {"orders": true}}),
        "POST /api/sync/table-subscriptions" => json!({"table_mode": "all"}),
        "PUT /api/settings/dataset" => json!({"dataset": "orders", "enabled": true}),
        "POST /api/admin/groups" => json!({"name": "made by the matrix"}),
        "POST /api/admin/groups/{group_id}/members" => json!({"user_id": "nothing"}),
        "POST /api/admin/grants" => json!({"group_id": "nothing", "resource_type": "table", "resource_id": "orders"}),
        "POST /api/admin/policies" => json!({"group_id": "nothing", "table": "orders", "rules": rules()}),
        "PUT /api/admin/policies/{policy_id}" => json!({"rules": rules()}),
        "POST /api/admin/policies/validate" => json!({}),
        "POST /api/admin/policies/dry-run" => json!({"change": "grant", "group": "analysts", "table": "people"}),
        "PATCH /api/admin/groups/{group_id}" => json!({"description": "made by the matrix"}),
        "POST /api/admin/users/{user_id}/memberships" => json!({"group_id": "nothing"}),
        "POST /api/permissions" => json!({"dataset": "orders", "group": "nothing"}),
        "POST /api/users" => json!({"email": "matrix@example.com"}),
        "PATCH /api/users/{user_id}" => json!({"name": "Made by the matrix"}),
        "POST /api/users/{user_id}/activate" | "POST /api/users/{user_id}/deactivate" => Value::Null,
        "POST /api/users/{user_id}/reset-password" => Value::Null,
        "POST /api/users/{user_id}/set-password" => json!({"password": "long enough"}),
        "POST /api/access-requests" => json!({"resource_id": "made by the matrix"}),
        "POST /api/access-requests/{request_id}/approve" => json!({"group_id": "nothing"}),
        "POST /api/access-requests/{request_id}/deny" => json!({}),
        "POST /api/admin/observability/views" => json!({"name": "made by the matrix", "query": {}}),
        "POST /api/sync/trigger" => json!(["nothing"]),
        "POST /api/sync/runs/{run_id}/cancel" => Value::Null,
        // No name of a source: 400 is the answer of the operation, not of the gate.
        "POST /api/admin/sources" => json!({"name": "1", "kind": "files", "config": {}}),
        "POST /api/admin/sources/{source}/check" | "POST /api/admin/sources/{source}/rebuild" => Value::Null,
        "POST /api/admin/gc" => Value::Null,
        "POST /api/query/replay" => forged(),
        "POST /api/users/{user_id}/invite" => Value::Null,
        "POST /auth/email/send-link" => json!({"email": "gone@example.com"}),
        "POST /auth/email/verify" => json!({"email": "gone@example.com", "token": "x"}),
        "POST /api/desktop/authorize" => Value::Null,
        "POST /api/desktop/token" | "POST /cli/auth/exchange" => json!({"code": "x"}),
        "POST /api/desktop/unlink" => json!({}),
        "POST /api/catalog/profile/{table_name}/refresh" => Value::Null,
        "POST /api/admin/register-table" => json!({"name": "orders"}),
        "POST /api/admin/register-table/precheck" => json!({"name": "made by the matrix"}),
        "PUT /api/admin/registry/{table_id}" => json!({"description": "one row an order"}),
        "POST /api/admin/discover-and-register" | "POST /api/admin/registry/rebuild" => Value::Null,
        "POST /api/admin/metadata/{table_id}/push" => Value::Null,
        "POST /api/admin/metadata/{table_id}" => json!({"columns": []}),
        // Nobody is set up to take it: 503 is the answer of the operation.
        "POST /webhooks/jira" | "POST /api/jira/webhook" => json!({"webhookEvent": "jira:issue_updated"}),
        "POST /api/admin/run-jira-sla-poll" | "POST /api/admin/run-jira-consistency-check" => Value::Null,
        "POST /api/upload/local-md" => json!({"content": "notes"}),
        "POST /api/mcp/http" => json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
        "POST /oauth/register" => json!({"client_name": "matrix", "redirect_uris": ["https://matrix.example/cb"]}),
        // No form: 415 is the answer of the operation, not of the gate.
        "POST /api/upload/sessions" | "POST /api/upload/artifacts" | "POST /api/upload/data" => Value::Null,
        other => panic!("`{other}` takes a body: say which one is valid"),
    }
}

/// Lines of a head without which an operation is not answered.
pub(super) fn accept(path: &str) -> &'static str {
    if path == "/api/mcp/http" { "Accept: application/json, text/event-stream\r\n" } else { "" }
}

/// The fields of an operation that takes nothing but a form.
pub(super) fn form(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "POST /auth/password/login/web" => "email=gone@example.com&password=x",
        "POST /auth/password/setup/request" | "POST /auth/password/reset" => "email=gone@example.com",
        "POST /auth/password/setup/confirm" | "POST /auth/password/reset/confirm" => {
            "email=gone@example.com&token=x&password=long+enough&confirm_password=long+enough"
        }
        "POST /cli/auth/start" => "port=12345",
        "POST /first-time-setup" => "step=register",
        "POST /desktop/link" => "",
        "POST /oauth/authorize" => "client_id=nothing&redirect_uri=https://matrix.example/cb&decision=allow",
        "POST /oauth/token" => "grant_type=authorization_code&client_id=nothing&code=x",
        "POST /oauth/revoke" => "token=x",
        _ => return None,
    })
}

/// The address of an operation: the table that the member may read, and ids that name nothing.
/// What is deleted is nothing, either: others come after.
pub(super) fn address(method: &str, path: &str) -> String {
    let mut address = String::new();
    for piece in path.split('/').skip(1) {
        let piece = match piece {
            "{table_id}" | "{table_name}" if method != "DELETE" => "orders",
            "{file}" => "index.css",
            piece if piece.starts_with('{') => "nothing",
            piece => piece,
        };
        let _ = write!(address, "/{piece}");
    }
    // What an operation cannot do without.
    match path {
        "/api/permissions/check" => address += "?user=nothing&dataset=orders",
        "/api/sync/assets/{kind}/download" => address += "?path=nothing",
        "/api/v2/metadata-cache/refresh" => address += "?table=orders",
        "/api/access-requests/{request_id}/preview" => address += "?group_id=nothing",
        _ => {}
    }
    address
}

#[test]
fn every_operation_answers_each_as_the_matrix_says() {
    let world = World::start_with(&[], &everything());
    let mut matrix = format!("{:<66}", "");
    EVERYBODY.iter().for_each(|who| write!(matrix, "{who:>9}").unwrap());
    matrix.push('\n');
    let mut missing = Vec::new();
    for (named, method, path, operation) in operations() {
        write!(matrix, "{named:<66}").unwrap();
        for who in EVERYBODY {
            if who == "session" {
                world.renew_session();
            }
            let answer = match method.as_str() {
                "GET" => world.get(who, &address(&method, &path)),
                "DELETE" => world.send(who, "DELETE", &address(&method, &path), &Value::Null),
                _ if form(&named).is_some() => world.form(who, &address(&method, &path), form(&named).unwrap()),
                other => world.send_with(who, other, &address(&method, &path), &body(&named), accept(&path)),
            };
            missing.extend(undescribed(operation, &answer).map(|what| format!("{who}: {named}: {what}")));
            write!(matrix, "{:>9}", answer.status).unwrap();
        }
        matrix.push('\n');
    }
    assert!(missing.is_empty(), "not described:\n{}", missing.join("\n"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/permissions.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &matrix).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(golden == matrix, "the matrix changed; `UPDATE_GOLDEN=1` writes it to {}:\n{matrix}", file.display());
}

/// Routes are made from their descriptions: one that is not described is not there.
#[test]
fn no_route_is_made_without_a_description() {
    let routes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agnes-http/src");
    let mut folders = vec![routes];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for way in [".route(", ".nest(", ".merge(", ".route_service(", ".nest_service("] {
                assert!(!text.contains(way), "{} has `{way}`", path.display());
            }
        }
    }
}
