//! An admin looks at what somebody else sees: reading alone, and never in silence.

use serde_json::{Value, json};

use super::access::told;
use super::world::World;

const AS_MEMBER: &str = "X-Agnes-See-As: Member@example.com\r\n";

fn get(world: &World, who: &str, path: &str, header: &str) -> super::process::Answer {
    world.server.get_with(path, &format!("{}{header}", world.authorization(who)))
}

#[test]
fn an_admin_sees_what_the_person_sees_and_the_log_says_so() {
    let world = World::start();
    let ask = |sql: &str| world.send_with("admin", "POST", "/api/query", &json!({"sql": sql}), AS_MEMBER);
    assert_eq!(ask("select count(*) from orders").json()["rows"], json!([[4]]));
    assert_eq!(ask("from people").status, 403, "the person may not read it, so neither may who looks on");
    assert_eq!(world.query("admin", "select count(*) from people", "application/json").status, 200);
    let me = get(&world, "admin", "/auth/me", AS_MEMBER).json();
    assert_eq!((&me["email"], &me["is_admin"]), (&json!("member@example.com"), &json!(false)));
    let names = |answer: super::process::Answer| {
        let tables = answer.json()["tables"].as_array().unwrap().clone();
        tables.iter().map(|table| table["name"].clone()).collect::<Vec<_>>()
    };
    let (theirs, seen) = (world.get("member", "/api/v2/catalog"), get(&world, "admin", "/api/v2/catalog", AS_MEMBER));
    assert_eq!(names(seen), names(theirs));
    assert_eq!(told(&get(&world, "admin", "/api/data/people/download", AS_MEMBER)).0, 403);
    assert_eq!(get(&world, "admin", "/api/sync/manifest", AS_MEMBER).status, 200);
    assert!(world.get("member", "/auth/me").json()["last_pull_at"].is_null(), "they fetched nothing");
    let looks = world.get("admin", "/api/admin/activity?action_prefix=admin.see_as&limit=200").json();
    let rows = looks["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "one row for each look: {looks}");
    assert!(
        rows.iter().all(|row| row["user_email"] == "admin@example.com" && row["resource"] == "user:member@example.com")
    );
    let asked = world.get("admin", "/api/admin/activity?action_prefix=query.&q=orders").json();
    assert_eq!(asked["rows"][0]["user_email"], "admin@example.com", "who looks on is who did it");
    assert!(asked["rows"][0]["params"]["as_user"].is_string());
    assert_eq!(world.get("member", "/api/me/stats/queries").json()["rows"], json!([]));
}

#[test]
fn nothing_is_changed_in_somebody_elses_name() {
    let world = World::start();
    let document = agnes_http::document();
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation.get("security").is_none() || path == "/auth/logout" {
                continue;
            }
            let reads = method == "get"
                || ["/api/query", "/api/query/replay", "/api/v2/scan", "/api/v2/scan/estimate"]
                    .contains(&path.as_str());
            let told_of = operation["parameters"].as_array().is_some_and(|parameters| {
                parameters.iter().any(|parameter| parameter["name"] == "X-Agnes-See-As" && parameter["in"] == "header")
            });
            assert_eq!(told_of, reads, "{method} {path}");
            if reads {
                continue;
            }
            let method = method.to_uppercase();
            let address = super::matrix::address(&method, path);
            let answer = world.send_with("admin", &method, &address, &json!({}), AS_MEMBER);
            if path.starts_with("/api/") {
                assert_eq!(told(&answer), (403, "read_only_view".to_owned()), "{method} {path}");
            } else {
                // Forms of pages are for sessions alone.
                assert!(answer.status >= 400, "{method} {path}: {}", answer.status);
            }
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
    let refused = |who: &str, header: &str| told(&get(&world, who, "/api/v2/catalog", header));
    assert_eq!(refused("service", AS_MEMBER), (403, "service_forbidden".to_owned()));
    for who in ["member", "stranger", "narrow"] {
        assert_eq!(refused(who, AS_MEMBER), (403, "admin_required".to_owned()), "{who}");
    }
    assert_eq!(refused("nobody", AS_MEMBER).0, 401);
    assert_eq!(refused("admin", "X-Agnes-See-As: gone@example.com\r\n"), (404, "user_not_found".to_owned()));
    assert_eq!(
        refused("admin", "X-Agnes-See-As: member\r\n"),
        (404, "user_not_found".to_owned()),
        "no beginning of one"
    );
    // A narrow token of an Admin, and an Admin who is looked at.
    world.command(&["admin", "group", "add-member", "Admin", "member@example.com"]);
    assert_eq!(refused("narrow", "X-Agnes-See-As: stranger@example.com\r\n"), (403, "scope_denied".to_owned()));
    assert_eq!(told(&get(&world, "admin", "/api/users", AS_MEMBER)), (403, "read_only_view".to_owned()));
    world.send("admin", "POST", "/api/users/stranger@example.com/deactivate", &Value::Null);
    assert_eq!(refused("admin", "X-Agnes-See-As: stranger@example.com\r\n"), (409, "user_deactivated".to_owned()));
}
