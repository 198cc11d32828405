//! What clients of the contract count on, beside the subjects that have a file of their own.

use std::time::{Duration, Instant};

use agnes_core::clock::FixedClock;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::{CallContext, Engine};
use serde_json::{Value, json};

use super::access::told;
use super::process::{Answer, Server};
use super::world::{World, run};

/// A request without a body, and without saying which kind it would be.
fn bare(world: &World, who: &str, method: &str, path: &str) -> Answer {
    let authorization = world.authorization(who);
    world.server.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{authorization}Content-Length: 0\r\n\r\n"
    ))
}

#[test]
fn figures_are_for_the_machine_the_service_and_admins() {
    let world = World::start();
    assert_eq!(world.server.get("/metrics").status, 200, "from the machine itself");
    // A proxy says that it passes the request on.
    let elsewhere = |who: &str| {
        let headers = format!("{}X-Forwarded-For: 203.0.113.9\r\n", world.authorization(who));
        world.server.get_with("/metrics", &headers)
    };
    for who in ["admin", "service"] {
        let answer = elsewhere(who);
        assert_eq!(answer.status, 200, "{who}");
        assert!(answer.text().contains("# EOF"), "{who}");
    }
    for who in ["member", "stranger", "narrow"] {
        assert_eq!(told(&elsewhere(who)), (403, "admin_required".to_owned()), "{who}");
    }
    assert_eq!(told(&elsewhere("nobody")), (401, "auth_required".to_owned()));
}

#[test]
fn the_deployment_says_which_build_it_is() {
    let variables = [
        ("AGNES_VERSION", "2026.7.1"),
        ("RELEASE_CHANNEL", "stable"),
        ("AGNES_TAG", "stable-2026.7.1"),
        ("AGNES_COMMIT_SHA", "d00df00d"),
    ];
    let server = Server::start_with(tempfile::tempdir().unwrap(), &[], &variables);
    let build = server.get("/api/version").json();
    assert_eq!(build["version"], "2026.7.1");
    assert_eq!((&build["channel"], &build["image_tag"]), (&json!("stable"), &json!("stable-2026.7.1")));
    assert_eq!(build["commit_sha"], "d00df00d");
    let plain = Server::start().get("/api/version").json();
    assert_eq!((&plain["version"], &plain["channel"]), (&json!(env!("CARGO_PKG_VERSION")), &Value::Null));
}

#[test]
fn settings_have_the_fields_of_every_row() {
    let world = World::start();
    world.send("member", "PUT", "/api/settings/dataset", &json!({"dataset": "orders", "enabled": true}));
    let body = json!({"table_mode": "explicit", "tables": {"orders": true}});
    assert_eq!(world.send("member", "POST", "/api/sync/table-subscriptions", &body).status, 200);
    for (path, key) in [
        ("/api/settings", "sync_settings"),
        ("/api/sync/settings", "settings"),
        ("/api/sync-settings", "settings"),
        ("/api/sync/table-subscriptions", "subscriptions"),
    ] {
        let rows = world.get("member", path).json()[key].clone();
        let row =
            rows.as_array().unwrap().iter().find(|row| row["dataset"] == "orders").unwrap_or_else(|| panic!("{path}"));
        let mut names: Vec<&String> = row.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["dataset", "enabled", "table_mode", "tables", "updated_at"], "{path}");
        assert_eq!((&row["table_mode"], &row["tables"]), (&json!("explicit"), &Value::Null), "{path}");
    }
}

#[test]
fn a_body_without_a_field_that_is_needed_may_be_missing() {
    let variables = [("DESKTOP_JWT_SECRET", "a secret of desktop applications, long enough")];
    let world = World::start_with(&[], &variables);
    let asked = world.send("stranger", "POST", "/api/access-requests", &json!({"resource_id": "orders"})).json();
    let id = asked["id"].as_str().unwrap_or_else(|| panic!("{asked}"));
    let denied = bare(&world, "admin", "POST", &format!("/api/access-requests/{id}/deny"));
    assert_eq!((denied.status, &denied.json()["status"]), (200, &json!("denied")));
    let seen = bare(&world, "member", "POST", "/api/me/onboarded");
    assert_eq!((seen.status, seen.json()), (200, json!({"status": "ok", "onboarded": true})));
    assert_eq!(bare(&world, "member", "POST", "/api/desktop/unlink").json(), json!({"status": "unlinked"}));
    let tried = bare(&world, "admin", "POST", "/api/admin/policies/validate");
    assert_eq!((tried.status, tried.json()), (200, json!([])));
    // What is there still has to be right.
    assert_eq!(world.send("member", "POST", "/api/me/onboarded", &json!({"onboarded": "yes"})).status, 422);
    assert_eq!(bare(&world, "member", "POST", "/api/query").status, 415);
}

