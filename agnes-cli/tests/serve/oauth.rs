//! How an assistant elsewhere gets a token: by the official client, and by everything that it
//! must not get one by.

use serde_json::{Value, json};

use super::audit::{CHALLENGE, VERIFIER};
use super::mcp::{done, official};
use super::process::{Answer, is_secret};
use super::world::{PASSWORD, World};

const BACK: &str = "http://127.0.0.1:7/callback";

fn register(world: &World, uris: &[&str]) -> Answer {
    world.send("nobody", "POST", "/oauth/register", &json!({"client_name": "assistant", "redirect_uris": uris}))
}

fn client(world: &World) -> String {
    register(world, &[BACK]).json()["client_id"].as_str().unwrap().to_owned()
}

/// Fields of a request that is granted.
fn wanted(client: &str) -> String {
    format!(
        "client_id={client}&redirect_uri={BACK}&response_type=code&code_challenge={CHALLENGE}\
         &code_challenge_method=S256&state=a%20b"
    )
}

/// A value of the address that an answer leads to.
fn told<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let (_, query) = answer.header("location")?.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn code(world: &World, client: &str) -> String {
    let answer = world.form("session", "/oauth/authorize", &format!("{}&decision=allow", wanted(client)));
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(told(&answer, "state"), Some("a+b"));
    assert!(told(&answer, "iss").unwrap().starts_with("http%3A%2F%2F"), "{:?}", answer.header("location"));
    told(&answer, "code").unwrap().to_owned()
}

fn token(world: &World, fields: &str) -> Answer {
    world.server.raw_form("/oauth/token", fields, "")
}

fn redeem(world: &World, client: &str, code: &str, verifier: &str) -> Answer {
    let fields = format!(
        "grant_type=authorization_code&client_id={client}&code={code}&redirect_uri={BACK}&code_verifier={verifier}"
    );
    token(world, &fields)
}

fn renew(world: &World, client: &str, refresh: &str) -> Answer {
    token(world, &format!("grant_type=refresh_token&client_id={client}&refresh_token={refresh}"))
}

/// Tokens of the member for a client.
fn tokens(world: &World, client: &str) -> (String, String) {
    let answer = redeem(world, client, &code(world, client), VERIFIER);
    assert_eq!(answer.status, 200, "{}", answer.text());
    pair(&answer.json())
}

fn pair(given: &Value) -> (String, String) {
    let text = |name: &str| given[name].as_str().unwrap().to_owned();
    let (access, refresh) = (text("access_token"), text("refresh_token"));
    is_secret(&access);
    is_secret(&refresh);
    (access, refresh)
}

fn get_as(world: &World, token: &str, path: &str) -> Answer {
    world.server.get_with(path, &format!("Authorization: Bearer {token}\r\n"))
}

fn refused(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body["error"], body["code"], "{body}");
    assert!(body["error_description"].is_string(), "{body}");
    (answer.status, body["error"].as_str().unwrap().to_owned())
}

#[test]
fn the_official_client_signs_in_asks_and_renews() {
    let world = World::start();
    let Some(mut python) = official(&world, "sign-in") else { return };
    let session = World::sign_in(&world.server, "member@example.com", PASSWORD);
    python.env("AGNES_SESSION", session);
    let given: Value = serde_json::from_str(done(python).trim()).unwrap();
    let (access, old) = (given["access"].as_str().unwrap(), given["old"].as_str().unwrap());
    is_secret(access);
    is_secret(old);
    is_secret(given["refresh"].as_str().unwrap());
    assert_eq!(get_as(&world, access, "/api/catalog/tables").status, 200);
    assert_eq!(get_as(&world, old, "/api/catalog/tables").json()["code"], "token_mismatch", "renewing replaces it");
    // It stands among its owner's tokens, and ends with a revocation there, renewals and all.
    let listed = world.get("session", "/auth/tokens").json();
    let row = listed.as_array().unwrap().iter().find(|row| row["scope"] == "mcp").unwrap().clone();
    assert_eq!(row["name"], "an assistant <of a test>");
    let address = format!("/auth/tokens/{}", row["id"].as_str().unwrap());
    assert_eq!(world.send("session", "DELETE", &address, &Value::Null).status, 204);
    assert_eq!(get_as(&world, access, "/api/catalog/tables").json()["code"], "token_revoked");
    let client = given["client"].as_str().unwrap();
    assert_eq!(refused(&renew(&world, client, given["refresh"].as_str().unwrap())), (400, "invalid_grant".to_owned()));
}

