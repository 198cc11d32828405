//! Signing in elsewhere: against a certified provider, and against one whose tokens are wrong.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::mailbox::tools;
use super::process::Server;
use super::visitor::Browser;

/// An identity provider in a process of its own.
struct Component {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Component {
    /// None, with a loud line, where it is not installed and need not be.
    fn start(script: &str, arguments: &[&str]) -> Option<Self> {
        let tools = tools("node_modules/oauth2-mock-server")?;
        let mut child = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve").join(script))
            .arg(tools)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut component = Self { child, input, output };
        component.wait_for("ready");
        Some(component)
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.starts_with(word) {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the component ended");
        }
    }

    /// Says what is wrong from now on.
    fn say(&mut self, word: &str) {
        writeln!(self.input, "{word}").unwrap();
        self.wait_for(&format!("now {word}"));
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that signs people of `acme.example` in at `issuer`.
fn agnes(issuer: &str, secret: &str, variables: &[(&str, &str)]) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance.yaml");
    let config = "config_version: 1\ninstance: {name: Acme}\nauth: {allowed_domain: acme.example}\n\
                  server: {host: h, hostname: h}\nsecurity: {allowed_private_hosts: [127.0.0.1, localhost]}\n";
    std::fs::write(&file, config).unwrap();
    let own = [("AGNES_OIDC_ISSUER", issuer), ("AGNES_OIDC_CLIENT_ID", "agnes"), ("AGNES_OIDC_CLIENT_SECRET", secret)];
    Server::start_with(folder, &["--config", file.to_str().unwrap()], &[&own, variables].concat())
}

fn of(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

/// Who the browser is signed in as.
fn me(browser: &mut Browser, server: &Server) -> Value {
    browser.get(&of(server, "/auth/me")).json()
}

const SECRET: &str = "a secret of the client: with signs % & +";

struct Certified {
    server: Server,
    _provider: Component,
}

impl Certified {
    fn start(apart: &str) -> Option<Self> {
        let port = agnes_core::testing::free_port().to_string();
        let server = agnes(&format!("http://127.0.0.1:{port}"), SECRET, &[]);
        let provider = Component::start("oidc-provider.mjs", &[&port, &of(&server, "/auth/oidc/callback"), apart])?;
        Some(Self { server, _provider: provider })
    }

    /// Goes from the sign-in page to the provider, says who it is there, and where that ends.
    fn sign_in(&self, browser: &mut Browser, who: &str, next: &str) -> String {
        let mut page = browser.visit(&of(&self.server, &format!("/auth/oidc/login{next}")));
        if page.url.contains("/interaction/") && page.answer.text().contains("name=\"login\"") {
            page = browser.send_form(&page.url, &format!("prompt=login&login={who}&password=x"));
        }
        if page.url.contains("/interaction/") {
            page = browser.send_form(&page.url, "prompt=consent");
        }
        page.url.strip_prefix(&of(&self.server, "")).unwrap_or(&page.url).to_owned()
    }
}

#[test]
fn people_sign_in_at_a_certified_provider() {
    let Some(world) = Certified::start("no") else { return };
    let server = &world.server;
    let (mut ann, mut again) = (Browser::default(), Browser::default());
    assert_eq!(world.sign_in(&mut ann, "ann", "?next=/catalog%3Fx%3D1"), "/catalog?x=1");
    let first = me(&mut ann, server);
    assert_eq!((&first["email"], &first["name"]), (&json!("ann@acme.example"), &json!("Ann Acme")));
    assert_eq!((&first["auth"]["type"], &first["is_admin"]), (&json!("session"), &json!(false)));
    assert_eq!(world.sign_in(&mut again, "ann", ""), "/dashboard");
    assert_eq!(me(&mut again, server)["user_id"], first["user_id"], "one account");
    for (who, refused) in [("bob", "no_email"), ("eve", "domain_not_allowed")] {
        let mut browser = Browser::default();
        assert_eq!(world.sign_in(&mut browser, who, "?next=/a"), format!("/login?error={refused}&next=/a"));
        assert_eq!(browser.get(&of(server, "/auth/me")).status, 401, "{who}");
    }
    // Wherever somebody wants to go afterwards, it is here.
    for evil in
        ["//evil.example", "/%5Cevil.example", "https://evil.example", "%2F%2Fevil.example", "/%09/evil.example"]
    {
        let landed = world.sign_in(&mut Browser::default(), "ann", &format!("?next={evil}"));
        assert_eq!(landed, "/dashboard", "{evil}");
    }
}

#[test]
fn an_answer_belongs_to_the_browser_that_asked_and_is_good_for_once() {
    let Some(world) = Certified::start("no") else { return };
    let server = &world.server;
    let asked = Browser::default().get(&of(server, "/auth/oidc/login"));
    let to = asked.header("location").unwrap();
    for part in ["response_type=code", "scope=openid+email+profile", "code_challenge_method=S256", "state=", "nonce="] {
        assert!(to.contains(part), "{part} {to}");
    }
    // A forged host is not where the code goes.
    let forged = server.send("GET /auth/oidc/login HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\nConnection: close\r\n\r\n");
    assert!(!forged.header("location").unwrap().contains("evil"), "{}", forged.head);
    let kept = asked.header("set-cookie").unwrap();
    assert!(kept.contains("HttpOnly; SameSite=Lax; Path=/auth; Max-Age=600"), "{kept}");
    let mut ann = Browser::default();
    assert_eq!(world.sign_in(&mut ann, "ann", ""), "/dashboard");
    let callback = ann.seen.iter().rfind(|url| url.contains("/auth/oidc/callback")).unwrap().clone();
    // Once more, in the same browser and in somebody else's.
    for browser in [&mut ann, &mut Browser::default()] {
        assert_eq!(browser.get(&callback).header("location"), Some("/login?error=oauth_failed"));
    }
    // An attacker's answer in the browser of somebody who is on the way themselves.
    let mut victim = Browser::default();
    victim.get(&of(server, "/auth/oidc/login"));
    assert!(victim.visit(&callback).url.contains("error=oauth_failed"));
    assert_eq!(victim.get(&of(server, "/auth/me")).status, 401);
    for query in ["", "?code=x", "?state=x", "?code=x&state=x", "?error=a%0Ab", "?state=a&state=b&code=c", "?code=%00"]
    {
        let page = Browser::default().visit(&of(server, &format!("/auth/oidc/callback{query}")));
        assert!(page.url.ends_with("/login?error=oauth_failed"), "{query}: {}", page.url);
    }
    // What a cookie of another purpose holds is none of it, nor is one that was changed.
    for cookie in ["x", "eyJhbGciOiJub25lIn0.e30.", ""] {
        let answer =
            server.get_with("/auth/oidc/callback?code=x&state=x", &format!("Cookie: agnes_sign_in={cookie}\r\n"));
        assert_eq!(answer.header("location"), Some("/login?error=oauth_failed"), "{cookie}");
    }
    // Google is not set up here.
    for path in ["/auth/google/login?next=/a", "/auth/google/callback?code=x"] {
        let answer = server.get(path);
        assert!(answer.header("location").unwrap().starts_with("/login?error=google_not_configured"), "{path}");
    }
}

#[test]
fn a_provider_may_tell_the_address_apart_from_the_token() {
    let Some(world) = Certified::start("yes") else { return };
    let mut ann = Browser::default();
    assert_eq!(world.sign_in(&mut ann, "ann", ""), "/dashboard");
    assert_eq!(me(&mut ann, &world.server)["email"], "ann@acme.example");
}

#[test]
fn no_wrong_token_is_believed() {
    let port = agnes_core::testing::free_port();
    let server = agnes(&format!("http://localhost:{port}"), "s3cret of the client", &[]);
    let Some(mut provider) = Component::start("oauth2-mock.mjs", &[&port.to_string()]) else { return };
    let enter = |browser: &mut Browser| browser.visit(&of(&server, "/auth/oidc/login?next=/there"));
    for wrong in [
        "issuer",
        "audience",
        "audiences",
        "party",
        "nonce",
        "no-nonce",
        "expired",
        "future",
        "stale",
        "subject",
        "signature",
        "claims",
        "unsigned",
        "unsigned-with-signature",
        "mac-of-key",
        "mac-of-jwk",
        "mac-of-secret",
        "other-algorithm",
        "unknown-key",
        "garbage",
        "no-id-token",
        "server-error",
        "not-json",
        "error-with-lines",
        "apart-of-another",
        "denied",
        "state",
        "mixed-up",
        "unverified",
        "verification",
    ] {
        provider.say(wrong);
        let mut browser = Browser::default();
        let page = enter(&mut browser);
        let code = if matches!(wrong, "unverified" | "verification") { "no_email" } else { "oauth_failed" };
        assert!(page.url.ends_with(&format!("/login?error={code}&next=/there")), "{wrong}: {}", page.url);
        assert_eq!(browser.get(&of(&server, "/auth/me")).status, 401, "{wrong}");
    }
    // The log says why, in lines of our own and without a secret.
    let log = server.log.lock().unwrap().clone();
    assert!(log.contains("signing in elsewhere failed") && !log.contains("s3cret of the client"), "{log}");
    assert!(
        log.contains("forged line") && !log.lines().any(|line| line.trim_start().starts_with("INFO forged")),
        "{log}"
    );
    // The same provider with nothing wrong, and with the address apart.
    for right in ["nothing", "apart"] {
        provider.say(right);
        let mut browser = Browser::default();
        assert_eq!(enter(&mut browser).url, of(&server, "/there"), "{right}");
        assert_eq!(me(&mut browser, &server)["email"], "ann@acme.example", "{right}");
    }
    drop(provider);
    // Gone: what is known of it lasts a while, what has to be asked does not.
    assert!(enter(&mut Browser::default()).url.contains("localhost"), "the browser is sent there");
}

#[test]
fn keys_that_change_are_found() {
    let port = agnes_core::testing::free_port();
    let server = agnes(&format!("http://localhost:{port}"), "s3cret of the client", &[]);
    let Some(mut provider) = Component::start("oauth2-mock.mjs", &[&port.to_string()]) else { return };
    for word in ["nothing", "rotated", "nothing"] {
        provider.say(word);
        let page = Browser::default().visit(&of(&server, "/auth/oidc/login?next=/there"));
        assert_eq!(page.url, of(&server, "/there"), "{word}");
    }
}

#[test]
fn groups_of_the_directory_come_along() {
    let port = agnes_core::testing::free_port();
    let issuer = format!("http://localhost:{port}");
    let groups = [
        ("GOOGLE_ADMIN_SDK_MOCK_GROUPS", "Agnes-Admins@acme.example, agnes-eng@acme.example, lunch@acme.example"),
        ("AGNES_GOOGLE_GROUP_PREFIX", "agnes-"),
        ("AGNES_GROUP_ADMIN_EMAIL", "agnes-admins@acme.example"),
        ("AGNES_DEBUG_AUTH", "1"),
    ];
    let server = agnes(&issuer, "s3cret of the client", &groups);
    let Some(_provider) = Component::start("oauth2-mock.mjs", &[&port.to_string()]) else { return };
    let mut ann = Browser::default();
    assert_eq!(ann.visit(&of(&server, "/auth/oidc/login?next=/there")).url, of(&server, "/there"));
    let who = me(&mut ann, &server);
    let names: Vec<(&str, &str)> = who["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["name"].as_str().unwrap(), group["origin"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [("Admin", "system"), ("Everyone", "system"), ("agnes-eng@acme.example", "google_sync")]);
    let mut post = |path: &str| ann.post(&of(&server, path));
    let preview = post("/me/profile/refetch-groups");
    assert_eq!(preview.status, 200, "{}", preview.text());
    let preview = preview.json();
    assert_eq!((&preview["applied"], &preview["soft_failed"]), (&json!(false), &json!(false)));
    assert_eq!(preview["fetched"].as_array().unwrap().len(), 3);
    assert_eq!(preview["fetched_relevant"], json!(["agnes-admins@acme.example", "agnes-eng@acme.example"]));
    assert_eq!(preview["would_add"], json!([]));
    let refreshed = post("/auth/refresh-groups");
    assert_eq!(refreshed.json(), json!({"added": [], "removed": [], "ignored": []}));
    let soon = post("/auth/refresh-groups");
    assert_eq!((soon.status, soon.json()["code"].as_str()), (429, Some("rate_limited")));
    // Somebody who proved who they are closes the door for a first Admin.
    let first = json!({"email": "late@acme.example", "password": "long enough"}).to_string();
    let late = server.send(&format!(
        "POST /auth/bootstrap HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}",
        first.len()
    ));
    assert_eq!((late.status, late.json()["code"].as_str()), (403, Some("bootstrap_closed")));
}
