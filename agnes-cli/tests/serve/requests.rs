//! Asking for access over HTTP: who is told what, and what an answer gives.

use serde_json::{Value, json};

use super::access::{group, told};
use super::world::World;

fn ask(world: &World, who: &str, table: &str) -> super::process::Answer {
    world.send(who, "POST", "/api/access-requests", &json!({"resource_id": table, "reason": "for the report"}))
}

fn may_read(world: &World, who: &str, table: &str) -> bool {
    world.send(who, "POST", "/api/query", &json!({"sql": format!("from {table}")})).status == 200
}

#[test]
fn an_approval_gives_what_was_announced_and_nothing_twice() {
    let world = World::start();
    let made = ask(&world, "stranger", "people");
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!((&made["status"], &made["resource_type"]), (&json!("pending"), &json!("table")));
    // What exists and what does not is answered alike.
    let unknown = ask(&world, "stranger", "no such table");
    assert_eq!(unknown.status, 201);
    assert_eq!(told(&ask(&world, "stranger", "PEOPLE")), (409, "already_pending".to_owned()));
    assert_eq!(told(&ask(&world, "member", "orders")), (409, "already_granted".to_owned()));
    let waiting = world.get("admin", "/api/access-requests/pending").json();
    assert_eq!(waiting["total"], 2);
    let row = waiting["items"].as_array().unwrap().iter().find(|row| row["resource_id"] == "people").unwrap();
    assert_eq!((&row["user_email"], &row["resource_exists"]), (&json!("stranger@example.com"), &json!(true)));
    assert_eq!((&row["user_groups"][0]["group_name"], &row["groups_with_grant"]), (&json!("Everyone"), &json!([])));
    let unknown = waiting["items"].as_array().unwrap().iter().find(|row| row["resource_id"] == "no such table");
    assert_eq!(unknown.unwrap()["resource_exists"], false);

    let (id, analysts) = (made["id"].as_str().unwrap(), group(&world, "analysts"));
    let preview = world.get("admin", &format!("/api/access-requests/{id}/preview?group_id={analysts}")).json();
    // The member of the group gains the table as well, and who asks the group's other table.
    let announced = |answer: &Value| {
        ["membership_added", "grant_added", "people_gaining_access", "other_tables"].map(|key| answer[key].clone())
    };
    assert_eq!(announced(&preview), [json!(true), json!(true), json!(2), json!(["orders"])]);
    assert!(preview["preview"]["changes"].is_array(), "{preview}");
    assert!(!may_read(&world, "stranger", "people") && !may_read(&world, "member", "people"), "a look changes nothing");

    // Two reviewers at once: one of them decides, and everything is there from then on.
    let body = json!({"group_id": analysts, "note": "welcome"});
    let path = format!("/api/access-requests/{id}/approve");
    let answers = std::thread::scope(|scope| {
        let one = scope.spawn(|| world.send("admin", "POST", &path, &body));
        let two = scope.spawn(|| world.send("admin", "POST", &path, &body));
        [one.join().unwrap(), two.join().unwrap()]
    });
    let done: Vec<&super::process::Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    let refused: Vec<&super::process::Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert_eq!((done.len(), told(refused[0])), (1, (409, "not_pending".to_owned())));
    assert_eq!(announced(&done[0].json()), announced(&preview));
    assert_eq!(done[0].json()["status"], "approved");
    assert!(may_read(&world, "stranger", "people") && may_read(&world, "stranger", "orders"));
    assert!(may_read(&world, "member", "people"));
    let mine = world.get("stranger", "/api/access-requests?status=approved").json();
    assert_eq!((&mine[0]["id"], &mine[0]["review_note"]), (&json!(id), &json!("welcome")));
    let audit = world.get("admin", "/api/admin/activity?action_prefix=access_request.approved").json();
    assert_eq!(audit["rows"].as_array().unwrap().iter().filter(|row| row["result"] == "success").count(), 1, "{audit}");
}