#[test]
fn the_token_of_an_assistant_reads_and_nothing_else() {
    let world = World::start();
    let (access, _) = tokens(&world, &client(&world));
    for path in ["/auth/me", "/api/catalog/tables", "/api/v2/schema/orders", "/api/v2/sample/orders"] {
        assert_eq!(get_as(&world, &access, path).status, 200, "{path}");
    }
    for path in ["/auth/tokens", "/api/sync/manifest", "/api/data/orders/download", "/api/settings", "/api/me/queries"]
    {
        let answer = get_as(&world, &access, path);
        assert!([403, 404].contains(&answer.status), "{path}: {}", answer.text());
    }
    for (path, body) in [
        ("/auth/tokens", json!({"name": "another"})),
        ("/api/access-requests", json!({"resource_id": "people"})),
        ("/api/upload/local-md", json!({"content": "notes"})),
    ] {
        let answer = world.try_send_as(&access, "POST", path, &body).unwrap();
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    }
}

#[test]
fn a_code_is_good_once_for_its_client_and_its_proof() {
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0")]);
    let (ours, theirs) = (client(&world), client(&world));
    let grant = || (400, "invalid_grant".to_owned());
    for (client, verifier) in
        [(&theirs, VERIFIER), (&ours, "another-verifier-of-a-client-that-is-long-enough"), (&ours, "")]
    {
        let code = code(&world, &ours);
        assert_eq!(refused(&redeem(&world, client, &code, verifier)), grant());
        assert_eq!(refused(&redeem(&world, &ours, &code, VERIFIER)), grant(), "it is used up by a wrong try");
    }
    let code = code(&world, &ours);
    let other = format!(
        "grant_type=authorization_code&client_id={ours}&code={code}&redirect_uri=http://127.0.0.1:8/callback&code_verifier={VERIFIER}"
    );
    assert_eq!(refused(&token(&world, &other)), grant());
    // A second try ends what the first one gave: one of the two is a thief.
    let code = self::code(&world, &ours);
    let (access, refresh) = pair(&redeem(&world, &ours, &code, VERIFIER).json());
    assert_eq!(get_as(&world, &access, "/auth/me").status, 200);
    assert_eq!(refused(&redeem(&world, &ours, &code, VERIFIER)), grant());
    assert_eq!(get_as(&world, &access, "/auth/me").json()["code"], "token_revoked");
    assert_eq!(refused(&renew(&world, &ours, &refresh)), grant());
    assert_eq!(refused(&token(&world, "grant_type=password&client_id=x")), (400, "unsupported_grant_type".to_owned()));
    assert_eq!(
        refused(&token(&world, "grant_type=refresh_token&resource=https://other.example")),
        (400, "invalid_target".to_owned())
    );
}

#[test]
fn what_renews_a_token_is_good_once() {
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0")]);
    let ours = client(&world);
    let (first, refresh) = tokens(&world, &ours);
    assert_eq!(refused(&renew(&world, &client(&world), &refresh)).1, "invalid_grant", "another client");
    let (second, next) = pair(&renew(&world, &ours, &refresh).json());
    assert_eq!(get_as(&world, &first, "/auth/me").json()["code"], "token_mismatch");
    assert_eq!(get_as(&world, &second, "/auth/me").status, 200);
    // The old one again: both are worth nothing from now on.
    assert_eq!(refused(&renew(&world, &ours, &refresh)).1, "invalid_grant");
    assert_eq!(get_as(&world, &second, "/auth/me").json()["code"], "token_revoked");
    assert_eq!(refused(&renew(&world, &ours, &next)).1, "invalid_grant");
    // What a client gives back is worth nothing, whichever of the two it gives.
    for give_access in [true, false] {
        let (access, refresh) = tokens(&world, &ours);
        let given = if give_access { &access } else { &refresh };
        let fields = format!("client_id={ours}&token={given}");
        assert_eq!(world.server.raw_form("/oauth/revoke", &fields, "").status, 200);
        assert_eq!(get_as(&world, &access, "/auth/me").json()["code"], "token_revoked");
        assert_eq!(refused(&renew(&world, &ours, &refresh)).1, "invalid_grant");
    }
    assert_eq!(world.server.raw_form("/oauth/revoke", "token=nothing", "").status, 200);
    // Somebody's own token is no client's to give back.
    let fields = format!("token={}", world.token("member"));
    assert_eq!(world.server.raw_form("/oauth/revoke", &fields, "").status, 200);
    assert_eq!(world.get("member", "/auth/me").status, 200);
}

