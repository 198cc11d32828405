//! What signed-out people meet, byte by byte.

use serde_json::{Value, json};

use super::process::{Answer, Server};
use super::world::{PASSWORD, World, run};

/// What `next` must never do: leave the site.
const EVIL: [&str; 14] = [
    "//evil.example",
    "%2F%2Fevil.example",
    "/%5Cevil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "https:evil.example",
    "https%3A%2F%2Fevil.example",
    "%09//evil.example",
    "/%09/evil.example",
    "/%0A/evil.example",
    "%20//evil.example",
    "javascript:alert(1)",
    "/x%0D%0ASet-Cookie:%20a=b",
];

fn location(answer: &Answer) -> &str {
    answer.header("location").unwrap_or_else(|| panic!("no redirect: {} {}", answer.head, answer.text()))
}

/// The value of a cookie that an answer sets.
fn cookie(answer: &Answer, name: &str) -> Option<String> {
    let mut set = answer.head.lines().filter_map(|line| line.split_once(": "));
    let text =
        set.find(|(key, value)| key.eq_ignore_ascii_case("set-cookie") && value.starts_with(&format!("{name}=")))?.1;
    Some(text[name.len() + 1..].split(';').next().unwrap().to_owned())
}

fn sign_in(server: &Server, email: &str, password: &str, next: &str, headers: &str) -> Answer {
    let fields = format!("email={email}&password={}&next={next}", password.replace(' ', "+"));
    server.form("/auth/password/login/web", &fields, headers)
}

#[test]
fn a_form_signs_in_and_out_and_keeps_where_to_go() {
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0")]);
    let server = &world.server;
    assert_eq!(location(&server.get("/")), "/login");
    assert_eq!(location(&server.get("/dashboard?a=b&c=d")), "/login?next=/dashboard%3Fa%3Db%26c%3Dd");
    assert_eq!(server.get("/api/query").status, 405);
    assert_eq!(location(&server.get("/install")), "/setup");
    let page = server.get("/login/password?next=/catalog?a=b");
    assert!(page.text().contains("value=\"/catalog?a=b\""), "{}", page.text());
    let wrong = sign_in(server, "member@example.com", "wrong", "/setup", "");
    assert_eq!((wrong.status, location(&wrong)), (302, "/login/password?error=invalid&next=/setup"));
    assert_eq!(
        location(&sign_in(server, "gone@example.com", "wrong", "", "")),
        "/login/password?error=invalid&next=/dashboard"
    );
    let done = sign_in(server, "%20Member@Example.com", PASSWORD, "/setup?x=y", "");
    assert_eq!((done.status, location(&done)), (302, "/setup?x=y"), "{}", done.text());
    let set = done.head.lines().find(|line| line.contains("access_token=")).unwrap();
    for part in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=86400"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"));
    let session = cookie(&done, "access_token").unwrap();
    let own = format!("Cookie: access_token={session}\r\n");
    let home = server.get_with("/dashboard", &own);
    assert_eq!(home.status, 200);
    assert!(home.text().contains("member@example.com") && !home.text().contains(&session), "no page holds a token");
    assert_eq!(location(&server.get_with("/", &own)), "/dashboard");
    assert_eq!(location(&server.get_with("/login?next=/setup", &own)), "/setup");
    // A copied cookie is worth nothing after signing out.
    let token = server.form_token();
    let out = |fields: &str| {
        server.raw_form("/auth/logout", fields, &format!("Cookie: access_token={session}; csrf={token}\r\n"))
    };
    assert_eq!(out("").status, 403, "a form without its token");
    assert_eq!(server.get_with("/auth/me", &own).status, 200);
    let left = out(&format!("csrf_token={token}"));
    assert_eq!((left.status, location(&left)), (303, "/login?msg=signed_out"));
    assert_eq!(cookie(&left, "access_token").as_deref(), Some(""));
    assert_eq!(server.get_with("/auth/me", &own).status, 401);
    assert_eq!(location(&server.get_with("/dashboard", &own)), "/login?next=/dashboard");
}

