//! Who may call what: every operation, as everybody, against a running server.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::world::World;

/// In the order of their rights, so that whoever may not change anything tries first.
/// `narrow` is a token of the member that only sets up a laptop, `service` the scheduler's.
const EVERYBODY: [&str; 6] = ["nobody", "stranger", "narrow", "member", "service", "admin"];

/// A body that is taken by whoever may call the operation.
fn body(operation: &str) -> Value {
    let rules = json!({"filter": {"predicate": "true"}});
    match operation {
        // A password that nobody has: 401 is the answer of the operation, not of the gate.
        "POST /auth/token" | "POST /auth/password/login" => json!({"email": "gone@example.com", "password": "x"}),
        "POST /auth/bootstrap" => json!({"email": "gone@example.com", "password": "long enough"}),
        "POST /auth/password/setup" => json!({"email": "gone@example.com", "token": "x", "password": "long enough"}),
        "POST /auth/password/change" => json!({"new_password": "long enough"}),
        "POST /auth/tokens" => json!({"name": "made by the matrix"}),
        "POST /auth/logout" | "POST /auth/logout-all" => Value::Null,
        "POST /api/query" => json!({"sql": "select 1"}),
        "POST /api/me/onboarded" => json!({}),
        "POST /api/sync/settings" | "POST /api/sync-settings" => json!({"datasets": {"orders": true}}),
        "POST /api/sync/table-subscriptions" => json!({"table_mode": "all"}),
        "PUT /api/settings/dataset" => json!({"dataset": "orders", "enabled": true}),
        "POST /api/admin/groups" => json!({"name": "made by the matrix"}),
        "POST /api/admin/groups/{group_id}/members" => json!({"user_id": "nothing"}),
        "POST /api/admin/grants" => json!({"group_id": "nothing", "resource_type": "table", "resource_id": "orders"}),
        "POST /api/admin/policies" => json!({"group_id": "nothing", "table": "orders", "rules": rules}),
        "PUT /api/admin/policies/{policy_id}" => json!({"rules": rules}),
        "POST /api/admin/policies/validate" => json!({}),
        "POST /api/admin/policies/dry-run" => json!({"change": "grant", "group": "analysts", "table": "people"}),
        "POST /api/sync/trigger" => json!(["nothing"]),
        "POST /api/catalog/profile/{table_name}/refresh" => Value::Null,
        other => panic!("`{other}` takes a body: say which one is valid"),
    }
}

/// The address of an operation: the table that the member may read, and ids that name nothing.
fn address(path: &str) -> String {
    let mut address = String::new();
    for piece in path.split('/').skip(1) {
        let piece = match piece {
            "{table_id}" | "{table_name}" => "orders",
            piece if piece.starts_with('{') => "nothing",
            piece => piece,
        };
        let _ = write!(address, "/{piece}");
    }
    address
}

#[test]
fn every_operation_answers_each_as_the_matrix_says() {
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0")]);
    let document = serde_json::to_value(agnes_http::document()).unwrap();
    let mut matrix = format!("{:<66}", "");
    EVERYBODY.iter().for_each(|who| write!(matrix, "{who:>9}").unwrap());
    matrix.push('\n');
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let (method, named) = (method.to_uppercase(), format!("{} {path}", method.to_uppercase()));
            write!(matrix, "{named:<66}").unwrap();
            for who in EVERYBODY {
                let answer = match method.as_str() {
                    "GET" => world.get(who, &address(path)),
                    "DELETE" => world.send(who, "DELETE", &address(path), &Value::Null),
                    method => world.send(who, method, &address(path), &body(&named)),
                };
                let documented = operation["responses"].get(answer.status.to_string()).is_some();
                assert!(documented, "{who}: {named} answers {}, which is not described", answer.status);
                write!(matrix, "{:>9}", answer.status).unwrap();
            }
            matrix.push('\n');
        }
    }
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
