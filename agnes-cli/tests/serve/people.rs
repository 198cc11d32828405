//! Accounts, memberships, permissions and saved filters over HTTP.

use serde_json::{Value, json};

use super::access::{group, told};
use super::world::{PASSWORD, World};

fn id_of(world: &World, email: &str) -> String {
    world.get("admin", &format!("/api/users/{email}")).json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_account_is_made_changed_ended_and_deleted() {
    let world = World::start();
    let new = json!({"email": " New@Example.com ", "name": "Nina", "groups": [group(&world, "analysts")]});
    let made = world.send("admin", "POST", "/api/users", &new);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!((&made["email"], &made["name"]), (&json!("new@example.com"), &json!("Nina")));
    assert_eq!(
        (&made["role"], &made["is_admin"], &made["is_sso_user"]),
        (&json!("user"), &json!(false), &json!(false))
    );
    assert_eq!((&made["has_password"], &made["active"]), (&json!(false), &json!(true)));
    let groups: Vec<&Value> = made["groups"].as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert_eq!(groups, ["Everyone", "analysts"], "a new user is in Everyone");
    assert!(made.get("invite_url").is_none(), "nobody asked for an invitation");
    let id = made["id"].as_str().unwrap();
    let new_again = |email: &str| told(&world.send("admin", "POST", "/api/users", &json!({"email": email})));
    assert_eq!(new_again("NEW@example.com"), (409, "user_exists".to_owned()));
    assert_eq!(new_again("no address"), (400, "invalid_email".to_owned()));
    let lost = json!({"email": "lost@example.com", "groups": ["nothing"]});
    assert_eq!(told(&world.send("admin", "POST", "/api/users", &lost)), (404, "group_not_found".to_owned()));
    assert_eq!(
        world.get("admin", "/api/users/lost@example.com").status,
        404,
        "nobody is made whose group is not there"
    );
    // By id or address, but not by the beginning of either.
    let (by_id, by_email) = (format!("/api/users/{id}"), "/api/users/New@Example.com");
    assert_eq!(world.get("admin", &by_id).json(), world.get("admin", by_email).json());
    assert_eq!(told(&world.get("admin", "/api/users/new@")), (404, "user_not_found".to_owned()));
    let patched = world.send("admin", "PATCH", &by_id, &json!({"name": "Nina N."})).json();
    assert_eq!((&patched["name"], &patched["active"]), (&json!("Nina N."), &json!(true)));
    let patched = world.send("admin", "PATCH", &by_id, &json!({"active": false})).json();
    assert!(patched["active"] == false && patched["deactivated_at"].is_string());
    assert_eq!(new_again("new@example.com"), (409, "user_exists".to_owned()));
    let again = world.send("admin", "POST", "/api/users", &json!({"email": "new@example.com"})).json();
    assert!(again["detail"].as_str().unwrap().contains("not active"), "{again}");
    assert_eq!(world.send("admin", "POST", &format!("{by_id}/activate"), &Value::Null).json()["active"], true);
    assert_eq!(world.send("admin", "POST", &format!("{by_id}/deactivate"), &Value::Null).json()["active"], false);
    assert_eq!(world.send("admin", "DELETE", &by_id, &Value::Null).status, 204);
    assert_eq!(told(&world.send("admin", "DELETE", &by_id, &Value::Null)), (404, "user_not_found".to_owned()));
    let done = world.get("admin", "/api/admin/activity?action_prefix=user.&result_pattern=success").json();
    let rows = done["rows"].as_array().unwrap();
    let actions: Vec<&str> = rows.iter().map(|row| row["action"].as_str().unwrap()).collect();
    let expected = ["user.delete", "user.deactivate", "user.activate", "user.deactivate", "user.update", "user.create"];
    assert_eq!(actions[..6], expected, "{done}");
}

#[test]
fn the_list_is_searched_and_paged() {
    let world = World::start();
    let emails = |query: &str| {
        let list = world.get("admin", &format!("/api/users{query}")).json();
        let emails = list.as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap().to_owned());
        emails.collect::<Vec<_>>()
    };
    let [admin, member, stranger] = ["admin", "member", "stranger"].map(|who| format!("{who}@example.com"));
    assert_eq!(emails(""), [&admin, &member, &stranger].map(Clone::clone), "accounts of Agnes itself are left out");
    assert_eq!(emails("?q=MEMB"), ["member@example.com"]);
    assert_eq!(emails("?limit=1&offset=1"), ["member@example.com"]);
    world.send("admin", "POST", &format!("/api/users/{stranger}/deactivate"), &Value::Null);
    assert_eq!(emails("?active=false"), [stranger]);
    assert_eq!(emails("?active=true"), [admin.clone(), member]);
    let seen = world.get("admin", &format!("/api/users/{admin}")).json();
    assert!(seen["last_seen_at"].is_string() && seen["has_password"] == true && seen["role"] == "admin", "{seen}");
    for wrong in ["limit=0", "limit=10001", "active=maybe", "offset=-1"] {
        assert_eq!(world.get("admin", &format!("/api/users?{wrong}")).status, 422, "{wrong}");
    }
}