#[test]
fn no_way_to_sign_in_leads_off_the_site() {
    let world = World::start_with(
        &[],
        &[("AGNES_AUTH_RATELIMIT_ENABLED", "0"), ("SMTP_HOST", "127.0.0.1"), ("SMTP_FROM", "a@b.example")],
    );
    let server = &world.server;
    let first = sign_in(server, "member@example.com", PASSWORD, "", "");
    let own = format!("Cookie: access_token={}\r\n", cookie(&first, "access_token").unwrap());
    for evil in EVIL {
        let done = sign_in(server, "member@example.com", PASSWORD, evil, "");
        assert_eq!(location(&done), "/dashboard", "{evil}");
        assert!(done.header("set-cookie").unwrap().starts_with("access_token="), "{evil}");
        let wrong = sign_in(server, "member@example.com", "wrong", evil, "");
        assert_eq!(location(&wrong), "/login/password?error=invalid&next=/dashboard", "{evil}");
        assert_eq!(location(&server.get_with(&format!("/login?next={evil}"), &own)), "/dashboard", "{evil}");
        for page in ["/login", "/login/password", "/login/email"] {
            let page = server.get(&format!("{page}?next={evil}"));
            assert_eq!(page.status, 200);
            let text = page.text();
            assert!(!text.contains("evil") && !text.contains("javascript:"), "{evil}: {text}");
        }
    }
}

#[test]
fn forms_are_taken_from_our_own_pages_alone() {
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0")]);
    let server = &world.server;
    let fields = format!("email=member@example.com&password={}", PASSWORD.replace(' ', "+"));
    let (mine, other) = (server.form_token(), server.form_token());
    let send = |fields: &str, headers: &str| server.raw_form("/auth/password/login/web", fields, headers);
    for (given, headers) in [
        (fields.clone(), String::new()),
        (format!("{fields}&csrf_token={mine}"), String::new()),
        (fields.clone(), format!("Cookie: csrf={mine}\r\n")),
        (format!("{fields}&csrf_token={other}"), format!("Cookie: csrf={mine}\r\n")),
        (format!("{fields}&csrf_token=made-up"), "Cookie: csrf=made-up\r\n".to_owned()),
        (format!("{fields}&csrf_token={mine}"), format!("Cookie: csrf={mine}\r\nSec-Fetch-Site: cross-site\r\n")),
        (format!("{fields}&csrf_token={mine}"), format!("Cookie: csrf={mine}\r\nOrigin: https://evil.example\r\n")),
    ] {
        let answer = send(&given, &headers);
        assert_eq!((answer.status, answer.json()["code"].clone()), (403, json!("csrf_failed")), "{headers}");
        assert!(cookie(&answer, "access_token").is_none());
    }
    assert_eq!(
        send(&format!("{fields}&csrf_token={mine}"), &format!("Cookie: csrf={mine}\r\nOrigin: http://t\r\n")).status,
        302
    );
    // A person gets a page, a program JSON.
    let page = send(&fields, "Accept: text/html\r\n");
    assert!(page.status == 403 && page.text().contains("csrf_failed") && page.text().contains("<!DOCTYPE html>"));
    // The session of somebody is no proof of a form either.
    let session = sign_in(server, "member@example.com", PASSWORD, "", "");
    let session = cookie(&session, "access_token").unwrap();
    let cross = server.raw_form("/cli/auth/start", "", &format!("Cookie: access_token={session}; csrf={mine}\r\n"));
    assert_eq!((cross.status, cross.json()["code"].clone()), (403, json!("csrf_failed")));
}

