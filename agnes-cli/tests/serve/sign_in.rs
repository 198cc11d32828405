//! Signing in and out, and tokens, over HTTP.

use serde_json::{Value, json};

use super::process::{Answer, Server};
use super::world::{PASSWORD, World};

fn sign_in(server: &Server, email: &str, password: &str, more: &str) -> Answer {
    let body = json!({"email": email, "password": password}).to_string();
    server.send(&format!(
        "POST /auth/token HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Sends a request as who holds `token`.
fn with(server: &Server, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    server.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_session_begins_says_who_it_is_and_ends() {
    let world = World::start();
    let server = &world.server;
    for (email, password) in
        [("member@example.com", "wrong"), ("gone@example.com", PASSWORD), ("member@example.com", "")]
    {
        assert_eq!(code(&sign_in(server, email, password, "")), (401, "invalid_credentials".to_owned()));
    }
    let session = sign_in(server, " Member@Example.com", PASSWORD, "");
    assert_eq!(session.status, 200, "{}", session.text());
    let session = session.json();
    assert_eq!((&session["token_type"], &session["role"]), (&json!("bearer"), &json!("user")));
    let token = session["access_token"].as_str().unwrap();
    let me = with(server, token, "GET", "/auth/me", &Value::Null).json();
    assert_eq!((&me["email"], &me["auth"]["type"]), (&json!("member@example.com"), &json!("session")));
    let groups: Vec<&str> =
        me["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(groups, ["Everyone", "analysts"]);
    let by_cookie = server.get_with("/auth/me", &format!("Cookie: access_token={token}\r\n"));
    assert_eq!(by_cookie.status, 200);
    // A page of somebody else makes the browser send the cookie; that is not enough to write.
    let forged = |origin: &str| {
        server.send(&format!(
            "POST /auth/logout-all HTTP/1.1\r\nHost: t\r\nConnection: close\r\nCookie: access_token={token}\r\n{origin}Content-Length: 0\r\n\r\n"
        ))
    };
    assert_eq!(code(&forged("Sec-Fetch-Site: cross-site\r\n")), (403, "csrf_failed".to_owned()));
    assert_eq!(code(&forged("Origin: https://evil.example\r\n")), (403, "csrf_failed".to_owned()));
    assert_eq!(with(server, token, "POST", "/auth/logout", &Value::Null).status, 204);
    assert_eq!(code(&with(server, token, "GET", "/auth/me", &Value::Null)), (401, "session_revoked".to_owned()));
    assert_eq!(with(server, token, "POST", "/auth/logout", &Value::Null).status, 204, "once more is the same");
    let other = sign_in(server, "member@example.com", PASSWORD, "").json();
    let other = other["access_token"].as_str().unwrap();
    assert_eq!(forged("").status, 401);
    assert_eq!(with(server, other, "POST", "/auth/logout-all", &Value::Null).status, 204);
    assert_eq!(with(server, other, "GET", "/auth/me", &Value::Null).status, 401);
    assert_eq!(world.get("member", "/auth/me").status, 200, "tokens stay");
}

#[test]
fn tokens_are_made_by_sessions_and_end_at_once() {
    let world = World::start();
    let server = &world.server;
    let session = sign_in(server, "member@example.com", PASSWORD, "").json();
    let session = session["access_token"].as_str().unwrap();
    let make = |token: &str, body: Value| with(server, token, "POST", "/auth/tokens", &body);
    assert_eq!(code(&make(world.token("member"), json!({"name": "x"}))), (403, "session_required".to_owned()));
    for (body, refused) in [
        (json!({"name": " "}), "name_required"),
        (json!({"name": "x", "expires_in_days": 0}), "bad_expiry"),
        (json!({"name": "x", "ttl_seconds": -1}), "bad_expiry"),
        (json!({"name": "x", "scope": "all"}), "unknown_scope"),
    ] {
        assert_eq!(code(&make(session, body.clone())), (400, refused.to_owned()), "{body}");
    }
    let made = make(session, json!({"name": "laptop", "expires_in_days": null}));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert!(made["expires_at"].is_null());
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let listed = with(server, token, "GET", "/auth/tokens", &Value::Null);
    assert!(!listed.text().contains(token), "a token is shown once");
    assert!(listed.json().as_array().unwrap().iter().any(|row| row["id"] == id && row["name"] == "laptop"));
    let me = with(server, token, "GET", "/api/me/profile", &Value::Null).json();
    assert_eq!((&me["auth"]["type"], &me["auth"]["token_name"]), (&json!("pat"), &json!("laptop")));
    let done = |body: Value| with(server, token, "POST", "/api/me/onboarded", &body).json()["onboarded"].clone();
    assert_eq!((done(json!({})), done(json!({"source": "self_unmark"}))), (json!(true), json!(false)));
    assert_eq!(with(server, token, "POST", "/api/me/onboarded", &json!({"source": "nobody"})).status, 422);
    let path = format!("/auth/tokens/{id}");
    assert_eq!(world.get("stranger", &path).status, 404, "somebody else's does not exist");
    assert_eq!(world.send("stranger", "DELETE", &path, &Value::Null).status, 404);
    let all = world.get("admin", "/auth/admin/tokens").json();
    assert!(all.as_array().unwrap().iter().any(|row| row["id"] == id && row["user_email"] == "member@example.com"));
    assert_eq!(world.get("admin", "/auth/admin/tokens?limit=0").status, 422);
    assert_eq!(with(server, token, "DELETE", &path, &Value::Null).status, 204, "it may end itself");
    assert_eq!(code(&with(server, token, "GET", "/auth/me", &Value::Null)), (401, "token_revoked".to_owned()));
    let other = make(session, json!({"name": "other"})).json();
    let admin = format!("/auth/admin/tokens/{}", other["id"].as_str().unwrap());
    assert_eq!(world.send("admin", "DELETE", &admin, &Value::Null).status, 204);
    assert_eq!(with(server, other["token"].as_str().unwrap(), "GET", "/auth/me", &Value::Null).status, 401);
}

#[test]
fn a_narrow_token_opens_what_setting_up_a_laptop_takes() {
    let world = World::start();
    for (path, status) in [
        ("/auth/me", 200),
        ("/api/sync/manifest", 200),
        ("/api/catalog/tables", 200),
        ("/api/data/orders/download", 200),
        ("/api/v2/sample/orders", 403),
        ("/auth/tokens", 403),
        ("/api/settings", 403),
    ] {
        assert_eq!(world.get("narrow", path).status, status, "{path}");
    }
    let refused = world.send("narrow", "POST", "/api/query", &json!({"sql": "select 1"}));
    assert_eq!(code(&refused), (403, "scope_denied".to_owned()));
}

#[test]
fn guessing_is_slowed_down_by_address_and_nobody_is_locked_out() {
    let world = World::start();
    let guess = |more: &str| sign_in(&world.server, "member@example.com", "wrong", more);
    let statuses: Vec<u16> = (0..11).map(|_| guess("").status).collect();
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10], 429);
    let refused = guess("X-Forwarded-For: 9.9.9.9\r\n");
    assert_eq!(code(&refused), (429, "rate_limited".to_owned()), "an address that the client wrote counts for nothing");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    let twin = json!({"email": "member@example.com", "password": PASSWORD});
    assert_eq!(world.send("nobody", "POST", "/auth/password/login", &twin).status, 429, "both ways share the limit");
    assert_eq!(world.get("member", "/auth/me").status, 200);
}

#[test]
fn a_deactivated_person_is_out_at_once() {
    let world = World::start();
    assert_eq!(world.get("member", "/auth/me").status, 200);
    world.command(&["admin", "user", "deactivate", "member@example.com", "--yes"]);
    assert_eq!(code(&world.get("member", "/auth/me")), (401, "account_deactivated".to_owned()));
}

#[test]
fn the_first_admin_is_made_once_by_who_holds_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder, &[], &[("AGNES_BOOTSTRAP_TOKEN", "a token that the operator made up")]);
    let (_, printed) = server.said.split_once("/first-time-setup?token=").unwrap();
    let printed = printed.split_whitespace().next().unwrap();
    let make = |token: &str, password: &str| {
        let body = json!({"email": "first@example.com", "password": password}).to_string();
        server.send(&format!(
            "POST /auth/bootstrap HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX-Bootstrap-Token: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    assert_eq!(code(&make("wrong", PASSWORD)), (403, "bootstrap_token_invalid".to_owned()));
    let made = make(printed, PASSWORD);
    assert_eq!(made.status, 200, "{}", made.text());
    let made = made.json();
    assert_eq!(made["role"], "admin");
    let token = made["access_token"].as_str().unwrap();
    assert_eq!(with(&server, token, "GET", "/api/admin/groups", &Value::Null).status, 200);
    assert_eq!(code(&make("a token that the operator made up", PASSWORD)), (403, "bootstrap_closed".to_owned()));
}
