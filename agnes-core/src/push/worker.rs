//! Works on what waits in an inbox: one task for each document, many at a time, one publication
//! for all of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use serde_json::json;

use super::inbox::{Inbox, Task};
use super::{Documents, Fetched, News, apply};
use crate::connector::{Connector, Progress, SourceContext};
use crate::context::Client;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result, WireError};
use crate::registry::{self, RegisteredSource};

/// Documents of one publication.
const TOGETHER: usize = 500;
/// Documents that are fetched at a time.
const FETCHES: usize = 8;
/// Time between two looks where nothing is heard.
const LOOK: Duration = Duration::from_millis(200);
/// What gathers before it is worked on: a burst costs one publication.
const GATHER: Duration = Duration::from_millis(100);
/// Longest pause between two publications, where one takes long.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest wait before another try at a document.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Time between two collections of what many publications left.
const TIDY: Duration = Duration::from_secs(600);

/// One source's inbox and what is known of its work.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) inbox: Inbox,
    pub(super) source: String,
    /// What keeps documents from being brought up to date.
    pub(super) trouble: Mutex<Option<WireError>>,
    /// When something was last published.
    pub(super) published: Mutex<Option<DateTime<Utc>>>,
}

impl Line {
    pub(super) fn new(inbox: Inbox, source: &str) -> Self {
        Self { inbox, source: source.to_owned(), trouble: Mutex::default(), published: Mutex::default() }
    }
}

/// Starts the worker of an inbox; it ends with the engine, or when the inbox is closed.
pub(super) fn start(engine: &Engine, line: Arc<Line>) {
    let weak = engine.downgrade();
    engine.sync_runs().spawn(async move {
        let mut tidied = Instant::now();
        loop {
            let Some(engine) = weak.upgrade() else { return };
            if engine.sync_runs().is_stopping() || line.inbox.is_closed() {
                return;
            }
            let tasks = line.inbox.take(TOGETHER);
            if tasks.is_empty() {
                drop(engine);
                tokio::select! {
                    () = line.inbox.news() => tokio::time::sleep(GATHER).await,
                    () = tokio::time::sleep(LOOK) => {}
                }
                continue;
            }
            let started = Instant::now();
            let published = work(&engine, &line, &tasks).await;
            if published && tidied.elapsed() > TIDY {
                tidied = Instant::now();
                if let Err(error) = crate::orchestrator::collect_garbage(&engine, false).await {
                    tracing::warn!(code = error.code(), "what publications left was not collected: {error}");
                }
            }
            drop(engine);
            // Large tables are published less often: the machine is not for this alone.
            let pause = if published { started.elapsed().min(LONGEST_PAUSE) } else { GATHER };
            let until = Instant::now() + pause;
            while Instant::now() < until && weak.upgrade().is_some_and(|engine| !engine.sync_runs().is_stopping()) {
                tokio::time::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
            }
        }
    });
}

/// Works on some tasks; whether something was published. What failed comes back later.
async fn work(engine: &Engine, line: &Arc<Line>, tasks: &[Task]) -> bool {
    let done = on(engine, line, tasks).await;
    let published = match done {
        Ok(published) => published,
        Err(error) => {
            tracing::error!(source = line.source, code = error.code(), "deliveries were not worked on: {error}");
            tell(engine, line, Some(&error)).await;
            tasks.iter().for_each(|task| line.inbox.finish(task, Some(wait(task, &error))));
            false
        }
    };
    let marked = line.clone();
    if let Err(error) = crate::duck::blocking(move || marked.inbox.mark()).await {
        tracing::warn!(source = line.source, code = error.code(), "what was worked on is not written down: {error}");
    }
    published
}

/// What fetching gave for one task.
struct Found {
    /// Keys and what is known of them.
    news: Vec<(String, News)>,
    /// Why it comes back.
    again: Option<Error>,
}