#[test]
fn form_and_json_share_a_limit_that_no_header_evades() {
    let world = World::start();
    let server = &world.server;
    let json = json!({"email": "member@example.com", "password": "wrong"});
    for n in 0..10 {
        let answer = if n % 2 == 0 {
            sign_in(server, "member@example.com", "wrong", "", &format!("X-Forwarded-For: 10.1.1.{n}\r\n"))
        } else {
            world.send_with(
                "nobody",
                "POST",
                "/auth/password/login",
                &json,
                &format!("X-Forwarded-For: 10.2.2.{n}\r\n"),
            )
        };
        assert!(matches!(answer.status, 302 | 401), "{n}: {}", answer.head);
    }
    for n in 0..3 {
        let form = sign_in(server, "member@example.com", PASSWORD, "", &format!("X-Forwarded-For: 10.3.3.{n}\r\n"));
        assert_eq!(form.status, 429);
        let program =
            world.send_with("nobody", "POST", "/auth/token", &json, &format!("X-Forwarded-For: 10.4.4.{n}\r\n"));
        assert_eq!((program.status, program.json()["code"].clone()), (429, json!("rate_limited")));
    }
    // Asking for mails has a limit of its own, shared by every page that does.
    let asks = ["/auth/password/reset", "/auth/password/setup/request"];
    let statuses: Vec<u16> = (0..6).map(|n| server.form(asks[n % 2], "email=a@b.example", "").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
}

#[test]
fn every_page_guards_itself_and_shows_no_markup_of_others() {
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0")]);
    let server = &world.server;
    let mut nonces = std::collections::BTreeSet::new();
    let script = "%3Cscript%3Ealert(1)%3C/script%3E%22";
    for path in [
        "/login".to_owned(),
        format!("/login?error={script}&msg={script}&next=/{script}"),
        format!("/login/password?error={script}&tab={script}&next=/{script}"),
        format!("/auth/password/reset?email={script}&token={script}"),
        format!("/auth/password/setup?email={script}&token={script}"),
        "/setup".to_owned(),
        format!("/nothing/{script}"),
    ] {
        let page = server.get_with(&path, "Accept: text/html\r\n");
        let policy = page.header("content-security-policy").unwrap_or_else(|| panic!("{path}")).to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(nonces.insert(policy), "a nonce came twice");
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert!(!page.text().contains("<script>"), "{path}: {}", page.text());
        assert!(page.header("content-type").unwrap().starts_with("text/html"), "{path}");
    }
    let page = server.get("/login").text();
    for kind in ["css", "js", "svg"] {
        let end = page.find(&format!(".{kind}\"")).unwrap() + kind.len() + 1;
        let start = page[..end].rfind("/static/").unwrap();
        let file = server.get(&page[start..end]);
        assert_eq!((file.status, file.header("cache-control")), (200, Some("public, max-age=31536000, immutable")));
    }
    assert_eq!(server.get("/static/..%2f..%2fCargo.toml").status, 404);
    assert_eq!(server.get("/favicon.ico").status, 200);
    assert!(server.get("/robots.txt").text().contains("Disallow: /"));
    // Links and redirects of an address that a program asked for are JSON.
    let missing = server.get_with("/auth/nothing", "Accept: text/html\r\n");
    assert_eq!(missing.json()["code"], "not_found");
}

#[test]
fn every_page_is_there_for_who_may_see_it_and_holds_no_token() {
    let desktop = ("DESKTOP_JWT_SECRET", "a secret of desktop applications, long enough");
    let world = World::start_with(&[], &[("AGNES_AUTH_RATELIMIT_ENABLED", "0"), desktop]);
    for who in ["nobody", "stranger", "admin"] {
        let session = (who != "nobody").then(|| World::sign_in(&world.server, &format!("{who}@example.com"), PASSWORD));
        let cookie = session.as_ref().map(|session| format!("Cookie: access_token={session}\r\n")).unwrap_or_default();
        for (path, signed_out, signed_in) in [
            ("/", 302, 302),
            ("/login", 200, 302),
            ("/login/password", 200, 200),
            ("/login/password?tab=first", 200, 200),
            ("/auth/password/setup?email=a%40b&token=c", 200, 200),
            ("/auth/password/reset?email=a%40b&token=c", 200, 200),
            ("/setup", 200, 200),
            ("/first-time-setup", 302, 302),
            ("/dashboard", 302, 200),
            ("/home", 302, 200),
            ("/desktop/link", 302, 200),
            ("/cli/auth/start", 302, 200),
            ("/cli/auth/start?port=45678", 302, 200),
            ("/nothing", 404, 404),
        ] {
            let page = world.server.get_with(path, &format!("Accept: text/html\r\n{cookie}"));
            assert_eq!(page.status, if who == "nobody" { signed_out } else { signed_in }, "{who} {path}");
            let text = page.text();
            assert!(session.as_ref().is_none_or(|session| !text.contains(session.as_str())), "{who} {path}");
            assert!(who == "nobody" || !text.contains(world.token(who)), "{who} {path}");
        }
    }
}

/// What an admin of an empty installation does next.
fn the_first_data_comes(server: &Server, own: &str) {
    let page = || server.get_with("/first-time-setup", &format!("Accept: text/html\r\n{own}"));
    assert!(server.get_with("/dashboard", own).text().contains("There is no data here yet."));
    assert!(page().text().contains("agnes source add"));
    let files = server.folder.path().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("orders.csv"), "id\n1\n").unwrap();
    run(&server.folder, &["source", "add", "shop", "--path", files.to_str().unwrap()]);
    std::fs::write(files.join("people.csv"), "id\n1\n2\n").unwrap();
    assert!(page().text().contains("<strong>shop</strong> (files), 1 tables"), "{}", page().text());
    let token = server.form_token();
    let step = |name: &str, own: &str| {
        let own = own.trim_end().strip_prefix("Cookie: ").unwrap_or_default();
        let cookies = format!("Cookie: csrf={token}; {own}\r\nAccept: text/html\r\n");
        server.raw_form("/first-time-setup", &format!("csrf_token={token}&step={name}"), &cookies)
    };
    assert_eq!(step("register", "").status, 401);
    assert_eq!(step("nothing", own).status, 422);
    let registered = step("register", own);
    assert_eq!((registered.status, location(&registered)), (303, "/first-time-setup?said=1"));
    let told = server.get_with(location(&registered), own).text();
    assert!(told.contains("1 new tables are registered.") && told.contains("2 tables are registered."), "{told}");
    assert_eq!(location(&step("sync", own)), "/first-time-setup?said=syncing");
    // Once there is data, nothing is left to do here.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while page().status != 302 {
        assert!(std::time::Instant::now() < patience, "{}", page().text());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(!server.get_with("/dashboard", own).text().contains("There is no data here yet."));
}