#[test]
fn whoever_is_locked_out_is_out_at_once() {
    let world = World::start();
    let member = id_of(&world, "member@example.com");
    assert_eq!(world.get("member", "/auth/me").status, 200);
    world.send("admin", "POST", &format!("/api/users/{member}/deactivate"), &Value::Null);
    assert_eq!(told(&world.get("member", "/auth/me")), (401, "account_deactivated".to_owned()));
    world.send("admin", "POST", &format!("/api/users/{member}/activate"), &Value::Null);
    assert_eq!(world.get("member", "/auth/me").status, 200);
    let me = id_of(&world, "admin@example.com");
    let own = |method: &str, path: &str, body: Value| {
        told(&world.send("admin", method, &format!("/api/users/{me}{path}"), &body))
    };
    let refused = (409, "self_target".to_owned());
    assert_eq!(own("POST", "/deactivate", Value::Null), refused);
    assert_eq!(own("PATCH", "", json!({"active": false})), refused);
    assert_eq!(own("DELETE", "", Value::Null), refused);
}

#[test]
fn a_password_is_set_and_has_to_be_changed() {
    let world = World::start();
    let sign_in = |password: &str| {
        let body = json!({"email": "member@example.com", "password": password});
        world.send("nobody", "POST", "/auth/token", &body)
    };
    let session = sign_in(PASSWORD).json()["access_token"].as_str().unwrap().to_owned();
    let me = || world.server.get_with("/auth/me", &format!("Authorization: Bearer {session}\r\n")).status;
    assert_eq!(me(), 200);
    let set = |body: Value| world.send("admin", "POST", "/api/users/member@example.com/set-password", &body);
    assert_eq!(told(&set(json!({"password": "short"}))), (400, "password_too_short".to_owned()));
    assert_eq!(set(json!({"password": "another long one"})).status, 204);
    assert_eq!(me(), 401, "their sessions end");
    assert_eq!(told(&sign_in("another long one")), (403, "password_change_required".to_owned()));
    assert_eq!(set(json!({"password": "a third long one", "must_change": false})).status, 204);
    assert_eq!(sign_in("a third long one").status, 200);
    let reset = world.send("admin", "POST", "/api/users/member@example.com/reset-password", &Value::Null).json();
    let url = reset["reset_url"].as_str().unwrap();
    assert!(url.contains("/auth/password/reset?email=member%40example.com&token="), "{url}");
    assert_eq!(reset["email_sent"], false, "no transport is set up");
    let rows = world.get("admin", "/api/admin/activity?action_prefix=user.").text();
    let token = url.rsplit_once("token=").unwrap().1;
    assert!(rows.contains("user.set_password") && rows.contains("user.reset_password"));
    assert!(!rows.contains("long one") && !rows.contains(token), "no secret gets into the log");
}

