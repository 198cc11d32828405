//! Jira tells a running server: who is heard, what is kept, and that a storm under kills ends with
//! exactly what the site has.
//!
//! `make storm-jira` sends as many as `EVENTS` says (10,000).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::jira_site::{EMAIL, Fake, SECRET, TOKEN, signature};
use super::process::{Answer, Server, is_secret};
use super::world::World;

/// A folder with a file that lets the server call this machine.
pub(crate) fn config() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = "config_version: 1\ninstance: {name: Acme}\nauth: {allowed_domain: example.com}\n\
                server: {host: h, hostname: h}\nsecurity: {allowed_private_hosts: [127.0.0.1]}\n";
    std::fs::write(folder.path().join("instance.yaml"), text).unwrap();
    folder
}

/// Adds a source `jira`.
pub(crate) fn add_source(world: &World, fake: &Fake) {
    let (domain, email) = (format!("domain={}", fake.url), format!("email={EMAIL}"));
    world.command(&["source", "add", "jira", "--kind", "jira", "--set", &domain, "--set", &email]);
}

pub(crate) struct Site {
    world: World,
    fake: Fake,
    _config: tempfile::TempDir,
}

impl Site {
    /// A server with a source `jira` on a site of our own.
    fn start(log: &str) -> Self {
        let (fake, config) = (Fake::start(), config());
        [TOKEN, SECRET].iter().for_each(|secret| is_secret(secret));
        let path = config.path().to_str().unwrap().to_owned();
        let world = World::start_with(&[], &Self::variables(&path, log));
        add_source(&world, &fake);
        Self { world, fake, _config: config }
    }