#[test]
fn the_first_admin_is_made_on_the_page_that_the_start_names() {
    let server = Server::start();
    let (_, printed) = server.said.split_once("/first-time-setup?token=").unwrap();
    let token = printed.split_whitespace().next().unwrap();
    assert!(server.get("/login").text().contains("href=\"/first-time-setup\""));
    let page = server.get(&format!("/first-time-setup?token={token}"));
    assert!(page.status == 200 && page.text().contains(token));
    let foreign =
        server.form("/auth/bootstrap", "email=evil@evil.example&password=long+enough", "Host: evil.example\r\n");
    let asks = foreign.text().contains("has to bring the token of the start");
    assert!(foreign.status == 403 && asks, "a name of somebody else for this machine: {}", foreign.text());
    let short = server.form("/auth/bootstrap", &format!("email=first@acme.example&password=short&token={token}"), "");
    assert!(short.status == 400 && short.text().contains("at least 8 characters"), "{}", short.text());
    let done = server.form(
        "/auth/bootstrap",
        &format!("email=first@acme.example&name=Ann&password=long+enough&token={token}"),
        "X-Forwarded-Proto: https\r\n",
    );
    assert_eq!((done.status, location(&done)), (303, "/dashboard"), "{}", done.text());
    let own = format!("Cookie: access_token={}\r\n", cookie(&done, "access_token").unwrap());
    assert_eq!(server.get_with("/auth/me", &own).json()["role"], "admin");
    assert_eq!(location(&server.get("/first-time-setup")), "/dashboard");
    assert!(!server.get("/login").text().contains("/first-time-setup"));
    let again = server.form("/auth/bootstrap", "email=second@acme.example&password=long+enough", "");
    assert_eq!(again.status, 429, "three tries a minute");
    the_first_data_comes(&server, &own);
}

