//! Groups, grants and policies over HTTP, and what they do to the next call.

use serde_json::{Value, json};

use super::world::World;

/// The id of a group, by its name.
pub(super) fn group(world: &World, name: &str) -> String {
    let groups = world.get("admin", "/api/admin/groups").json();
    let found = groups.as_array().unwrap().iter().find(|group| group["name"] == name);
    found.unwrap()["id"].as_str().unwrap().to_owned()
}

pub(super) fn told(answer: &super::process::Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn groups_and_their_members() {
    let world = World::start();
    let new = json!({"name": "Sales", "description": "who sells"});
    let made = world.send("admin", "POST", "/api/admin/groups", &new);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!((&made["name"], &made["origin"], &made["member_count"]), (&json!("Sales"), &json!("custom"), &json!(0)));
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(world.get("admin", &format!("/api/admin/groups/{id}")).json(), made);
    let again = |body: Value| told(&world.send("admin", "POST", "/api/admin/groups", &body));
    assert_eq!(again(json!({"name": " sales "})), (409, "group_exists".to_owned()));
    assert_eq!(again(json!({"name": "  "})), (400, "name_required".to_owned()));
    // Names and beginnings of ids are for people who type.
    for close in ["Sales", &id[..8]] {
        let answer = world.send("admin", "DELETE", &format!("/api/admin/groups/{close}"), &Value::Null);
        assert_eq!(told(&answer), (404, "group_not_found".to_owned()));
    }
    let members = format!("/api/admin/groups/{id}/members");
    let added = world.send("admin", "POST", &members, &json!({"email": "Stranger@Example.com"})).json();
    assert_eq!((&added["email"], &added["source"]), (&json!("stranger@example.com"), &json!("admin")));
    let user = added["user_id"].as_str().unwrap().to_owned();
    for (body, expected) in [
        (json!({"user_id": user}), (409, "already_member")),
        (json!({"email": "gone@example.com"}), (404, "user_not_found")),
        (json!({}), (422, "validation_failed")),
        (json!({"email": "a@b.cz", "user_id": user}), (422, "validation_failed")),
    ] {
        let answer = told(&world.send("admin", "POST", &members, &body));
        assert_eq!(answer, (expected.0, expected.1.to_owned()), "{body}");
    }
    assert_eq!(world.get("admin", &members).json().as_array().map(Vec::len), Some(1));
    let member = format!("{members}/{user}");
    assert_eq!(world.send("admin", "DELETE", &member, &Value::Null).status, 204);
    assert_eq!(
        told(&world.send("admin", "DELETE", &member, &Value::Null)),
        (404, "no_removable_membership".to_owned())
    );
    assert_eq!(world.send("admin", "DELETE", &format!("/api/admin/groups/{id}"), &Value::Null).status, 204);
    let system = group(&world, "Admin");
    let refused = world.send("admin", "DELETE", &format!("/api/admin/groups/{system}"), &Value::Null);
    assert_eq!(told(&refused), (409, "system_group_delete".to_owned()));
    let admin = world.get("admin", &format!("/api/admin/groups/{system}/members")).json()[0]["user_id"].clone();
    let last = format!("/api/admin/groups/{system}/members/{}", admin.as_str().unwrap());
    assert_eq!(told(&world.send("admin", "DELETE", &last, &Value::Null)), (409, "last_admin".to_owned()));
}

#[test]
fn a_grant_is_made_seen_and_taken_back() {
    let world = World::start();
    let people = || world.send("member", "POST", "/api/query", &json!({"sql": "from people"})).status;
    assert_eq!(people(), 403);
    let new = json!({"group_id": group(&world, "analysts"), "resource_type": "table", "resource_id": "people"});
    let made = world.send("admin", "POST", "/api/admin/grants", &new);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!((&made["group_name"], &made["resource_exists"]), (&json!("analysts"), &json!(true)));
    assert_eq!(people(), 200, "from the next call on");
    assert_eq!(told(&world.send("admin", "POST", "/api/admin/grants", &new)), (409, "grant_exists".to_owned()));
    let mut other = new.clone();
    other["resource_type"] = json!("planet");
    assert_eq!(
        told(&world.send("admin", "POST", "/api/admin/grants", &other)),
        (400, "unknown_resource_type".to_owned())
    );
    let listed = |query: &str| world.get("admin", &format!("/api/admin/grants{query}")).json().as_array().map(Vec::len);
    assert_eq!(
        (listed(""), listed("?resource_id=people"), listed("?resource_type=memory_domain")),
        (Some(2), Some(1), Some(0))
    );
    let access = world.get("admin", "/api/admin/users/member@example.com/effective-access").json();
    let items = access["items"].as_array().unwrap();
    assert!(
        items.iter().any(|item| item["resource_id"] == "people" && item["via_groups"][0]["group_name"] == "analysts")
    );
    let grant = format!("/api/admin/grants/{}", made["id"].as_str().unwrap());
    assert_eq!(world.send("admin", "DELETE", &grant, &Value::Null).status, 204);
    assert_eq!(people(), 403, "gone from the next call on");
    assert_eq!(told(&world.send("admin", "DELETE", &grant, &Value::Null)), (404, "grant_not_found".to_owned()));
}

#[test]
fn a_policy_is_tried_made_changed_and_removed() {
    let world = World::start();
    let ids = || {
        world.send("member", "POST", "/api/query", &json!({"sql": "select id from orders order by id"})).json()["rows"]
            .clone()
    };
    let change = json!({"change": "create_policy", "group": "analysts", "table": "orders",
        "rules": {"filter": {"predicate": "status = 'paid'"}}});
    let preview = world.send("admin", "POST", "/api/admin/policies/dry-run", &change);
    assert_eq!(preview.status, 200, "{}", preview.text());
    assert_eq!(preview.json()["changes"][0]["email"], "member@example.com");
    assert_eq!(ids(), json!([[1], [2], [3], [4]]), "a dry run changes nothing");
    let new = json!({"group_id": group(&world, "analysts"), "table": "orders", "rules": change["rules"]});
    let made = world.send("admin", "POST", "/api/admin/policies", &new);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!(ids(), json!([[1], [3]]));
    assert_eq!(told(&world.send("admin", "POST", "/api/admin/policies", &new)), (409, "policy_exists".to_owned()));
    let policy = format!("/api/admin/policies/{}", made["id"].as_str().unwrap());
    let other = json!({"rules": {"filter": {"predicate": "status = 'open'"}}, "expected_version": 1});
    assert_eq!(world.send("admin", "PUT", &policy, &other).status, 200);
    assert_eq!(ids(), json!([[2]]));
    assert_eq!(told(&world.send("admin", "PUT", &policy, &other)), (409, "policy_changed".to_owned()));
    let wrong = json!({"rules": {"filter": {"predicate": "nothing = 1"}}});
    assert_eq!(world.send("admin", "PUT", &policy, &wrong).status, 400);
    assert_eq!(world.get("admin", &policy).json()["version"], 2);
    assert_eq!(world.get("admin", "/api/admin/policies?table=orders").json().as_array().map(Vec::len), Some(1));
    assert_eq!(world.get("admin", &format!("{policy}/history")).json().as_array().map(Vec::len), Some(2));
    let checks = world.send("admin", "POST", "/api/admin/policies/validate", &json!({})).json();
    assert_eq!((&checks[0]["ok"], &checks[0]["table"]), (&json!(true), &json!("orders")));
    assert_eq!(world.send("admin", "DELETE", &policy, &Value::Null).status, 204);
    assert_eq!(ids(), json!([[1], [2], [3], [4]]));
    assert_eq!(told(&world.get("admin", &policy)), (404, "policy_not_found".to_owned()));
}

#[test]
fn who_did_what_is_told_page_by_page() {
    let world = World::start();
    for n in 0..3 {
        world.send("member", "POST", "/api/query", &json!({"sql": format!("select {n} as Marked")}));
    }
    world.send("stranger", "POST", "/api/query", &json!({"sql": "from orders"}));
    let read = |query: &str| world.get("admin", &format!("/api/admin/activity?action_prefix=query.&{query}")).json();
    let first = read("limit=2");
    assert_eq!(first["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&first["rows"][0]["user_email"], &first["rows"][0]["result"]),
        (&json!("stranger@example.com"), &json!("denied"))
    );
    assert_eq!(first["rows"][0]["client_ip"], "127.0.0.1");
    let cursor = &first["next_cursor"];
    let second = read(&format!(
        "limit=2&cursor_ts={}&cursor_id={}",
        cursor["ts"].as_str().unwrap(),
        cursor["id"].as_str().unwrap()
    ));
    let ids = |page: &Value| page["rows"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&second).len(), 2);
    assert!(ids(&first).iter().all(|id| !ids(&second).contains(id)));
    assert_eq!(read("q=marked")["rows"].as_array().map(Vec::len), Some(3));
    assert_eq!(read("q=marked&client_kind=web")["rows"], json!([]));
    for wrong in ["limit=0", "limit=201", "since_minutes=0", "cursor_id=x", "cursor_ts=x&cursor_id=x"] {
        assert_eq!(world.get("admin", &format!("/api/admin/activity?{wrong}")).status, 422, "{wrong}");
    }
    assert_eq!(world.get("member", "/api/admin/activity").status, 403);
}

/// Also one that may do next to nothing; it ends no other.
#[test]
fn a_token_of_any_scope_may_end_itself() {
    let world = World::start();
    let id = |who: &str| world.get(who, "/auth/me").json()["auth"]["token_id"].as_str().unwrap().to_owned();
    let end = |who: &str, id: &str| world.send(who, "DELETE", &format!("/auth/tokens/{id}"), &Value::Null);
    let (narrow, general) = (id("narrow"), id("member"));
    let refused = end("narrow", &general);
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("scope_denied")));
    for (who, id) in [("narrow", narrow), ("member", general)] {
        assert_eq!(end(who, &id).status, 204, "{who}");
        let gone = world.get(who, "/auth/me");
        assert_eq!((gone.status, &gone.json()["code"]), (401, &json!("token_revoked")), "{who}");
    }
}