    pub(crate) fn variables<'a>(config: &'a str, log: &'a str) -> [(&'a str, &'a str); 5] {
        [
            ("CONFIG_DIR", config),
            ("JIRA_API_TOKEN", TOKEN),
            ("JIRA_WEBHOOK_SECRET", SECRET),
            ("AGNES_LOG", log),
            ("AGNES_AUTH_RATELIMIT_ENABLED", "0"),
        ]
    }

    /// Kills the server, and starts another one on its folder.
    fn killed(self, log: &str) -> Self {
        let Self { world, fake, _config } = self;
        world.server.signal("KILL");
        let path = _config.path().to_str().unwrap().to_owned();
        let world = world.start_again(&Self::variables(&path, log));
        Self { world, fake, _config }
    }

    fn health(&self) -> Value {
        self.world.get("admin", "/webhooks/jira/health").json()
    }

    fn settled(&self) {
        let patience = Instant::now() + Duration::from_secs(120);
        while self.health()["pending"] != 0 {
            assert!(Instant::now() < patience, "{}", self.health());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn rows(&self, who: &str, sql: &str) -> Value {
        let answer = self.world.send(who, "POST", "/api/query", &json!({"sql": sql, "limit": 1_000_000}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["rows"].clone()
    }
}

/// A delivery, as Jira sends it.
fn request(path: &str, id: &str, signature: Option<&str>, body: &[u8]) -> Vec<u8> {
    let signature = signature.map(|text| format!("X-Hub-Signature: {text}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\n\
         X-Atlassian-Webhook-Identifier: {id}\r\n{signature}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn deliver(server: &Server, id: &str, body: &[u8]) -> Option<Answer> {
    server.try_send(&request("/webhooks/jira", id, Some(&signature(SECRET, body)), body))
}

#[test]
fn only_the_site_is_heard_and_what_it_tells_is_granted_like_any_table() {
    let site = Site::start("trace");
    let (world, fake) = (&site.world, &site.fake);
    let key = fake.create("HELP", "one");
    let file = fake.attach(&key, "a \"b\" ž.txt", b"hello");
    let (id, body) = fake.event("jira:issue_created", &key);
    let send = |path: &str, signature: Option<&str>, body: &[u8]| {
        let answer = world.server.send_bytes(&request(path, "1", signature, body));
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    for path in ["/webhooks/jira", "/api/jira/webhook"] {
        assert_eq!(send(path, None, &body), refused(401, "webhook_signature_invalid"));
        assert_eq!(send(path, Some(&signature("other", &body)), &body), refused(401, "webhook_signature_invalid"));
        // Unsigned, nobody learns what would be wrong with it.
        assert_eq!(send(path, None, b"{"), refused(401, "webhook_signature_invalid"));
        for wrong in [&b""[..], b"{", b"{}", b"{\"issue\": {\"key\": \"x\"}}"] {
            assert_eq!(send(path, Some(&signature(SECRET, wrong)), wrong), refused(400, "webhook_invalid"));
        }
        let long = vec![b'x'; (10 << 20) + 1];
        let answer = world.server.try_send(&request(path, "1", Some(&signature(SECRET, &long)), &long));
        assert!(answer.is_none_or(|answer| matches!(answer.status, 0 | 413)));
    }
    let answer = deliver(&world.server, &id, &body).unwrap();
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"status": "ok", "event": "jira:issue_created", "issue": key}))
    );
    assert_eq!(deliver(&world.server, &id, &body).unwrap().status, 200);
    for (who, status) in [("nobody", 401), ("member", 403), ("admin", 200)] {
        assert_eq!(world.get(who, "/webhooks/jira/health").status, status, "{who}");
    }
    site.settled();
    let health = site.health();
    assert_eq!(
        (&health["status"], &health["configured"], &health["webhook_secret_set"]),
        (&json!("ok"), &json!(true), &json!(true))
    );
    assert_eq!(site.rows("admin", "SELECT issue_key, summary FROM jira_issues"), json!([[key, "one"]]));
    // Nobody reads it before it is granted, its files among it.
    let address = format!("/api/data/jira_attachments/attachments/{file}");
    let patience = Instant::now() + Duration::from_secs(30);
    while world.get("admin", &address).status != 200 {
        assert!(Instant::now() < patience, "the file never came");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = world.get("admin", &address);
    assert_eq!(told.body, b"hello");
    let named = told.header("content-disposition").unwrap();
    assert!(named.contains("filename=\"a _b_ _.txt\"") && named.contains("%C5%BE.txt"), "{named}");
    assert_eq!(world.get("member", &address).status, 404);
    assert_eq!(world.get("nobody", &address).status, 401);
    let select = json!({"sql": "SELECT count(*) FROM jira_issues"});
    assert_eq!(world.send("member", "POST", "/api/query", &select).status, 403);
    for table in ["jira_issues", "jira_attachments"] {
        world.command(&["admin", "grant", "create", "analysts", "table", table]);
    }
    assert_eq!(world.get("member", &address).body, b"hello");
    assert_eq!(world.send("member", "POST", "/api/query", &select).json()["rows"], json!([[1]]));
    // Its account for service levels is not set up; a check goes on without.
    let look = |what: &str| world.send("service", "POST", &format!("/api/admin/run-jira-{what}"), &Value::Null);
    assert_eq!((look("sla-poll").status, look("consistency-check").status), (400, 200));
    // Every delivery and refusal is in the log, without what it held.
    let log = world.get("admin", "/api/admin/activity?action_prefix=webhook.&limit=100").json();
    let rows = log["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["params"]["subject"] == key.as_str()), "{log}");
    assert!(rows.iter().any(|row| row["result"] == "denied"), "{log}");
    assert!(!log.to_string().contains("about one"));
}

/// Variables alone make the source, whatever is wrong with another one that the configuration names;
/// what it is told is kept where they say.
#[test]
fn variables_make_the_source() {
    let (fake, config, raw) = (Fake::start(), config(), tempfile::tempdir().unwrap());
    [TOKEN, SECRET].iter().for_each(|secret| is_secret(secret));
    let path = config.path().join("instance.yaml");
    let wrong = "data_source: {keboola: {stack_url: 'no address'}}\n";
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + wrong).unwrap();
    let kept = raw.path().join("jira").to_str().unwrap().to_owned();
    let mut variables = Site::variables(config.path().to_str().unwrap(), "info").to_vec();
    variables.extend([("JIRA_DOMAIN", fake.url.as_str()), ("JIRA_EMAIL", EMAIL), ("JIRA_DATA_DIR", kept.as_str())]);
    let world = World::start_with(&[], &variables);
    let health = world.get("admin", "/webhooks/jira/health").json();
    assert_eq!((&health["configured"], &health["webhook_secret_set"]), (&json!(true), &json!(true)));
    let site = Site { world, fake, _config: config };
    let key = site.fake.create("HELP", "one");
    let (id, body) = site.fake.event("jira:issue_created", &key);
    assert_eq!(deliver(&site.world.server, &id, &body).unwrap().status, 200);
    site.settled();
    assert_eq!(site.rows("admin", "SELECT issue_key, summary FROM jira_issues"), json!([[key, "one"]]));
    assert!(raw.path().join(format!("jira/issues/{key}.json")).is_file());
    assert!(raw.path().join("jira/webhook_events").is_dir());
}

/// Has something happen at the site; what it tells of it.
fn happen(fake: &Fake, number: usize) -> Vec<(String, Vec<u8>)> {
    let keys: Vec<String> = fake.state().issues.keys().cloned().collect();
    // The same every time, and in no order.
    let dice = (number.wrapping_mul(2_654_435_761) >> 7) % 100;
    let key = keys.get((number * 7919) % keys.len().max(1)).cloned();
    let told = match (dice, key) {
        (_, Some(key)) if dice < 45 => {
            fake.set(&key, "summary", json!(format!("name {number}")));
            fake.event("jira:issue_updated", &key)
        }
        (45..60, Some(key)) => {
            fake.comment(&key, &format!("comment {number}"));
            fake.event("comment_created", &key)
        }
        (60..65, Some(key)) => {
            fake.uncomment(&key);
            fake.event("comment_deleted", &key)
        }
        (65..72, Some(key)) => {
            fake.remote_link(&key, &format!("https://wiki.example/{number}"));
            fake.event("jira:issue_updated", &key)
        }
        (72..78, Some(key)) => {
            fake.set(&key, "status", json!({"name": "Done", "statusCategory": {"name": "Done"}}));
            fake.event("jira:issue_updated", &key)
        }
        (78..83, Some(key)) if keys.len() > 20 => {
            fake.delete(&key);
            fake.event("jira:issue_deleted", &key)
        }
        (83..87, Some(key)) => {
            fake.attach(&key, &format!("{number}.txt"), b"a file");
            fake.event("attachment_created", &key)
        }
        (87..91, Some(key)) if keys.last() != Some(&key) => {
            let other = &keys[keys.len() - 1];
            fake.link(&key, other);
            return [&key, other].map(|key| fake.event("jira:issue_updated", key)).into();
        }
        _ => {
            let key = fake.create("HELP", &format!("issue {number}"));
            fake.event("jira:issue_created", &key)
        }
    };
    vec![told]
}

/// Every table is what the site has.
fn same(site: &Site) {
    let (mut issues, mut others) = (BTreeMap::new(), Vec::new());
    for (key, issue) in &site.fake.state().issues {
        let text = |field: &Value| field.as_str().unwrap().to_owned();
        issues.insert(key.clone(), (text(&issue.fields["summary"]), text(&issue.fields["status"]["name"])));
        let listed = |field: &str| issue.fields[field].as_array().unwrap().clone();
        for (what, list) in [
            ("comment", &issue.comments),
            ("change", &issue.changes),
            ("remote", &issue.remote),
            ("link", &listed("issuelinks")),
            ("file", &listed("attachment")),
        ] {
            let id = |one: &Value| one["id"].as_str().map_or_else(|| one["id"].to_string(), str::to_owned);
            others.extend(list.iter().map(|one| format!("{what} {key} {}", id(one))));
        }
    }
    others.sort();
    let rows = site.rows("admin", "SELECT issue_key, summary, status FROM jira_issues");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found: BTreeMap<_, _> =
        rows.as_array().unwrap().iter().map(|row| (text(&row[0]), (text(&row[1]), text(&row[2])))).collect();
    assert_eq!(rows.as_array().unwrap().len(), found.len(), "an issue is there twice");
    assert_eq!(found, issues);
    let sql = "SELECT 'comment ' || issue_key || ' ' || comment_id FROM jira_comments UNION ALL \
               SELECT 'change ' || issue_key || ' ' || change_id FROM jira_changelog UNION ALL \
               SELECT 'remote ' || issue_key || ' ' || remote_link_id FROM jira_remote_links UNION ALL \
               SELECT 'link ' || issue_key || ' ' || link_id FROM jira_issuelinks UNION ALL \
               SELECT 'file ' || issue_key || ' ' || attachment_id FROM jira_attachments";
    let mut found: Vec<String> = site.rows("admin", sql).as_array().unwrap().iter().map(|row| text(&row[0])).collect();
    found.sort();
    assert_eq!(found, others);
}

/// Events come more than once and in another order, while the server is killed every second. Jira
/// sends what was not acknowledged again; nothing that was acknowledged is sent again.
#[test]
fn a_storm_under_kills_ends_with_what_the_site_has() {
    let wanted: usize = std::env::var("AGNES_STORM_EVENTS").map_or(10_000, |text| text.parse().unwrap());
    let mut events: Vec<(String, Vec<u8>)> = Vec::new();
    let site = Site::start("info");
    for number in 0..wanted * 4 / 5 {
        events.extend(happen(&site.fake, number));
    }
    // A fifth is sent twice, and each comes up to fifty places early or late.
    let happened = events.len();
    let again: Vec<_> = events.iter().step_by(4).cloned().collect();
    events.extend(again);
    let place = |number: usize| number % happened + (number.wrapping_mul(40_503) >> 3) % 50;
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by_key(|number| place(*number));
    let (next, acknowledged, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let failed = Mutex::new(Vec::<usize>::new());
    let site = RwLock::new(Some(site));
    let mut kills = 0;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let retried = failed.lock().unwrap().pop();
                    let Some(event) = retried.or_else(|| order.get(next.fetch_add(1, SeqCst)).copied()) else {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    };
                    let (id, body) = &events[event];
                    let answer = match &*site.read().unwrap() {
                        Some(site) => deliver(&site.world.server, id, body),
                        None => None,
                    };
                    match answer.map(|answer| answer.status) {
                        Some(200) => drop(acknowledged.fetch_add(1, SeqCst)),
                        None | Some(0 | 503) => {
                            failed.lock().unwrap().push(event);
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Some(status) => panic!("{status}"),
                    }
                    // As fast as Jira does: a storm lasts longer than a life of the server.
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let patience =
            Instant::now() + Duration::from_secs(60) + Duration::from_millis(30) * u32::try_from(wanted).unwrap();
        while acknowledged.load(SeqCst) < events.len() {
            assert!(Instant::now() < patience, "{} of {} acknowledged", acknowledged.load(SeqCst), events.len());
            std::thread::sleep(Duration::from_secs(1));
            site.read().unwrap().as_ref().unwrap().world.server.signal("KILL");
            kills += 1;
            let mut site = site.write().unwrap();
            *site = Some(site.take().unwrap().killed("info"));
        }
        stop.store(true, SeqCst);
    });
    let site = site.into_inner().unwrap().unwrap();
    site.settled();
    same(&site);
    let issues = site.fake.state().issues.clone();
    let any =
        |field: &str| issues.values().any(|issue| issue.fields[field].as_array().is_some_and(|all| !all.is_empty()));
    assert!(any("attachment") && any("issuelinks"), "none of them happened");
    eprintln!("{} events of {} issues, {kills} kills", events.len(), site.fake.state().issues.len());
    assert!(kills > 0);
}