#[test]
fn an_invitation_sets_the_first_password() {
    let world = World::start();
    let new = json!({"email": "new@example.com", "send_invite": true});
    let made = world.send("admin", "POST", "/api/users", &new).json();
    assert_eq!(made["invite_email_sent"], false);
    let url = made["invite_url"].as_str().unwrap();
    assert!(url.contains("/auth/password/setup?email=new%40example.com&token="), "{url}");
    let token = url.rsplit_once("token=").unwrap().1;
    let body = json!({"email": "new@example.com", "token": token, "password": "long enough"});
    assert_eq!(world.send("nobody", "POST", "/auth/password/setup", &body).status, 200);
    assert_eq!(world.get("admin", "/api/users/new@example.com").json()["has_password"], true);
    let used = world.send("nobody", "POST", "/auth/password/setup", &body);
    assert_eq!(told(&used), (400, "token_invalid_or_expired".to_owned()));
}

/// Two requests at the same time that would each take one of the last two Admins away.
#[test]
fn one_admin_is_left_whoever_hurries() {
    let world = World::start();
    let admins = group(&world, "Admin");
    let (admin, member) = (id_of(&world, "admin@example.com"), id_of(&world, "member@example.com"));
    for round in 0..6 {
        world.send("admin", "POST", &format!("/api/admin/groups/{admins}/members"), &json!({"user_id": member}));
        // Each of the two Admins is taken away by the other, on another path each time.
        let (first, second) = match round % 3 {
            0 => (
                format!("/api/admin/groups/{admins}/members/{member}"),
                format!("/api/admin/users/{admin}/memberships/{admins}"),
            ),
            1 => (format!("/api/users/{member}/deactivate"), format!("/api/users/{admin}/deactivate")),
            _ => (format!("/api/admin/users/{member}/memberships/{admins}"), format!("/api/users/{admin}/deactivate")),
        };
        let method = |path: &str| if path.ends_with("deactivate") { "POST" } else { "DELETE" };
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| world.send("admin", method(&first), &first, &Value::Null));
            let two = scope.spawn(|| world.send("member", method(&second), &second, &Value::Null));
            (one.join().unwrap(), two.join().unwrap())
        });
        let done = [one.status, two.status].into_iter().filter(|status| *status < 300).count();
        assert_eq!(done, 1, "{} {} {} {}", one.status, one.text(), two.status, two.text());
        // Whoever is left mends it for the next round.
        let left = if one.status < 300 { "admin" } else { "member" };
        for id in [&admin, &member] {
            world.send(left, "POST", &format!("/api/users/{id}/activate"), &Value::Null);
            world.send(left, "POST", &format!("/api/admin/groups/{admins}/members"), &json!({"user_id": id}));
        }
        assert_eq!(
            world.get("admin", &format!("/api/admin/groups/{admins}")).json()["member_count"],
            3,
            "with the service"
        );
        world.send("admin", "DELETE", &format!("/api/admin/groups/{admins}/members/{member}"), &Value::Null);
    }
}

