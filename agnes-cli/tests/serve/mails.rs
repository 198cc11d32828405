//! Mails with links, against a real SMTP server.

use serde_json::json;

use super::mailbox::{Mailbox, link};
use super::process::Server;
use super::world::{PASSWORD, World, run};

const MAIL_PASSWORD: &str = "a password of the mail server";

fn world(mailbox: &Mailbox, password: &str, more: &[(&str, &str)]) -> World {
    let mut variables = mailbox.variables(password);
    variables.extend(more.iter().map(|(name, value)| match *name {
        "SERVER_URL" => ("SERVER_URL", (*value).to_owned()),
        name => panic!("{name}"),
    }));
    variables.push(("AGNES_AUTH_RATELIMIT_ENABLED", "0".to_owned()));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    World::start_with(&[], &variables)
}

/// Path and query of a link.
fn path(link: &str) -> &str {
    &link[link.match_indices('/').nth(2).unwrap().0..]
}

/// A value of a link's query, as the link has it.
fn value<'a>(link: &'a str, name: &str) -> &'a str {
    link.split(['?', '&']).find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap()
}

fn reset_fields(link: &str, password: &str) -> String {
    let (email, token) = (value(link, "email"), value(link, "token"));
    format!("email={email}&token={token}&password={password}&confirm_password={password}")
}

#[test]
fn a_forgotten_password_is_replaced_by_a_mail_that_no_header_can_aim() {
    let Some(mailbox) = Mailbox::start("starttls") else { return };
    let world = world(&mailbox, MAIL_PASSWORD, &[]);
    let server = &world.server;
    let evil = "Host: evil.example\r\nX-Forwarded-Host: evil.example\r\n";
    let known = server.form("/auth/password/reset", "email=member@example.com", evil);
    let mail = mailbox.mails(1).remove(0);
    let unknown = server.form("/auth/password/reset", "email=nobody@example.com", evil);
    assert_eq!((known.status, known.text().len()), (unknown.status, unknown.text().len()), "one answer for everybody");
    assert!(known.text().contains("will arrive") && !known.text().contains("was sent"));
    assert!(mail.contains("X-To: member@example.com") && mail.contains("From: agnes@acme.example"), "{mail}");
    assert!(mail.contains("for 24 hours") && !mail.contains("evil"), "{mail}");
    let link = link(&mail, "/auth/password/reset?");
    assert!(link.starts_with(&format!("http://{}/", server.address)), "{link}");
    // Looking at the page uses nothing up.
    for _ in 0..3 {
        assert_eq!(server.get(path(&link)).status, 200);
    }
    let session = World::sign_in(server, "member@example.com", PASSWORD);
    let differ = server.form(
        "/auth/password/reset/confirm",
        &reset_fields(&link, "x").replace("confirm_password=x", "confirm_password=y"),
        "",
    );
    assert!(differ.status == 400 && differ.text().contains("differ"));
    let short = server.form("/auth/password/reset/confirm", &reset_fields(&link, "short"), "");
    assert!(short.status == 400 && short.text().contains("at least 8 characters"), "{}", short.text());
    // Of many who present it at once, one wins.
    let fields = reset_fields(&link, "another+password");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..4).map(|_| scope.spawn(|| server.form("/auth/password/reset/confirm", &fields, "").status)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 302).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 3, "{statuses:?}");
    let ended = server.get_with("/auth/me", &format!("Authorization: Bearer {session}\r\n"));
    assert_eq!(ended.json()["code"], "session_revoked", "every session ends");
    World::sign_in(server, "member@example.com", "another password");
    assert_eq!(mailbox.now().len(), 1, "nobody else got a mail");
    let stored: Vec<u8> = std::fs::read(server.folder.path().join("state/system.duckdb")).unwrap();
    let token = value(&link, "token").as_bytes();
    assert!(!stored.windows(token.len()).any(|window| window == token), "the token is not kept in clear");
    assert!(!server.log.lock().unwrap().contains(value(&link, "token")), "nor in the log");
}