async fn on(engine: &Engine, line: &Arc<Line>, tasks: &[Task]) -> Result<bool> {
    let source = engine.store().sources().get(&line.source).await?;
    let Some(source) = source else {
        line.inbox.close();
        return Ok(false);
    };
    let connector = registry::connector(engine, &source.kind)?;
    let id = format!("push:{}", uuid::Uuid::new_v4().simple());
    let context = registry::context(engine, &source, engine.sync_runs().begin(&id), Progress::default());
    let documents = Documents::of(&engine.folder().extract(&source.name));
    let one = |task| fetch(connector.clone(), context.clone(), documents.clone(), line.clone(), task);
    let found: Vec<Found> = futures::stream::iter(tasks.to_vec()).map(one).buffered(FETCHES).collect().await;
    engine.sync_runs().end(&id);
    context.cancel.check()?;
    let (mut again, mut keys, mut fetched) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut news = Vec::new();
    for found in found {
        for (key, what) in found.news {
            if matches!(what, News::Fetched(_)) {
                fetched.insert(key.clone());
            }
            keys.insert(key.clone());
            news.push((key, what));
        }
        again.push(found.again);
    }
    settle(engine, &source, &connector, news).await?;
    let applied = apply::documents(engine, &source, connector.clone(), keys).await?;
    for (task, again) in tasks.iter().zip(&again) {
        let error = again.as_ref().or(applied.failed.get(&task.key));
        line.inbox.finish(task, error.map(|error| wait(task, error)));
    }
    let trouble = again.iter().flatten().next().or(applied.failed.values().next());
    // What others still wait for is no less wrong because these went well.
    if trouble.is_some() || !line.inbox.is_failing() {
        tell(engine, line, trouble).await;
    }
    if applied.changed {
        *line.published.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine.clock().now());
    }
    if !fetched.is_empty() {
        files(engine, source, connector, Some(fetched));
    }
    Ok(applied.changed)
}

async fn fetch(
    connector: Arc<dyn Connector>,
    context: SourceContext,
    documents: Documents,
    line: Arc<Line>,
    task: Task,
) -> Found {
    let gone = |key: &str| (key.to_owned(), News::Gone(Utc::now()));
    if task.gone {
        return Found { news: vec![gone(&task.key)], again: None };
    }
    let Some(push) = connector.push() else { return Found { news: Vec::new(), again: None } };
    match push.fetch(&context, &documents, &task.key).await {
        Ok(Fetched::Gone) => Found { news: vec![gone(&task.key)], again: None },
        Ok(Fetched::Found { key, document, lacking, former }) => {
            // It was moved: what it was called before is no more.
            let mut news: Vec<_> = former.iter().map(|key| gone(key)).collect();
            if key != task.key {
                news.push(gone(&task.key));
            }
            news.push((key, News::Fetched(document)));
            Found { news, again: lacking }
        }
        Err(error) => {
            tracing::warn!(source = line.source, code = error.code(), "a document cannot be fetched: {error}");
            if error.kind() == ErrorKind::RateLimited {
                line.inbox.pause(asked(&error).unwrap_or(Duration::from_secs(60)).min(LONGEST_WAIT));
            }
            let told = crate::duck::blocking(move || Ok(line.inbox.told(&task).map(|body| (task.key, body)))).await;
            let news = told.ok().flatten().map(|(key, body)| (key, News::Told(body)));
            Found { news: news.into_iter().collect(), again: Some(error) }
        }
    }
}

/// Keeps what is known anew, on the disk.
pub(super) async fn settle(
    engine: &Engine,
    source: &RegisteredSource,
    connector: &Arc<dyn Connector>,
    news: Vec<(String, News)>,
) -> Result<()> {
    let (documents, connector) = (Documents::of(&engine.folder().extract(&source.name)), connector.clone());
    crate::duck::blocking(move || {
        let Some(push) = connector.push() else { return Ok(()) };
        let mut any = false;
        for (key, what) in news {
            any |= documents.put(&key, |there| push.settle(there, what))?;
        }
        if any { documents.sync() } else { Ok(()) }
    })
    .await
}

/// Fetches in the background what files of documents are not here, as after a backfill.
pub(crate) fn lacking_files(engine: &Engine, source: RegisteredSource, connector: Arc<dyn Connector>) {
    if connector.push().is_some() {
        files(engine, source, connector, None);
    }
}

/// Documents whose files are to be fetched.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Those that were just told of.
    pub(super) told: BTreeSet<String>,
    /// Whether all that lack some are meant, too.
    pub(super) all: bool,
}