#[test]
fn a_code_from_the_page_gives_the_command_line_a_token_once() {
    let world = World::start_with(&[], &[("DESKTOP_JWT_SECRET", "a secret of desktop applications, long enough")]);
    let server = &world.server;
    assert_eq!(
        location(&server.get("/cli/auth/start?port=45678&state=abc")),
        "/login?next=/cli/auth/start%3Fport%3D45678%26state%3Dabc"
    );
    assert_eq!(world.get("member", "/cli/auth/start?port=45678").status, 403, "a token makes no token");
    let session = cookie(&sign_in(server, "member@example.com", PASSWORD, "", ""), "access_token").unwrap();
    let own = format!("access_token={session}");
    for odd in ["port=80", "port=x", "port=45678&state=%22%3E", "port=45678%40evil"] {
        let page = server.get_with(&format!("/cli/auth/start?{odd}"), &format!("Cookie: {own}\r\n"));
        assert_eq!(page.status, 422, "{odd}");
    }
    let token = server.form_token();
    let send = |path: &str, fields: &str| {
        server.raw_form(path, &format!("csrf_token={token}&{fields}"), &format!("Cookie: {own}; csrf={token}\r\n"))
    };
    let sent = send("/cli/auth/start", "port=45678&state=abc");
    let to = location(&sent).to_owned();
    assert!(
        sent.status == 303 && to.starts_with("http://127.0.0.1:45678/callback?code=") && to.ends_with("&state=abc"),
        "{to}"
    );
    let code = to.split_once("code=").unwrap().1.split('&').next().unwrap();
    let exchange =
        |code: &str| world.send("nobody", "POST", "/cli/auth/exchange", &json!({"code": code, "name": "laptop"}));
    let given = exchange(code);
    assert_eq!(given.status, 200, "{}", given.text());
    let pat = given.json()["token"].as_str().unwrap().to_owned();
    let me = server.get_with("/auth/me", &format!("Authorization: Bearer {pat}\r\n")).json();
    assert_eq!((&me["email"], &me["auth"]["type"]), (&json!("member@example.com"), &json!("pat")));
    for used in [code, "made up", ""] {
        assert_eq!(exchange(used).json()["code"], "code_invalid_or_expired");
    }
    // The same for a desktop application, whose token opens nothing else.
    let page = send("/desktop/link", "").text();
    let link = page.split("href=\"data-analyst://auth?code=").nth(1).unwrap();
    let code = link.split('&').next().unwrap();
    assert!(link.contains("server=http%3A//127.0.0.1"), "{link}");
    let body = json!({"code": code, "device_name": "Ann's app"});
    assert_eq!(exchange(code).status, 400, "a code is good for one thing");
    let given = world.send("nobody", "POST", "/api/desktop/token", &body);
    assert_eq!(given.status, 200, "{}", given.text());
    let desktop = format!("Authorization: Bearer {}\r\n", given.json()["token"].as_str().unwrap());
    assert_eq!(given.json()["user"]["email"], "member@example.com");
    assert_eq!(world.send("nobody", "POST", "/api/desktop/token", &body).status, 400);
    let status = server.get_with("/api/desktop/status", &desktop).json();
    assert_eq!((&status["linked"], &status["devices"][0]["name"]), (&json!(true), &json!("Ann's app")));
    assert_eq!(server.get_with("/auth/me", &desktop).status, 403);
    assert_eq!(world.send("member", "POST", "/api/desktop/unlink", &json!({"device_id": "nothing"})).status, 404);
    assert_eq!(world.send("member", "POST", "/api/desktop/unlink", &json!({})).json()["status"], "unlinked");
    assert_eq!(server.get_with("/api/desktop/status", &desktop).status, 401);
    let script = format!("Cookie: {own}\r\nSec-Fetch-Site: same-origin\r\n");
    let made = world.send_with("nobody", "POST", "/api/desktop/authorize", &Value::Null, &script);
    assert!(made.json()["url"].as_str().unwrap().starts_with("data-analyst://auth?code="), "{}", made.text());
}