#[test]
fn a_link_signs_in_once_and_a_first_password_is_set_by_mail() {
    let Some(mailbox) = Mailbox::start("implicit") else { return };
    let world = world(&mailbox, MAIL_PASSWORD, &[("SERVER_URL", "https://agnes.acme.example")]);
    let server = &world.server;
    let asked = world.send("nobody", "POST", "/auth/email/send-link", &json!({"email": "Member@example.com "}));
    assert_eq!(asked.status, 200, "{}", asked.text());
    let mail = mailbox.mails(1).remove(0);
    let other = world.send("nobody", "POST", "/auth/email/send-link", &json!({"email": "nobody@example.com"}));
    assert_eq!(asked.text(), other.text());
    assert!(mail.contains("for 1 hour."), "{mail}");
    let signing = link(&mail, "/auth/email/verify?");
    assert!(
        signing.starts_with("https://agnes.acme.example/auth/email/verify?email=member%40example.com&token="),
        "{signing}"
    );
    for _ in 0..3 {
        let page = server.get(path(&signing));
        assert!(page.status == 200 && page.header("set-cookie").is_some_and(|set| !set.contains("access_token")));
    }
    // Two at once, as a form and as a program: one session.
    let (email, token) = ("member@example.com", value(&signing, "token"));
    let form = || server.form("/auth/email/verify", &format!("email={email}&token={token}"), "").status;
    let program =
        || world.send("nobody", "POST", "/auth/email/verify", &json!({"email": email, "token": token})).status;
    let (form, program) = std::thread::scope(|scope| {
        let (form, program) = (scope.spawn(form), scope.spawn(program));
        (form.join().unwrap(), program.join().unwrap())
    });
    assert!(matches!((form, program), (303, 401) | (401, 200)), "{form} {program}");
    // Somebody whom an admin made a minute ago.
    let made = world.send("admin", "POST", "/api/admin/groups", &json!({"name": "new"}));
    assert_eq!(made.status, 201);
    run_on(server, &["admin", "user", "add", "new@example.com"]);
    assert_eq!(server.form("/auth/password/setup/request", "email=new@example.com", "").status, 200);
    let mail = mailbox.mails(2).into_iter().find(|mail| mail.contains("new@example.com")).unwrap();
    assert!(mail.contains("for 7 days."), "{mail}");
    let setup = link(&mail, "/auth/password/setup?");
    let done =
        server.form("/auth/password/setup/confirm", &format!("{}&name=New", reset_fields(&setup, "long+enough")), "");
    assert_eq!((done.status, done.header("location")), (302, Some("/dashboard")), "{}", done.text());
    let again = server.form("/auth/password/setup/confirm", &reset_fields(&setup, "long+enough"), "");
    assert!(again.status == 400 && again.text().contains("used already"));
    World::sign_in(server, "new@example.com", "long enough");
}

fn run_on(server: &Server, arguments: &[&str]) {
    run(&server.folder, arguments);
}

#[test]
fn where_somebody_wanted_to_go_survives_every_link_and_never_leaves_the_site() {
    let Some(mailbox) = Mailbox::start("starttls") else { return };
    let world = world(&mailbox, MAIL_PASSWORD, &[]);
    let server = &world.server;
    let wanted = "/setup?a=b&c=d";
    let next = "next=%2Fsetup%3Fa%3Db%26c%3Dd";
    let mails = |count: usize| mailbox.mails(count).pop().unwrap();
    assert!(server.get(&format!("/login/email?{next}")).text().contains("name=\"next\" value=\"/setup?a=b&amp;c=d\""));
    server.form("/auth/email/send-link", &format!("email=member@example.com&{next}"), "");
    let signing = link(&mails(1), "/auth/email/verify?");
    assert!(signing.ends_with(&format!("&{next}")), "{signing}");
    let page = server.get(path(&signing));
    assert!(page.text().contains("name=\"next\" value=\"/setup?a=b&amp;c=d\""));
    let token = value(&signing, "token");
    let done = server.form("/auth/email/verify", &format!("email=member@example.com&token={token}&{next}"), "");
    assert_eq!((done.status, done.header("location")), (303, Some(wanted)));
    server.form("/auth/password/reset", &format!("email=member@example.com&{next}"), "");
    let reset = link(&mails(2), "/auth/password/reset?");
    assert!(server.get(path(&reset)).text().contains("name=\"next\" value=\"/setup?a=b&amp;c=d\""));
    let fields = format!("{}&{next}", reset_fields(&reset, "another+password"));
    let done = server.form("/auth/password/reset/confirm", &fields, "");
    assert_eq!(done.header("location"), Some("/login/password?msg=password_reset&next=/setup%3Fa%3Db%26c%3Dd"));
    run_on(server, &["admin", "user", "add", "new@example.com"]);
    server.form("/auth/password/setup/request", &format!("email=new@example.com&{next}"), "");
    let setup = link(&mails(3), "/auth/password/setup?");
    let evil = "next=//evil.example";
    let page = server.get(&format!("{}&x", path(&setup).replace(next, evil))).text();
    assert!(page.contains("Choose a password") && !page.contains("evil"), "{page}");
    let done =
        server.form("/auth/password/setup/confirm", &format!("{}&{next}", reset_fields(&setup, "long+enough")), "");
    assert_eq!((done.status, done.header("location")), (302, Some(wanted)));
    // What leaves the site gets into no mail.
    let asked = json!({"email": "member@example.com", "next": "https://evil.example/"});
    assert_eq!(world.send("nobody", "POST", "/auth/email/send-link", &asked).status, 200);
    let mail = mails(4);
    assert!(!mail.contains("evil") && !link(&mail, "/auth/email/verify?").contains("next"), "{mail}");
    let token = value(&link(&mail, "/auth/email/verify?"), "token").to_owned();
    let done = server.form("/auth/email/verify", &format!("email=member@example.com&token={token}&{evil}"), "");
    assert_eq!((done.status, done.header("location")), (303, Some("/dashboard")));
}