#[test]
fn requests_are_refused_taken_back_and_hidden_from_others() {
    let world = World::start();
    let id = |answer: super::process::Answer| answer.json()["id"].as_str().unwrap().to_owned();
    let (first, second) = (id(ask(&world, "stranger", "people")), id(ask(&world, "stranger", "orders")));
    let one = |id: &str| format!("/api/access-requests/{id}");
    assert_eq!(
        told(&world.send("member", "DELETE", &one(&first), &Value::Null)),
        (404, "request_not_found".to_owned()),
        "somebody else's does not exist"
    );
    assert_eq!(world.get("member", "/api/access-requests").json(), json!([]));
    assert_eq!(world.send("stranger", "DELETE", &one(&first), &Value::Null).status, 204);
    assert_eq!(told(&world.send("stranger", "DELETE", &one(&first), &Value::Null)), (409, "not_pending".to_owned()));
    let denied = world.send("admin", "POST", &format!("{}/deny", one(&second)), &json!({"note": "no"})).json();
    assert_eq!((&denied["status"], &denied["review_note"]), (&json!("denied"), &json!("no")));
    let late = world.send(
        "admin",
        "POST",
        &format!("{}/approve", one(&second)),
        &json!({"group_id": group(&world, "analysts")}),
    );
    assert_eq!(told(&late), (409, "not_pending".to_owned()));
    assert!(!may_read(&world, "stranger", "orders"));
    for n in 0..20 {
        assert_eq!(ask(&world, "stranger", &format!("t{n}")).status, 201);
    }
    assert_eq!(told(&ask(&world, "stranger", "t20")), (429, "too_many_requests_pending".to_owned()));
    assert_eq!(world.get("stranger", "/api/access-requests?limit=3&offset=1").json()[0]["resource_id"], "t18");
    for wrong in ["status=odd", "limit=0", "limit=1001"] {
        assert_eq!(world.get("stranger", &format!("/api/access-requests?{wrong}")).status, 422, "{wrong}");
    }
}

#[test]
fn what_is_locked_is_shown_only_where_the_operator_says_so() {
    let world = World::start();
    let locked = |world: &World, who: &str, path: &str| world.get(who, path).json().get("locked").cloned();
    assert_eq!(locked(&world, "stranger", "/api/v2/catalog"), None);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "instance: {name: Test}\nauth: {allowed_domain: example.com}\nserver: {host: localhost, hostname: localhost}\naccess_requests: {show_locked: true}\n";
    std::fs::write(file.path(), text).unwrap();
    let world = World::start_with(&["--config", file.path().to_str().unwrap()], &[]);
    for path in ["/api/v2/catalog", "/api/catalog/tables"] {
        let names = |who: &str| {
            let rows = locked(&world, who, path).unwrap_or_else(|| json!([]));
            rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("stranger"), ["orders", "people"]);
        assert_eq!(names("member"), ["people"]);
        assert!(names("admin").is_empty());
    }
}

/// The same from the command line, on the folder that is served.
#[test]
fn the_command_line_answers_too() {
    let world = World::start();
    let id = ask(&world, "stranger", "people").json()["id"].as_str().unwrap().to_owned();
    ask(&world, "member", "people");
    let command = |more: &[&str]| -> Value {
        let out = world.command(&[&["admin", "access-request"], more, &["--json"]].concat());
        serde_json::from_str(&out).unwrap()
    };
    assert_eq!(command(&["list"]).as_array().map(Vec::len), Some(2));
    let look = command(&["approve", &id[..12], "--group", "analysts", "--dry-run"]);
    assert_eq!((&look["people_gaining_access"], &look["grant_added"]), (&json!(2), &json!(true)));
    assert!(!may_read(&world, "stranger", "people"));
    let done = command(&["approve", &id[..12], "--group", "analysts", "--note", "welcome"]);
    assert_eq!((&done["status"], &done["people_gaining_access"]), (&json!("approved"), &json!(2)));
    assert!(may_read(&world, "stranger", "people"));
    let rest = command(&["list"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(command(&["deny", &rest])["status"], "denied");
    // And tokens: what is revoked here is refused there at once.
    let tokens: Value =
        serde_json::from_str(&world.command(&["admin", "token", "list", "--user", "stranger", "--json"])).unwrap();
    let token = tokens[0]["id"].as_str().unwrap().to_owned();
    world.command(&["admin", "token", "revoke", &token[..10], "--yes"]);
    assert_eq!(told(&world.get("stranger", "/auth/me")), (401, "token_revoked".to_owned()));
}
