//! A source that tells: every kind of event, in any order, more than once.

use std::io::Write as _;

use serde_json::json;

use crate::fake::{SECRET, TOKEN, signature};
use crate::support::{CLOUD_HOST, MEDIA_HOST, Site, owner};
use agnes_core::Client;
use agnes_core::push::Delivery;

#[tokio::test(flavor = "multi_thread")]
async fn every_event_reaches_the_tables() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    // Before anything was ever synced.
    site.tell("jira:issue_created", &key).await;
    site.settled().await;
    site.is_same().await;
    let other = site.fake.create("HELP", "two");
    site.tell("jira:issue_created", &other).await;
    site.fake.set(&key, "summary", json!("renamed"));
    site.tell("jira:issue_updated", &key).await;
    site.settled().await;
    site.is_same().await;
    site.fake.comment(&key, "a comment");
    site.tell("comment_created", &key).await;
    site.fake.comment(&key, "another");
    site.tell("comment_updated", &key).await;
    site.settled().await;
    site.is_same().await;
    // The end of a comment is not the end of its issue.
    site.fake.uncomment(&key);
    site.tell("comment_deleted", &key).await;
    site.settled().await;
    site.is_same().await;
    assert_eq!(site.ask("SELECT count(*) FROM jira_issues").await, ["2"]);
    site.fake.link(&key, &other);
    site.tell("issuelink_created", &key).await;
    site.tell("issuelink_created", &other).await;
    site.fake.remote_link(&key, "https://wiki.example");
    site.tell("jira:issue_updated", &key).await;
    site.fake.change(&key, |_| {});
    site.tell("worklog_created", &key).await;
    site.tell("attachment_deleted", &key).await;
    site.settled().await;
    site.is_same().await;
    site.fake.delete(&other);
    site.tell("jira:issue_deleted", &other).await;
    site.settled().await;
    site.fake.change(&key, |issue| issue.fields["issuelinks"] = json!([]));
    site.tell("jira:issue_updated", &key).await;
    site.settled().await;
    site.is_same().await;
    // Nobody knew it.
    site.tell("jira:issue_deleted", "HELP-999").await;
    site.settled().await;
    site.is_same().await;
    assert_eq!(site.raw("HELP-999"), None);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_arrival_does_not_matter() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    let created = site.fake.event("jira:issue_created", &key);
    site.fake.set(&key, "summary", json!("two"));
    let second = site.fake.event("jira:issue_updated", &key);
    site.fake.set(&key, "summary", json!("three"));
    let third = site.fake.event("jira:issue_updated", &key);
    // The site does not answer: what deliveries say is all there is, and the newest of it counts.
    site.fake.fault("/issue/", 503, &[], "", u32::MAX);
    for (id, body) in [&third, &created, &second, &third] {
        site.deliver(id, body).await.unwrap();
    }
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let summary = loop {
        let asked = site.engine.query(&owner(), agnes_core::query::Query::new("SELECT 1 FROM jira_issues")).await;
        if asked.is_ok() {
            let rows = site.ask("SELECT summary, comment_count FROM jira_issues").await;
            if !rows.is_empty() {
                break rows;
            }
        }
        assert!(std::time::Instant::now() < patience, "nothing was published");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(summary.len(), 1);
    // It still waits for the site, and says why.
    let told = async || {
        let state = site.engine.sync().state(&owner()).await.unwrap();
        state.iter().any(|s| s.error.as_deref().is_some_and(|error| error.contains("tried again")))
    };
    while !told().await {
        assert!(std::time::Instant::now() < patience, "nothing was told");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let health = site.engine.pushes().health(&owner(), "jira").await.unwrap();
    assert_eq!((health.pending, health.status.as_str()), (1, "degraded"));
    assert!(health.error.unwrap().contains("503"));
    site.fake.state().faults.clear();
    site.deliver(&second.0, &second.1).await.unwrap();
    site.settled().await;
    site.is_same().await;
    let health = site.engine.pushes().health(&owner(), "jira").await.unwrap();
    assert_eq!((health.status.as_str(), health.error), ("ok", None));
    // A deletion is told before what came before it.
    let late = site.fake.event("jira:issue_updated", &key);
    site.fake.delete(&key);
    let gone = site.fake.event("jira:issue_deleted", &key);
    site.deliver(&gone.0, &gone.1).await.unwrap();
    site.settled().await;
    site.deliver(&late.0, &late.1).await.unwrap();
    site.settled().await;
    site.is_same().await;
    assert_eq!(site.ask("SELECT count(*) FROM jira_issues").await, ["0"]);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_site_signed_is_taken_and_once() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    let (id, body) = site.fake.event("jira:issue_updated", &key);
    let refused = |headers: Vec<(&str, String)>, body: &[u8]| {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let (engine, body) = (site.engine.clone(), body.to_vec());
        async move {
            let delivery = Delivery { headers, body };
            engine.pushes().receive(&Client::at(None), "jira", &delivery).await.unwrap_err().code().to_owned()
        }
    };
    assert_eq!(refused(vec![], &body).await, "webhook_signature_invalid");
    let wrong = vec![("x-hub-signature", signature("another secret", &body))];
    assert_eq!(refused(wrong, &body).await, "webhook_signature_invalid");
    let other = vec![("x-hub-signature", signature(SECRET, b"{}"))];
    assert_eq!(refused(other, &body).await, "webhook_signature_invalid");
    for wrong in [&b""[..], b"{}", b"[1]", b"{\"issue\":{\"key\":\"../../x\"}}"] {
        let signed = vec![("x-hub-signature", signature(SECRET, wrong))];
        assert_eq!(refused(signed, wrong).await, "webhook_invalid");
    }
    assert!(!site.deliver(&id, &body).await.unwrap().known);
    assert!(site.deliver(&id, &body).await.unwrap().known);
    site.settled().await;
    let site = site.again(TOKEN).await;
    assert!(site.deliver(&id, &body).await.unwrap().known);
    site.settled().await;
    site.is_same().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_moves_takes_its_rows_with_it() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    site.fake.comment(&key, "mine");
    site.synced().await;
    site.fake.rename(&key, "OPS-7");
    site.fake.change("OPS-7", |_| {});
    // Told under what it was called.
    let (id, body) = site.fake.event("jira:issue_updated", "OPS-7");
    let body = String::from_utf8(body).unwrap().replace("\"key\":\"OPS-7\"", &format!("\"key\":\"{key}\""));
    site.deliver(&id, body.as_bytes()).await.unwrap();
    site.settled().await;
    site.is_same().await;
    assert_eq!(site.ask("SELECT issue_key FROM jira_comments").await, ["OPS-7"]);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_is_told_of_under_its_new_key_is_kept_under_that_alone() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    site.fake.comment(&key, "mine");
    site.synced().await;
    site.fake.rename(&key, "OPS-7");
    site.fake.moved_from("OPS-7", &key);
    site.tell("jira:issue_updated", "OPS-7").await;
    site.settled().await;
    site.is_same().await;
    assert_eq!(site.ask("SELECT issue_key FROM jira_comments").await, ["OPS-7"]);
    // And back again.
    site.fake.state().moved.clear();
    site.fake.rename("OPS-7", &key);
    site.fake.moved_from(&key, "OPS-7");
    site.tell("jira:issue_updated", &key).await;
    site.settled().await;
    site.is_same().await;
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_known_by_name_before_the_first_sync() {
    let site = Site::with(|config| config["fields"] = json!({"team": "Team", "nobody": "No such field"})).await;
    let sql = "SELECT team, nobody FROM jira_issues";
    for team in ["red", "blue"] {
        let key = site.fake.create("HELP", team);
        let field = ("customfield_20001".to_owned(), json!({"value": team}));
        site.fake.change(&key, |issue| issue.fields.extend([field]));
        site.tell("jira:issue_created", &key).await;
        site.settled().await;
    }
    assert_eq!(site.ask(&format!("{sql} ORDER BY ALL")).await, ["blue|NULL", "red|NULL"]);
    // Names that mean nothing are not looked up for every delivery.
    let lists = site.fake.state().requests.iter().filter(|request| request.ends_with("/rest/api/3/field")).count();
    assert_eq!(lists, 1);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_other_projects_nothing_is_kept() {
    let site = Site::with(|config| config["project"] = json!("HELP")).await;
    let (mine, other) = (site.fake.create("HELP", "mine"), site.fake.create("OPS", "other"));
    // Neither while the site does not answer.
    site.fake.fault("/issue/", 500, &[], "", 2);
    for key in [&mine, &other] {
        site.tell("jira:issue_created", key).await;
    }
    site.settled().await;
    let sql = "SELECT issue_key FROM jira_issues";
    assert_eq!((site.ask(sql).await, site.raw(&other)), (vec![mine.clone()], None));
    site.synced().await;
    let (fetches, searches) = (site.fake.fetches(&other), site.fake.state().searches.len());
    assert_eq!(site.ask(sql).await, std::slice::from_ref(&mine));
    site.synced().await;
    let asked = site.fake.state().searches[searches..].to_vec();
    assert!(asked.len() == 1 && asked[0].contains("updated >="), "{asked:?}");
    assert_eq!(site.fake.fetches(&other), fetches);
    // One that leaves the project leaves the tables, whoever tells of it.
    let second = site.fake.create("HELP", "second");
    site.synced().await;
    site.fake.rename(&mine, "OPS-90");
    site.fake.rename(&second, "OPS-91");
    for key in ["OPS-90", "OPS-91"] {
        site.fake.change(key, |issue| issue.fields["project"]["key"] = json!("OPS"));
    }
    let (id, body) = site.fake.event("jira:issue_updated", "OPS-90");
    let body = String::from_utf8(body).unwrap().replace("\"key\":\"OPS-90\"", &format!("\"key\":\"{mine}\""));
    site.deliver(&id, body.as_bytes()).await.unwrap();
    site.settled().await;
    assert_eq!(site.ask(sql).await, std::slice::from_ref(&second));
    site.synced().await;
    assert_eq!(site.ask("SELECT count(*) FROM jira_issues").await, ["0"]);
    assert_eq!((site.raw("OPS-90"), site.raw("OPS-91")), (None, None));
    // And comes back with it.
    site.fake.state().moved.clear();
    site.fake.rename("OPS-91", &second);
    site.fake.change(&second, |issue| issue.fields["project"]["key"] = json!("HELP"));
    site.tell("jira:issue_updated", &second).await;
    site.settled().await;
    assert_eq!(site.ask(sql).await, [second]);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_fetched_from_the_site_alone_and_read_by_who_may() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    let plain = site.fake.attach(&key, "notes ž.txt", b"hello");
    let sent_on = site.fake.attach(&key, "../../x.txt", b"from media");
    let away = site.fake.attach(&key, "away.txt", b"away");
    let large = site.fake.attach(&key, "large.bin", b"small");
    let media = format!("{}/media/{sent_on}", site.fake.url.replace("127.0.0.1", "localhost"));
    site.fake.state().redirects.insert(sent_on.clone(), format!("{}/media/{sent_on}", site.fake.url));
    site.fake.state().redirects.insert(away.clone(), media);
    site.fake.change(&key, |issue| issue.fields["attachment"][3]["size"] = json!(60 << 20));
    site.tell("jira:issue_updated", &key).await;
    let sql = "SELECT attachment_id, local_path, hierarchical_path FROM jira_attachments ORDER BY ALL";
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        site.settled().await;
        if site.ask(sql).await.iter().filter(|row| !row.contains("NULL")).count() == 2 {
            break;
        }
        assert!(std::time::Instant::now() < patience, "{:?}", site.ask(sql).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let rows = site.ask(sql).await;
    assert!(rows[0].starts_with(&format!("{plain}|attachments/{key}/{plain}_notes ž.txt|HELP/0/")), "{rows:?}");
    assert!(rows[1].contains(&format!("{sent_on}_.._.._x.txt")), "{rows:?}");
    assert!(rows[2].ends_with("NULL|NULL") && rows[3].ends_with("NULL|NULL"), "{rows:?}");
    // Whoever may read the row may have the file; nobody else learns that there is one.
    let read = |ctx: agnes_core::CallContext, table: &'static str, id: String| {
        let engine = site.engine.clone();
        async move {
            let file = engine.pushes().attachment(&ctx, table, &id).await?;
            file.read(0, 100).await
        }
    };
    assert_eq!(read(owner(), "jira_attachments", plain.clone()).await.unwrap(), b"hello");
    assert_eq!(read(owner(), "jira_attachments", sent_on).await.unwrap(), b"from media");
    for (table, id) in
        [("jira_attachments", &away), ("jira_attachments", &large), ("jira_issues", &plain), ("x", &plain)]
    {
        assert_eq!(read(owner(), table, id.clone()).await.unwrap_err().code(), "attachment_not_found", "{table}");
    }
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_cloud_site_come_from_where_it_sends_on_to() {
    let mut site = Site::with(|config| {
        config["domain"] = config["domain"].as_str().unwrap().replace("127.0.0.1", CLOUD_HOST).into();
        config["cloud_id"] = json!(null);
    })
    .await;
    let media = site.fake.url.replace("127.0.0.1", MEDIA_HOST);
    site.fake.url = site.fake.url.replace("127.0.0.1", CLOUD_HOST);
    let key = site.fake.create("HELP", "one");
    let file = site.fake.attach(&key, "a.txt", b"hello");
    site.fake.state().redirects.insert(file.clone(), format!("{media}/file/{file}"));
    site.tell("jira:issue_updated", &key).await;
    site.settled().await;
    comes(&site, &file, async || {}).await;
    site.engine.close().await.unwrap();
}

/// A host of files on which whoever asks waits until `goes_on`.
#[derive(Default)]
struct SlowHost {
    /// Requests that wait, and the most that ever did.
    waiting: std::sync::Mutex<(usize, usize)>,
    goes_on: std::sync::Mutex<bool>,
    news: std::sync::Condvar,
}

impl SlowHost {
    fn start() -> (std::sync::Arc<Self>, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (host, url) = (std::sync::Arc::new(Self::default()), format!("http://{}", listener.local_addr().unwrap()));
        let served = host.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || served.one(stream));
            }
        });
        (host, url)
    }

    fn one(&self, mut stream: std::net::TcpStream) -> Option<()> {
        agnes_core::testing::Request::read(&mut std::io::BufReader::new(&stream))?;
        {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.0 += 1;
            waiting.1 = waiting.1.max(waiting.0);
        }
        drop(self.news.wait_while(self.goes_on.lock().unwrap(), |goes_on| !*goes_on).unwrap());
        self.waiting.lock().unwrap().0 -= 1;
        stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").ok()
    }

    fn go_on(&self) {
        *self.goes_on.lock().unwrap() = true;
        self.news.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_files_that_hangs_is_asked_for_one_at_a_time() {
    let (site, (host, url)) = (Site::new().await, SlowHost::start());
    let key = site.fake.create("HELP", "one");
    let file = site.fake.attach(&key, "a.txt", b"hello");
    site.fake.state().redirects.insert(file.clone(), format!("{url}/media"));
    site.tell("jira:issue_updated", &key).await;
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while host.waiting.lock().unwrap().0 == 0 {
        assert!(std::time::Instant::now() < patience, "the file was never asked for");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // What is told meanwhile waits, in whatever order it is told.
    let mut files = vec![file];
    for n in 0..4 {
        let other = site.fake.create("HELP", &format!("issue {n}"));
        let file = site.fake.attach(&other, "a.txt", b"hello");
        site.fake.state().redirects.insert(file.clone(), format!("{url}/media"));
        files.push(file);
        for key in [&other, &key] {
            site.fake.change(key, |_| {});
            site.tell("jira:issue_updated", key).await;
        }
        site.settled().await;
    }
    host.go_on();
    for file in &files {
        comes(&site, file, async || {}).await;
    }
    assert_eq!(host.waiting.lock().unwrap().1, 1);
    site.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_files_that_hangs_keeps_no_engine_from_ending() {
    let (site, (host, url)) = (Site::new().await, SlowHost::start());
    let key = site.fake.create("HELP", "one");
    let file = site.fake.attach(&key, "a.txt", b"hello");
    site.fake.state().redirects.insert(file, format!("{url}/media"));
    site.tell("jira:issue_updated", &key).await;
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while host.waiting.lock().unwrap().0 == 0 {
        assert!(std::time::Instant::now() < patience, "the file was never asked for");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Half of what the file would be waited for.
    let closed = tokio::time::timeout(std::time::Duration::from_secs(30), site.engine.close());
    closed.await.expect("the host was waited for").unwrap();
    host.go_on();
}

/// Waits until a file can be read, and its row says where it is.
async fn comes(site: &Site, id: &str, between: impl AsyncFn()) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let sql = format!("SELECT count(local_path) FROM jira_attachments WHERE attachment_id = '{id}'");
    while site.ask(&sql).await != ["1"] {
        assert!(std::time::Instant::now() < patience, "the file never came");
        between().await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let file = site.engine.pushes().attachment(&owner(), "jira_attachments", id).await.unwrap();
    assert_eq!(file.read(0, 100).await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_nobody_told_of_are_fetched() {
    let site = Site::new().await;
    let key = site.fake.create("HELP", "one");
    let file = site.fake.attach(&key, "a.txt", b"hello");
    site.synced().await;
    comes(&site, &file, async || {}).await;
    // Of an issue that a check finds.
    site.fake.state().clock = chrono::Utc::now().timestamp_millis() - 7_200_000;
    let missed = site.fake.create("HELP", "two");
    site.fake.state().clock += 7_200_000;
    let file = site.fake.attach(&missed, "b.txt", b"hello");
    let report = site.engine.pushes().check(&owner(), "jira", 30).await.unwrap();
    assert_eq!(report["actions"]["auto_backfilled"], json!([missed]));
    comes(&site, &file, async || {}).await;
    // One that could not be had at first, although its issue does not change any more.
    let file = site.fake.attach(&key, "c.txt", b"hello");
    site.fake.fault(&format!("attachment/content/{file}"), 404, &[], "", 1);
    site.synced().await;
    comes(&site, &file, async || site.synced().await).await;
    let requests = site.fake.state().requests.clone();
    let asked = requests.iter().filter(|request| request.ends_with(&format!("/content/{file}"))).count();
    assert_eq!(asked, 2);
    site.engine.close().await.unwrap();
}