/// Fetches files of these documents, else of all that lack some, in the background.
fn files(engine: &Engine, source: RegisteredSource, connector: Arc<dyn Connector>, keys: Option<BTreeSet<String>>) {
    engine.push_state().want_files(source.name.as_str(), keys);
    let weak = engine.downgrade();
    engine.sync_runs().spawn(async move {
        let Some(engine) = weak.upgrade() else { return };
        // One task of a source: it goes on with what is wanted meanwhile.
        while engine.push_state().wants_files(source.name.as_str()) {
            let Ok(_once) = engine.push_state().once(format!("push.files:{}", source.name)) else { return };
            let id = format!("push-files:{}", uuid::Uuid::new_v4().simple());
            let context = registry::context(&engine, &source, engine.sync_runs().begin(&id), Progress::default());
            let done = fetch_files(&engine, &source, &connector, &context).await;
            engine.sync_runs().end(&id);
            match done {
                Ok(()) => {}
                Err(error) if error.code() == "cancelled" => return,
                Err(error) => {
                    let code = error.code();
                    tracing::warn!(source = %source.name, code, "files of documents are not told of: {error}");
                    return;
                }
            }
        }
    });
}

/// Fetches files that are wanted; the rows of documents that got some tell of them.
async fn fetch_files(
    engine: &Engine,
    source: &RegisteredSource,
    connector: &Arc<dyn Connector>,
    context: &SourceContext,
) -> Result<()> {
    let (state, name) = (engine.push_state(), source.name.as_str());
    let Some(push) = connector.push() else { return Ok(()) };
    let documents = Documents::of(&engine.folder().extract(&source.name));
    let (mut left, mut changed) = (Vec::new(), BTreeSet::new());
    loop {
        let Files { told, all } = state.take_files(name, left.is_empty());
        if all {
            left = push.lacking(context, &documents).await?;
        }
        // What was just told of comes before what is lacking since longer.
        let soon = !told.is_empty();
        let keys: Vec<String> = if soon { told.into_iter().collect() } else { left.pop().into_iter().collect() };
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            if context.cancel.is_cancelled() {
                break;
            }
            if engine.store().sources().get(name).await?.is_none() {
                state.take_files(name, true);
                return Ok(());
            }
            if push.files(context, &documents, &key).await {
                changed.insert(key);
            }
        }
        let apply = soon || left.is_empty() || changed.len() >= TOGETHER || context.cancel.is_cancelled();
        if apply && !changed.is_empty() {
            apply::documents(engine, source, connector.clone(), std::mem::take(&mut changed)).await?;
        }
        context.cancel.check()?;
    }
}

/// How long the source asked to be left alone.
fn asked(error: &Error) -> Option<Duration> {
    error.facts()?.get("retry_after_seconds")?.as_u64().map(Duration::from_secs)
}

/// How long a task waits for another try.
fn wait(task: &Task, error: &Error) -> Duration {
    let growing = Duration::from_secs(1 << task.attempts.min(9));
    // Somebody has to do something first.
    let least = if error.is_retryable() { Duration::ZERO } else { Duration::from_secs(30) };
    growing.max(least).max(asked(error).unwrap_or_default()).min(LONGEST_WAIT)
}

/// Says of the source's tables what keeps them from being brought up to date, once, and that
/// nothing does any more.
async fn tell(engine: &Engine, line: &Line, error: Option<&Error>) {
    let now = error.map(Error::to_wire);
    {
        let mut known = line.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().map(|k| &k.code) == now.as_ref().map(|n| &n.code) {
            return;
        }
        known.clone_from(&now);
    }
    let told = async {
        let index = engine.table_index().await?;
        for row in index.iter().filter(|row| row.source.as_deref() == Some(line.source.as_str())) {
            match &now {
                Some(error) => {
                    let hint = error.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
                    let words = format!("{error}{hint}");
                    engine.store().sync().set_error(&row.name, &words, engine.clock().now()).await?;
                }
                None => engine.store().sync().clear_error(&row.name).await?,
            }
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = told.await {
        tracing::warn!(source = line.source, code = error.code(), "the state of tables was not written: {error}");
    }
    if let Some(error) = &now {
        let event = engine.audit().event_of(&Client::at(None), None, "push.trouble");
        event.resource(format!("source:{}", line.source)).params(json!({"code": error.code})).later();
    }
}