#[test]
fn what_is_switched_off_is_hidden_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("instance.yaml");
    let write = |off: &str| {
        let text = format!(
            "config_version: 1\ninstance: {{name: Acme}}\nserver: {{host: h, hostname: h}}\nauth: {{allowed_domain: '*', disabled_providers: [{off}]}}\n"
        );
        std::fs::write(&config, text).unwrap();
    };
    let serve = |folder: &std::path::Path, variables: &[(&str, &str)]| {
        std::process::Command::new(super::process::BINARY)
            .args(["serve", "--bind", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .args(["--config".as_ref(), config.as_os_str()])
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    write("pasword");
    let refused = serve(folder.path(), &[]);
    assert!(!refused.status.success() && said(&refused).contains("auth.disabled_providers"), "{}", said(&refused));
    // Nobody could administer it any more.
    write("password");
    let refused = serve(folder.path(), &[]);
    assert!(!refused.status.success() && said(&refused).contains("no Admin could sign in"), "{}", said(&refused));
    let arguments = ["--config", config.to_str().unwrap()];
    write("password");
    let inner = tempfile::tempdir().unwrap();
    run(&inner, &["admin", "user", "add", "ann@acme.example"]);
    let server = Server::start_with(
        inner,
        &arguments,
        &[("SMTP_HOST", "127.0.0.1"), ("SMTP_PORT", "9"), ("SMTP_FROM", "a@b.example")],
    );
    let known = server.get("/auth/providers").json();
    let names: Vec<&str> =
        known["providers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!((names, &known["allowed_domains"]), (vec!["email"], &json!(["*"])));
    let page = server.get("/login").text();
    assert!(page.contains("Acme") && page.contains("/login/email") && !page.contains("/login/password"), "{page}");
    assert_eq!(server.get("/login/password").status, 403);
    let body = json!({"email": "ann@acme.example", "password": "long enough"}).to_string();
    let program = server.send(&format!(
        "POST /auth/token HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!((program.status, program.json()["code"].clone()), (403, json!("provider_disabled")));
    assert_eq!(server.form("/auth/password/login/web", "email=a&password=b", "").status, 403);
}

#[test]
fn a_developer_is_signed_in_on_this_machine_alone() {
    let dev = [("LOCAL_DEV_MODE", "1"), ("LOCAL_DEV_GROUPS", r#"[{"id": "g1", "name": "analysts@acme.example"}]"#)];
    let refused = std::process::Command::new(super::process::BINARY)
        .args(["serve", "--bind", "0.0.0.0:0", "--data-dir"])
        .arg(tempfile::tempdir().unwrap().path())
        .envs(dev)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    // What another start listed is taken away: the list is what a directory would say now.
    let before = [("LOCAL_DEV_MODE", "1"), ("LOCAL_DEV_GROUPS", r#"[{"id": "g0", "name": "Sales"}]"#)];
    let earlier = Server::start_with(tempfile::tempdir().unwrap(), &[], &before);
    earlier.signal("TERM");
    let (_, folder) = earlier.ended();
    let server = Server::start_with(folder, &[], &dev);
    let at = |host: &str, path: &str, more: &str| {
        server.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"))
    };
    let me = at("localhost:8000", "/auth/me", "").json();
    assert_eq!(
        (&me["email"], &me["role"], &me["auth"]["type"]),
        (&json!("dev@localhost"), &json!("admin"), &json!("dev"))
    );
    let groups: Vec<&str> = me["groups"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(groups, ["Admin", "Everyone", "analysts@acme.example"]);
    let kept = at("localhost", "/api/admin/groups", "").json();
    let kept = kept.as_array().unwrap().iter().find(|group| group["name"] == "Sales").unwrap().clone();
    assert_eq!((&kept["origin"], &kept["member_count"]), (&json!("google_sync"), &json!(0)));
    let log = at("localhost", "/api/admin/activity?action_prefix=group_sync", "").json();
    assert_eq!(log["rows"][0]["params"]["removed"], json!(["Sales"]), "{log}");
    assert_eq!(location(&at("127.0.0.1", "/login", "")), "/dashboard");
    assert!(at("localhost", "/dashboard", "").text().contains("Development mode"));
    // A name of somebody else for this machine, and a page of somebody else.
    assert_eq!(at("evil.example", "/auth/me", "").status, 403);
    let forged = server.send(
        "POST /auth/logout-all HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(forged.json()["code"], "csrf_failed");
}