#[test]
fn nothing_is_sent_where_the_client_did_not_register() {
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0")]);
    for uris in [&[] as &[&str], &["http://a.example/cb"], &["javascript:alert(1)"], &[BACK, "https://a.example/cb#x"]]
    {
        assert_eq!(refused(&register(&world, uris)), (400, "invalid_redirect_uri".to_owned()), "{uris:?}");
    }
    let secretive = json!({"redirect_uris": [BACK], "token_endpoint_auth_method": "client_secret_basic"});
    let answer = world.send("nobody", "POST", "/oauth/register", &secretive);
    assert_eq!(refused(&answer), (400, "invalid_client_metadata".to_owned()));
    let ours = client(&world);
    let page = |fields: &str| world.get("session", &format!("/oauth/authorize?{fields}"));
    assert_eq!(page(&wanted(&ours)).status, 200);
    assert_eq!(page(&wanted(&ours).replace(":7/", ":1234/")).status, 200, "on this machine any port");
    for (fields, code) in [
        (wanted("nobody"), "invalid_client"),
        (wanted(&ours).replace("/callback", "/other"), "invalid_request"),
        (wanted(&ours).replace("127.0.0.1", "localhost"), "invalid_request"),
        (wanted(&ours).replace("http://127.0.0.1:7/callback", "https://thief.example/cb"), "invalid_request"),
    ] {
        for answer in [page(&fields), world.form("session", "/oauth/authorize", &format!("{fields}&decision=allow"))] {
            assert_eq!((answer.status, answer.header("location")), (400, None), "{fields}");
            assert!(answer.text().contains(code), "{}", answer.text());
        }
        let refusal = world.form("session", "/oauth/authorize", &format!("{fields}&decision=refuse"));
        assert_eq!((refusal.status, refusal.header("location")), (400, None), "{fields}");
    }
    // What else is wrong is told to the client.
    for (old, new, error) in [
        ("response_type=code", "response_type=token", "unsupported_response_type"),
        ("method=S256", "method=plain", "invalid_request"),
        (CHALLENGE, "short", "invalid_request"),
        ("&state", "&scope=admin&state", "invalid_scope"),
        ("&state", "&resource=https://other.example/&state", "invalid_target"),
    ] {
        let answer = page(&wanted(&ours).replace(old, new));
        assert_eq!((answer.status, told(&answer, "error"), told(&answer, "code")), (303, Some(error), None));
        assert_eq!(told(&answer, "state"), Some("a+b"));
        let fields = format!("{}&decision=allow", wanted(&ours).replace(old, new));
        let answer = world.form("session", "/oauth/authorize", &fields);
        assert_eq!((answer.status, answer.header("location")), (400, None), "{fields}");
    }
    let refusal = world.form("session", "/oauth/authorize", &format!("{}&decision=refuse", wanted(&ours)));
    assert_eq!((refusal.status, told(&refusal, "error"), told(&refusal, "code")), (303, Some("access_denied"), None));
    // A person decides, on a page of ours: no token, no form of another page.
    let fields = format!("{}&decision=allow", wanted(&ours));
    assert_eq!(world.form("member", "/oauth/authorize", &fields).json()["code"], "session_required");
    let strange = world.server.raw_form("/oauth/authorize", &fields, &world.authorization("session"));
    assert_eq!(strange.json()["code"], "csrf_failed");
    let signed_out = world.get("nobody", &format!("/oauth/authorize?{}", wanted(&ours)));
    assert_eq!(signed_out.status, 302);
    assert!(signed_out.header("location").unwrap().starts_with("/login?next=/oauth/authorize%3Fclient_id%3D"));
}

#[test]
fn pages_of_any_origin_find_their_way() {
    let world = World::start();
    let origin = "Origin: https://assistant.example\r\n";
    let mut seen = Vec::new();
    for document in ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"] {
        for path in ["", "/api/mcp/http"] {
            let answer = world.server.get_with(&format!("/.well-known/{document}{path}"), origin);
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
            assert_eq!(answer.header("access-control-allow-credentials"), None);
            seen.push(answer.json());
        }
    }
    assert!(seen[0] == seen[1] && seen[2] == seen[3] && seen[2] == seen[4] && seen[2] == seen[5]);
    assert_eq!(seen[0]["authorization_servers"], json!([seen[2]["issuer"]]));
    assert_eq!(seen[0]["resource"], format!("{}/api/mcp/http", seen[2]["issuer"].as_str().unwrap()));
    assert_eq!(seen[2]["code_challenge_methods_supported"], json!(["S256"]));
    let question = |path: &str| {
        world.server.send(&format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{origin}Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type\r\n\r\n"
        ))
    };
    for path in ["/oauth/register", "/oauth/token", "/oauth/revoke"] {
        let answer = question(path);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")), "{path}");
        assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
    }
    for path in ["/oauth/authorize", "/auth/token", "/api/mcp/http"] {
        assert_eq!(question(path).header("access-control-allow-origin"), None, "{path}");
    }
}