#[test]
fn a_mail_that_cannot_be_sent_is_told_to_the_operator_alone() {
    let Some(mailbox) = Mailbox::start("starttls") else { return };
    let world = world(&mailbox, "a wrong password of the mail server", &[]);
    let answer = world.server.form("/auth/password/reset", "email=member@example.com", "");
    assert!(answer.status == 200 && answer.text().contains("will arrive"));
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let log = world.server.log.lock().unwrap().clone();
        if log.contains("mail_sign_in_refused") {
            assert!(!log.contains("wrong password of the mail server") && !log.contains("member@example.com"), "{log}");
            break;
        }
        assert!(std::time::Instant::now() < patience, "{log}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(mailbox.now().is_empty());
    let health = world.get("admin", "/api/health/detailed").json();
    let mail = &health["services"]["mail"];
    assert_eq!((&mail["status"], &mail["last_error"]), (&json!("warning"), &json!("mail_sign_in_refused")), "{health}");
    let figures = world.server.get("/metrics").text();
    assert!(figures.contains("agnes_mails_failed 1") && figures.contains("agnes_mails_sent 0"), "{figures}");
}

/// Invitations and answers of admins go by mail, and the admin is told whether they went.
#[test]
fn admins_are_told_whether_their_mail_went_out() {
    let Some(mailbox) = Mailbox::start("starttls") else { return };
    let world = world(&mailbox, MAIL_PASSWORD, &[("SERVER_URL", "https://agnes.acme.example")]);
    let new = json!({"email": "new@example.com", "send_invite": true});
    let made = world.send("admin", "POST", "/api/users", &new).json();
    assert_eq!(made["invite_email_sent"], true, "{made}");
    let url = made["invite_url"].as_str().unwrap();
    assert!(url.starts_with("https://agnes.acme.example/auth/password/setup?email=new%40example.com&token="), "{url}");
    let invited = mailbox.mails(1).remove(0);
    assert!(invited.contains("X-To: new@example.com"), "{invited}");
    assert_eq!(link(&invited, "/auth/password/setup?"), url);
    let reset = world.send("admin", "POST", "/api/users/member@example.com/reset-password", &serde_json::Value::Null);
    assert_eq!(reset.json()["email_sent"], true);
    let asked = world.send("stranger", "POST", "/api/access-requests", &json!({"resource_id": "orders"})).json();
    let deny = format!("/api/access-requests/{}/deny", asked["id"].as_str().unwrap());
    assert_eq!(world.send("admin", "POST", &deny, &json!({"note": "ask for <people>"})).status, 200);
    let mails = mailbox.mails(3);
    let answer = mails.iter().find(|mail| mail.contains("X-To: stranger@example.com")).unwrap();
    assert!(
        answer.contains("was refused") && answer.contains("orders") && !answer.contains("<people></p>"),
        "{answer}"
    );
}