#[test]
fn a_field_that_nobody_knows_is_refused_on_the_way_in_too() {
    let variables = [("SMTP_HOST", "127.0.0.1"), ("SMTP_PORT", "9"), ("SMTP_FROM", "agnes@example.com")];
    let world = World::start_with(&[], &variables);
    for (path, body) in [
        ("/auth/email/send-link", json!({"email": "gone@example.com", "mail": "x"})),
        ("/auth/email/verify", json!({"email": "gone@example.com", "token": "x", "tokens": "y"})),
    ] {
        assert_eq!(told(&world.send("nobody", "POST", path, &body)), (422, "validation_failed".to_owned()), "{path}");
    }
}

/// Every text of an answer that begins like a time.
fn times(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
            if text.len() > 18 && (0..4).all(is_digit) && &text[4..5] == "-" && text.as_bytes()[10] == b'T' {
                found.push(text.clone());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| times(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| times(field, found)),
        _ => {}
    }
}

#[test]
fn every_time_is_written_the_same_way() {
    let world = World::start();
    world.send("stranger", "POST", "/api/access-requests", &json!({"resource_id": "orders"}));
    world.send("admin", "POST", "/api/admin/observability/views", &json!({"name": "mine", "query": {}}));
    world.send("admin", "PUT", "/api/settings/dataset", &json!({"dataset": "orders", "enabled": true}));
    let rules = json!({"filter": {"predicate": "status = 'paid'"}});
    let group = world.get("admin", "/api/admin/groups").json();
    let analysts = group.as_array().unwrap().iter().find(|group| group["name"] == "analysts").unwrap();
    let new = json!({"group_id": analysts["id"], "table": "orders", "rules": rules});
    assert_eq!(world.send("admin", "POST", "/api/admin/policies", &new).status, 201);
    let mut all = 0;
    for path in [
        "/auth/me",
        "/auth/tokens",
        "/auth/admin/tokens",
        "/api/users",
        "/api/health/detailed",
        "/api/v2/catalog",
        "/api/sync/manifest",
        "/api/sync/settings",
        "/api/catalog/profile/orders",
        "/api/admin/activity",
        "/api/admin/activity/sync",
        "/api/admin/groups",
        "/api/admin/access-overview",
        "/api/permissions",
        "/api/access-requests/pending",
        "/api/admin/policies",
        "/api/admin/registry",
        "/api/admin/observability/views",
        "/api/me/stats/queries",
    ] {
        let answer = world.get("admin", path);
        assert_eq!(answer.status, 200, "{path}");
        let mut found = Vec::new();
        times(&answer.json(), &mut found);
        all += found.len();
        for text in found {
            let rest = text.get(19..).and_then(|rest| rest.strip_suffix('Z'));
            let rest = rest.unwrap_or_else(|| panic!("{path}: {text} does not end in `Z`"));
            let digits = rest.strip_prefix('.').unwrap_or(rest);
            assert!(digits.len() <= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{path}: {text}");
        }
    }
    assert!(all > 40, "{all}");
}

#[test]
fn the_service_learns_nothing_of_policies_that_it_may_not_change() {
    let world = World::start();
    let made =
        world.command(&["admin", "policy", "create", "analysts", "orders", "--rows", "status = 'paid'", "--json"]);
    let id = serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned();
    let change = json!({"rules": {"filter": {"predicate": "true"}}});
    for id in [id.as_str(), "nothing"] {
        let path = format!("/api/admin/policies/{id}");
        let refused = (403, "service_forbidden".to_owned());
        assert_eq!(told(&world.send("service", "PUT", &path, &change)), refused, "{id}");
        assert_eq!(told(&world.send("service", "DELETE", &path, &Value::Null)), refused, "{id}");
    }
    for group in ["analysts", "nothing"] {
        let new = json!({"group_id": group, "table": "orders", "rules": change["rules"]});
        assert_eq!(told(&world.send("service", "POST", "/api/admin/policies", &new)).1, "service_forbidden");
    }
    // The beginning of an id is none.
    assert_eq!(world.get("admin", &format!("/api/admin/policies/{}", &id[..8])).status, 404);
    assert_eq!(world.get("admin", &format!("/api/admin/policies/{id}")).status, 200);
}

#[test]
fn groups_say_which_group_of_the_directory_they_are() {
    let world = World::start_with(&[], &[("AGNES_GROUP_ADMIN_EMAIL", "Bosses@example.com")]);
    let groups = world.get("admin", "/api/admin/groups").json();
    let mapped = |name: &str| {
        groups.as_array().unwrap().iter().find(|group| group["name"] == name).unwrap()["mapped_email"].clone()
    };
    assert_eq!(mapped("Admin"), "bosses@example.com");
    assert_eq!((mapped("Everyone"), mapped("analysts")), (Value::Null, Value::Null));
    let overview = world.get("admin", "/api/admin/access-overview").json();
    assert_eq!(overview["groups"][0]["mapped_email"], "bosses@example.com");
}

#[test]
fn a_manifest_is_signed_and_its_tag_stays_while_nothing_changes() {
    let world = World::start();
    let first = world.get("member", "/api/sync/manifest");
    let again = world.get("member", "/api/sync/manifest");
    let (one, two) = (first.json(), again.json());
    // Ed25519, as hex digits.
    assert_eq!(one["signature"].as_str().unwrap().len(), 128);
    assert_ne!(one["signature"], two["signature"], "each is over its own end");
    assert!(one["expires_at"].as_str().unwrap() > one["server_time"].as_str().unwrap());
    assert_eq!(first.header("etag"), again.header("etag"));
    let tag = first.header("etag").unwrap();
    let headers = format!("{}If-None-Match: {tag}\r\n", world.authorization("member"));
    let held = world.server.get_with("/api/sync/manifest", &headers);
    assert_eq!((held.status, held.header("etag")), (304, Some(tag)));
}

#[test]
fn a_server_forgets_what_its_audit_log_no_longer_keeps() {
    let folder = tempfile::tempdir().unwrap();
    // Two changes that lie back: one longer than rows are kept.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (days, name) in [(12, "long ago"), (8, "the other day")] {
        runtime.block_on(async {
            let then = chrono::Utc::now() - chrono::TimeDelta::days(days);
            let clock = std::sync::Arc::new(FixedClock::at(then));
            let engine = Engine::builder(folder.path()).clock(clock).for_one_command().open().await.unwrap();
            let owner = CallContext::new(Principal::trusted_owner_of_the_data_folder("tests", ClientKind::Api));
            engine.identity().create_group(&owner, name, None).await.unwrap();
            engine.close().await.unwrap();
        });
    }
    let config = folder.path().join("instance.yaml");
    std::fs::write(
        &config,
        "config_version: 1\ninstance: {name: x}\nauth: {allowed_domain: '*'}\nserver: {host: x, hostname: x}\n\
         audit: {retention_days: 10}\n",
    )
    .unwrap();
    let config = config.to_str().unwrap().to_owned();
    let server = Server::start_with(folder, &["--config", &config], &[("SESSION_SECRET", "x".repeat(40).as_str())]);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let actions = || {
        let rows = run(&server.folder, &["admin", "audit", "list", "--since", "365d", "--limit", "1000", "--json"]);
        let rows: Value = serde_json::from_str(&rows).unwrap();
        let of = |row: &Value| format!("{} {}", row["action"].as_str().unwrap_or_default(), row["params"]);
        rows.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    while !actions().iter().any(|row| row.starts_with("audit.pruned")) {
        assert!(std::time::Instant::now() < patience, "{:?}", actions());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let left = actions().join("\n");
    assert!(left.contains("the other day") && !left.contains("long ago"), "{left}");
}

#[test]
fn a_session_goes_back_to_whoever_sent_it_and_to_nobody_else() {
    let world = World::start();
    let content: Vec<u8> = (0..1_500_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    assert_eq!(world.upload("member", "/api/upload/sessions", &[], "one.jsonl", &content).status, 200);
    let mine = world.get("member", "/profile/sessions/one.jsonl");
    assert_eq!((mine.status, mine.is_whole, mine.body == content), (200, true, true));
    assert_eq!(mine.header("content-disposition"), Some("attachment; filename=\"one.jsonl\""));
    assert_eq!(mine.header("content-type"), Some("application/octet-stream"));
    for (who, name) in [
        ("stranger", "one.jsonl"),
        ("admin", "one.jsonl"),
        ("member", "two.jsonl"),
        ("member", ".."),
        ("member", "..%2Fone.jsonl"),
        ("member", "..%2F..%2Fstate%2Fsystem.duckdb"),
    ] {
        let answer = world.get(who, &format!("/profile/sessions/{name}"));
        assert_eq!(told(&answer), (404, "session_not_found".to_owned()), "{who} {name}");
    }
    assert_eq!(told(&world.get("narrow", "/profile/sessions/one.jsonl")), (403, "scope_denied".to_owned()));
    let seen = world.get("admin", "/api/admin/activity?action_prefix=session_download").json();
    assert_eq!(seen["rows"].as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(seen["rows"][0]["resource"], "file:one.jsonl");
    #[cfg(unix)]
    {
        // A link in the folder leads nowhere.
        let sessions = world.server.folder.path().join("user_sessions");
        let own = std::fs::read_dir(sessions).unwrap().next().unwrap().unwrap().path();
        std::os::unix::fs::symlink(own.join("one.jsonl"), own.join("link.jsonl")).unwrap();
        assert_eq!(world.get("member", "/profile/sessions/link.jsonl").status, 404);
    }
}

#[test]
fn an_admin_has_the_extracts_published_anew() {
    let world = World::start();
    let done = world.send("admin", "POST", "/api/admin/registry/rebuild", &Value::Null);
    let outcome = done.json();
    assert_eq!((done.status, &outcome["degraded"], &outcome["published"]), (200, &json!(false), &json!(false)));
    assert_eq!(outcome["sources"][0]["source"], "shop");
    assert_eq!(told(&world.send("member", "POST", "/api/admin/registry/rebuild", &Value::Null)).0, 403);
    let logged = world.get("admin", "/api/admin/activity?action_prefix=catalog.rebuild").json();
    assert!(logged["rows"].as_array().unwrap().iter().any(|row| row["user_email"] == "admin@example.com"), "{logged}");
    let new = |name: &str, defer: bool| {
        let body = json!({"name": name, "source_type": "files", "source_table": "people.csv", "defer_rebuild": defer});
        let answer = world.send("admin", "POST", "/api/admin/register-table", &body);
        (answer.status, answer.json()["status"].clone())
    };
    assert_eq!(new("people_later", true), (202, json!("registered")));
    assert_eq!(new("people_now", false), (201, json!("registered")));
}

#[test]
fn the_cause_of_a_failure_is_for_the_log_and_for_developers() {
    let world = World::start_with(&[], &[("DEBUG", "1"), ("AGNES_LOG_FORMAT", "json")]);
    let thrown = world.server.get("/api/debug/throw");
    let body = thrown.json();
    assert_eq!(
        (thrown.status, &body["code"], &body["detail"]),
        (500, &json!("internal"), &json!("Internal server error"))
    );
    assert!(body["error"].as_str().unwrap().contains("somebody asked for it"), "{body}");
    let id = body["request_id"].as_str().unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    let line = loop {
        let logs = world.server.logs();
        let mut lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) = lines.find(|line| line["request_id"] == id && line["lvl"] == "error") {
            break line;
        }
        assert!(Instant::now() < patience, "{logs}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(line["exc"], "somebody asked for it");
    let quiet = Server::start();
    assert_eq!(told(&quiet.get("/api/debug/throw")), (404, "not_found".to_owned()));
}

#[test]
fn pages_look_as_the_installation_wants_and_nothing_else_gets_into_them() {
    let world = World::start();
    let linked = |page: &str, start: &str| {
        let at = page.find(&format!("\"/static/{start}."))? + 1;
        Some(page[at..].split('"').next().unwrap().to_owned())
    };
    let plain = world.server.get("/login").text();
    assert_eq!((linked(&plain, "theme"), linked(&plain, "logo")), (None, None));
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 8 8\"><circle cx=\"4\" cy=\"4\" r=\"4\"/></svg>";
    let theme = json!({"primary": "#112233", "radius": "4px", "font_primary": "Inter, sans-serif"});
    let body = json!({"sections": {"theme": theme, "instance": {"logo_svg": svg}}});
    assert_eq!(world.send("admin", "POST", "/api/admin/server-config", &body).status, 200);
    let page = world.server.get("/login").text();
    let sheet = world.server.get(&linked(&page, "theme").unwrap());
    let text = sheet.text();
    assert_eq!((sheet.status, sheet.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert!(text.contains("--radius: 4px;") && text.contains("--sans: Inter, sans-serif;"), "{text}");
    assert!(text.contains("(prefers-color-scheme: light) { :root { --accent: #112233; } }"), "{text}");
    let logo = world.server.get(&linked(&page, "logo").unwrap());
    assert_eq!((logo.status, logo.header("content-type"), logo.text()), (200, Some("image/svg+xml"), svg.to_owned()));
    assert!(logo.header("content-security-policy").is_some_and(|policy| policy.contains("sandbox")));
    // What an operator's variable or file holds is looked at too.
    let config = world.server.folder.path().join("state").join("instance.yaml");
    let kept = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, kept.replace("#112233", "red; } body { display: none")).unwrap();
    let evil = [("AGNES_INSTANCE_LOGO_SVG", "<svg onload=\"alert(1)\"><script>alert(2)</script></svg>")];
    let (world, _) = world.restarted(&evil);
    let page = world.server.get("/login").text();
    assert_eq!(linked(&page, "logo"), None);
    let text = world.server.get(&linked(&page, "theme").unwrap()).text();
    assert!(text.contains("--radius: 4px;") && !text.contains("red"), "{text}");
}
