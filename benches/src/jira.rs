//! Jira tells: how many deliveries a second are on the disk when they are acknowledged, and how
//! long one takes to be seen in queries while ten come each second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_connectors::jira::JiraConnector;
use agnes_connectors::outbound::{Outbound, Rules};
use agnes_core::config::{Config, IsolationMode};
use agnes_core::connector::Progress;
use agnes_core::push::Delivery;
use agnes_core::query::{Params, Query, Value};
use agnes_core::registry::NewSource;
use agnes_core::secret::FixedSecrets;
use agnes_core::sync::SyncRequest;
use agnes_core::{Client, Engine};
use serde_json::json;

use crate::data::owner;
use crate::jira_site::{Fake, SECRET, TOKEN, signature};
use crate::measure::{Row, show};
use crate::{Outcome, Scale};

/// Deliveries that are on their way at a time.
const AT_ONCE: usize = 64;
/// Deliveries a second that have to be acknowledged.
const RATE: f64 = 500.0;
/// Time in which one has to be seen.
const SEEN: Duration = Duration::from_secs(2);

pub(crate) async fn run(scale: Scale) -> Outcome {
    let folder = tempfile::tempdir()?;
    let fake = Fake::start();
    let issues = usize::try_from(scale.rows / 1000)?;
    let keys: Vec<String> = (0..issues).map(|n| fake.create("HELP", &format!("issue {n}"))).collect();
    let mut config = Config::default();
    config.query.isolation = IsolationMode::InProcess;
    let jira = JiraConnector::new(Outbound::new(Rules::default().allowing(["127.0.0.1"])));
    let secrets = FixedSecrets::new([("JIRA_API_TOKEN", TOKEN), ("JIRA_WEBHOOK_SECRET", SECRET)]);
    let engine = Engine::builder(folder.path())
        .connectors(agnes_connectors::builtin().with(jira))
        .secrets(Arc::new(secrets))
        .config(config)
        .open()
        .await?;
    let source = NewSource { name: "jira".to_owned(), kind: "jira".to_owned(), config: fake.config(), schedule: None };
    engine.sources().add(&owner(), source).await?;
    let started = Instant::now();
    engine.sync().run(&owner(), SyncRequest::default(), Progress::default()).await?;
    eprintln!("jira: the backfill of {issues} issues took {}, not counted", show(started.elapsed()));

    let seen = seen(&engine, &fake, &keys, scale).await?;
    let acknowledged = acknowledged(&engine, &fake, &keys, scale).await?;
    engine.close().await?;
    Ok(vec![acknowledged, seen])
}

async fn deliver(engine: &Engine, id: &str, body: Vec<u8>) -> agnes_core::Result<()> {
    let headers = vec![
        ("x-hub-signature".to_owned(), signature(SECRET, &body)),
        ("x-atlassian-webhook-identifier".to_owned(), id.to_owned()),
    ];
    engine.pushes().receive(&Client::at(None), "jira", &Delivery { headers, body }).await.map(drop)
}

/// As many as can be, with everything that follows from them going on.
async fn acknowledged(
    engine: &Engine,
    fake: &Fake,
    keys: &[String],
    scale: Scale,
) -> Result<Row, Box<dyn std::error::Error>> {
    let count = usize::try_from(scale.rows / 1000)?;
    let events: Vec<(String, Vec<u8>)> =
        (0..count).map(|n| fake.event("jira:issue_updated", &keys[n % keys.len()])).collect();
    let events = Arc::new(std::sync::Mutex::new(events));
    let started = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (engine, events) = (engine.clone(), events.clone());
        senders.spawn(async move {
            loop {
                let next = events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
                let Some((id, body)) = next else { return Ok(()) };
                deliver(&engine, &id, body).await?;
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        let sent: agnes_core::Result<()> = sent?;
        sent?;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    Ok(Row {
        name: "deliveries of Jira acknowledged when they are on the disk",
        agnes: format!("{rate:.0}/s"),
        raw: "-".to_owned(),
        result: format!("{rate:.0}/s"),
        limit: "500/s at least",
        met: rate >= RATE,
    })
}

/// Ten a second; how long each takes until a query shows it.
async fn seen(engine: &Engine, fake: &Fake, keys: &[String], scale: Scale) -> Result<Row, Box<dyn std::error::Error>> {
    let count = scale.runs * 40;
    let mut watchers = tokio::task::JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for n in 0..count {
        tick.tick().await;
        let (engine, fake, key) = (engine.clone(), fake.clone(), keys[(n * 37) % keys.len()].clone());
        watchers.spawn(async move {
            let name = format!("seen {n}");
            fake.set(&key, "summary", json!(name));
            let (id, body) = fake.event("jira:issue_updated", &key);
            let sent = Instant::now();
            deliver(&engine, &id, body).await?;
            loop {
                let query = Query::new("SELECT 1 FROM jira_changelog WHERE issue_key = ? AND to_value = ?");
                let params = Params::Positional(vec![Value::Text(key.clone()), Value::Text(name.clone())]);
                let rows = engine.query(&owner(), query.params(params)).await?.collect().await?;
                if rows.iter().any(|batch| batch.num_rows() > 0) {
                    return Ok(sent.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    let mut times = Vec::new();
    while let Some(time) = watchers.join_next().await {
        let time: agnes_core::Result<Duration> = time?;
        times.push(time?);
    }
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    Ok(Row {
        name: "a delivery of Jira until queries show it, at 10 a second: median, longest",
        agnes: format!("{}, {}", show(median), show(longest)),
        raw: "-".to_owned(),
        result: show(longest),
        limit: "2 s",
        met: longest <= SEEN,
    })
}