#[test]
fn memberships_and_groups_are_changed() {
    let world = World::start();
    let analysts = group(&world, "analysts");
    let path = "/api/admin/users/stranger@example.com/memberships";
    let names = || {
        let rows = world.get("admin", path).json();
        rows.as_array().unwrap().iter().map(|row| row["group_name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["Everyone"]);
    let made = world.send("admin", "POST", path, &json!({"group_id": analysts}));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!((&made.json()["source"], &made.json()["origin"]), (&json!("admin"), &json!("custom")));
    assert_eq!(
        told(&world.send("admin", "POST", path, &json!({"group_id": analysts}))),
        (409, "already_member".to_owned())
    );
    assert_eq!(world.send("stranger", "POST", "/api/query", &json!({"sql": "from orders"})).status, 200);
    let mine = world.get("stranger", "/api/me/effective-access").json();
    assert_eq!(mine["items"][0]["resource_id"], "orders");
    assert_eq!(mine["items"][0]["via_groups"][0]["group_name"], "analysts");
    assert_eq!(world.send("admin", "DELETE", &format!("{path}/{analysts}"), &Value::Null).status, 204);
    assert_eq!(names(), ["Everyone"]);
    assert_eq!(world.send("stranger", "POST", "/api/query", &json!({"sql": "from orders"})).status, 403);
    let patch = |id: &str, body: Value| world.send("admin", "PATCH", &format!("/api/admin/groups/{id}"), &body);
    let changed = patch(&analysts, json!({"name": "Analysts of Prague"})).json();
    assert_eq!((&changed["name"], &changed["member_count"]), (&json!("Analysts of Prague"), &json!(1)));
    let changed = patch(&analysts, json!({"description": "who ask"})).json();
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Analysts of Prague"), &json!("who ask")));
    assert_eq!(told(&patch(&analysts, json!({"name": "everyone"}))), (409, "group_exists".to_owned()));
    assert_eq!(told(&patch(&analysts, json!({"name": " "}))), (400, "name_required".to_owned()));
    let admins = group(&world, "Admin");
    assert_eq!(told(&patch(&admins, json!({"name": "Bosses"}))), (409, "system_group_rename".to_owned()));
}

#[test]
fn everything_about_access_at_once() {
    let world = World::start();
    let types = world.get("admin", "/api/admin/resource-types").json();
    let keys: Vec<&Value> = types.as_array().unwrap().iter().map(|kind| &kind["key"]).collect();
    assert_eq!(keys, ["table", "marketplace_plugin", "memory_domain"]);
    let all = world.get("admin", "/api/admin/access-overview").json();
    assert_eq!(all["groups"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (&all["grants"][0]["resource_id"], &all["grants"][0]["resource_exists"]),
        (&json!("orders"), &json!(true))
    );
    let tables: Vec<&Value> = all["resources"][0]["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|block| block["items"].as_array().unwrap())
        .collect();
    let ids: Vec<&Value> = tables.iter().map(|item| &item["resource_id"]).collect();
    assert!(ids.contains(&&json!("orders")) && ids.contains(&&json!("people")), "{all}");
    assert!(!ids.contains(&&json!("agnes_audit")), "nobody has to be granted an internal table");
    let domains = &all["resources"][2]["blocks"][0]["items"];
    assert_eq!(domains.as_array().map(Vec::len), Some(6));
}

#[test]
fn permissions_are_grants_of_tables() {
    let world = World::start();
    let people = || world.send("member", "POST", "/api/query", &json!({"sql": "from people"})).status;
    let new = json!({"dataset": "People", "group": "analysts"});
    let made = world.send("admin", "POST", "/api/permissions", &new);
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!((&made.json()["dataset"], &made.json()["users_count"]), (&json!("people"), &json!(1)));
    assert_eq!(people(), 200);
    let again = world.send("admin", "POST", "/api/permissions", &new);
    assert_eq!((again.status, &again.json()["id"]), (200, &made.json()["id"]));
    let listed = |query: &str| world.get("admin", &format!("/api/permissions{query}")).json();
    assert_eq!(listed("").as_array().map(Vec::len), Some(2));
    assert_eq!(listed("?dataset=people").as_array().map(Vec::len), Some(1));
    assert_eq!(listed("?user=stranger@example.com"), json!([]));
    let of_member = listed("?user=member@example.com&dataset=orders");
    assert_eq!(of_member[0]["via_groups"][0]["group_name"], "analysts");
    let check = |who: &str| {
        let found = world.get("admin", &format!("/api/permissions/check?user={who}@example.com&dataset=people")).json();
        (found["allowed"].as_bool().unwrap(), found["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(check("member"), (true, "group".to_owned()));
    assert_eq!(check("admin"), (true, "admin".to_owned()));
    assert_eq!(check("stranger"), (false, "none".to_owned()));
    // A grant of another kind is no permission.
    let other = json!({"group_id": group(&world, "analysts"), "resource_type": "memory_domain", "resource_id": "data"});
    let other = world.send("admin", "POST", "/api/admin/grants", &other).json();
    assert_eq!(other["resource_exists"], true);
    let one = |id: &Value| format!("/api/permissions/{}", id.as_str().unwrap());
    let gone = |id: &Value| world.send("admin", "DELETE", &one(id), &Value::Null).status;
    assert_eq!(gone(&other["id"]), 404);
    assert_eq!(gone(&made.json()["id"]), 204);
    assert_eq!(people(), 403);
    assert_eq!(gone(&made.json()["id"]), 404);
}

#[test]
fn everybody_sees_what_they_did_and_admins_the_figures() {
    let world = World::start();
    for n in 0..3 {
        world.send("member", "POST", "/api/query", &json!({"sql": format!("select {n}")}));
    }
    world.send("stranger", "POST", "/api/query", &json!({"sql": "from orders"}));
    world.get("member", "/api/sync/manifest");
    world.get("member", "/api/data/orders/download");
    let first = world.get("member", "/api/me/stats/queries?limit=2").json();
    assert_eq!(first["rows"].as_array().map(Vec::len), Some(2));
    let cursor = &first["next_cursor"];
    let next = format!(
        "/api/me/stats/queries?limit=2&cursor_ts={}&cursor_id={}",
        cursor["timestamp"].as_str().unwrap(),
        cursor["id"].as_str().unwrap()
    );
    let second = world.get("member", &next).json();
    assert_eq!((second["rows"].as_array().map(Vec::len), &second["next_cursor"]), (Some(1), &Value::Null));
    let synced = world.get("member", "/api/me/stats/sync").json();
    let actions: Vec<&Value> = synced["rows"].as_array().unwrap().iter().map(|row| &row["action"]).collect();
    assert!(actions.contains(&&json!("manifest.fetch")) && actions.contains(&&json!("data.download")), "{synced}");
    assert!(synced["last_pull_at"].is_string());
    assert_eq!(world.get("admin", "/api/me/stats/queries").json()["rows"], json!([]), "one's own rows alone");
    let facets = world.get("admin", "/api/admin/observability/facets").json();
    let user = &facets["users"].as_array().unwrap().iter().find(|user| user["label"] == "member@example.com").unwrap();
    assert!(user["count"].as_u64().unwrap() >= 5, "{facets}");
    assert!(facets["actions"].as_array().unwrap().iter().any(|one| one["value"] == "query.local"));
    let kpis = world.get("admin", "/api/admin/observability/kpis?action_prefix=query.").json();
    assert_eq!((&kpis["events_total"], &kpis["active_users"]), (&json!(4), &json!(2)), "{kpis}");
    let rows =
        world.get("admin", &format!("/api/admin/users/{}/activity", id_of(&world, "stranger@example.com"))).json();
    assert_eq!(rows["rows"][0]["action"], "query.local", "{rows}");
    let syncs = world.get("admin", "/api/admin/activity/sync").json();
    let row = syncs["rows"].as_array().unwrap().iter().find(|row| row["table_name"] == "orders").unwrap();
    assert_eq!((&row["status"], &row["rows"]), (&json!("ok"), &json!(4)));
    assert!(row["size_bytes"].as_i64().unwrap() > 0, "{row}");
    let pulse = world.get("admin", "/api/admin/activity/health").json();
    let keys: Vec<&Value> = pulse["fields"].as_array().unwrap().iter().map(|field| &field["key"]).collect();
    assert_eq!(keys, ["scheduler", "sync_24h", "active_users_today", "memory_pipeline", "diagnose_warnings"]);
    assert_eq!(pulse["fields"][1]["value"], "2 ok, 0 failed", "{pulse}");
}

#[test]
fn filters_are_kept_for_oneself() {
    let world = World::start();
    let views = "/api/admin/observability/views";
    let save = |name: &str, query: Value| world.send("admin", "POST", views, &json!({"name": name, "query": query}));
    let made = save("refused", json!({"result_pattern": "denied"}));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(told(&save("refused", json!({}))), (409, "view_exists".to_owned()));
    assert_eq!(told(&save(&"x".repeat(81), json!({}))), (400, "invalid_view".to_owned()));
    assert_eq!(told(&save("large", json!({"q": "x".repeat(65 << 10)}))), (400, "invalid_view".to_owned()));
    assert_eq!(save("no object", json!([])).status, 422);
    let kept = world.get("admin", views).json()["views"].clone();
    assert_eq!((kept.as_array().map(Vec::len), &kept[0]["id"]), (Some(1), &made.json()["id"]));
    assert_eq!(kept[0]["query"], json!({"result_pattern": "denied"}));
    for n in 1..100 {
        assert_eq!(save(&format!("v{n}"), json!({})).status, 201);
    }
    assert_eq!(told(&save("one more", json!({}))), (409, "too_many_views".to_owned()));
    let one = format!("{views}/{}", made.json()["id"].as_str().unwrap());
    // Somebody else's does not exist for another Admin.
    world.command(&["admin", "group", "add-member", "Admin", "member@example.com"]);
    assert_eq!(world.get("member", views).json()["views"], json!([]));
    assert_eq!(told(&world.send("member", "DELETE", &one, &Value::Null)), (404, "view_not_found".to_owned()));
    assert_eq!(world.send("admin", "DELETE", &one, &Value::Null).status, 204);
}

/// What the token of the service is not for, beside what the matrix shows.
#[test]
fn the_service_neither_sees_nor_changes_who_may_what() {
    let world = World::start();
    let member = id_of(&world, "member@example.com");
    let analysts = group(&world, "analysts");
    for (method, path) in [
        ("GET", "/api/users".to_owned()),
        ("GET", format!("/api/users/{member}")),
        ("DELETE", format!("/api/users/{member}")),
        ("POST", format!("/api/users/{member}/reset-password")),
        ("GET", "/api/admin/groups".to_owned()),
        ("GET", format!("/api/admin/groups/{analysts}/members")),
        ("GET", "/api/admin/grants".to_owned()),
        ("GET", "/api/admin/access-overview".to_owned()),
        ("GET", format!("/api/admin/users/{member}/memberships")),
        ("GET", format!("/api/admin/users/{member}/effective-access")),
        ("GET", "/api/permissions".to_owned()),
        ("GET", "/api/access-requests".to_owned()),
        ("GET", "/api/access-requests/pending".to_owned()),
        ("GET", "/auth/admin/tokens".to_owned()),
        ("GET", "/auth/tokens".to_owned()),
        ("GET", "/auth/me".to_owned()),
    ] {
        let answer = world.send("service", method, &path, &Value::Null);
        assert_eq!(told(&answer), (403, "service_forbidden".to_owned()), "{method} {path}");
    }
    assert_eq!(world.get("service", "/api/admin/activity").status, 200, "what happened is its business");
}

/// A link that goes by mail leads to this server, whatever host a request from elsewhere names.
#[test]
fn links_follow_no_forged_host() {
    let world = World::start_with(&[], &[("DOMAIN", "agnes.example")]);
    let invited = |email: &str, host: &str, more: &str| {
        let body = json!({"email": email, "send_invite": true}).to_string();
        let answer = world.server.send(&format!(
            "POST /api/users HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{}{more}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            world.authorization("admin"),
            body.len()
        ));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["invite_url"].as_str().unwrap().to_owned()
    };
    let elsewhere = "X-Forwarded-For: 203.0.113.9\r\n";
    for (number, host) in ["localhost:31337", "127.0.0.1:31337", "[::1]:31337", "evil.example"].iter().enumerate() {
        let link = invited(&format!("far{number}@example.com"), host, elsewhere);
        assert!(link.starts_with("https://agnes.example/"), "{host}: {link}");
    }
    let own = invited("own@example.com", "agnes.example:8443", elsewhere);
    assert!(own.starts_with("http://agnes.example:8443/"), "{own}");
    let here = invited("here@example.com", "localhost:31337", "");
    assert!(here.starts_with("http://localhost:31337/"), "who is at this machine is meant: {here}");
}
