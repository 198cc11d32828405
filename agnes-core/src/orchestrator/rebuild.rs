//! A rebuild: read what changed, decide who owns which name, publish the next generation.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::blobs::Interner;
use super::ownership::{self, Claims};
use super::plan::{self, Scope};
use super::read::{Read, Reader, note};
use super::record::record;
use super::{
    AttachPolicy, Generation, PublishedTable, RebuildOutcome, RemoteAttach, SourceGeneration, SourceOutcome,
    SourceStatus, load, master,
};
use crate::connector::{Cancel, Progress};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ident::SourceName;
use crate::registry::RegisteredSource;

/// Rebuilds that wait and the one that runs.
#[derive(Debug, Default)]
pub(crate) struct Rebuilds {
    running: tokio::sync::Mutex<Done>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    batch: u64,
    scope: Option<Scope>,
}

/// The last batch that ended, and how.
#[derive(Debug, Default)]
struct Done {
    batch: u64,
    outcome: Option<RebuildOutcome>,
}

impl Rebuilds {
    /// Waits for the rebuild that runs, and keeps others from starting until dropped.
    pub(super) async fn pause(&self) -> impl Drop + '_ {
        self.running.lock().await
    }
}

/// Rebuilds every source that changed.
pub(crate) async fn rebuild_all(engine: &Engine) -> Result<RebuildOutcome> {
    request(engine, Scope::Everything).await
}

/// Rebuilds these sources, where they changed; the work is that of these sources alone.
pub(crate) async fn rebuild_sources(engine: &Engine, sources: &[String]) -> Result<RebuildOutcome> {
    request(engine, Scope::Sources(sources.iter().cloned().collect())).await
}

/// Runs to its end even when the caller does not wait for it.
async fn request(engine: &Engine, scope: Scope) -> Result<RebuildOutcome> {
    let engine = engine.clone();
    match tokio::spawn(async move { join(&engine, scope).await }).await {
        Ok(done) => done,
        Err(panic) => Err(Error::internal("rebuild", panic)),
    }
}

/// Joins the rebuild that waits, if one does: a burst of calls costs two runs, not many.
async fn join(engine: &Engine, scope: Scope) -> Result<RebuildOutcome> {
    let rebuilds = engine.rebuilds();
    let lock = || rebuilds.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let batch = {
        let mut waiting = lock();
        waiting.scope = Some(match waiting.scope.take() {
            Some(other) => other.join(scope),
            None => scope,
        });
        waiting.batch + 1
    };
    let mut done = rebuilds.running.lock().await;
    if done.batch >= batch
        && let Some(outcome) = &done.outcome
    {
        return Ok(outcome.clone());
    }
    let (batch, scope) = {
        let mut waiting = lock();
        waiting.batch += 1;
        (waiting.batch, waiting.scope.take().unwrap_or(Scope::Everything))
    };
    let outcome = run(engine, scope).await;
    *done = Done { batch, outcome: outcome.as_ref().ok().cloned() };
    outcome
}

/// What reading gave, per source.
struct Reads {
    last: Arc<Generation>,
    plan: plan::Plan,
    /// The highest number that was ever used, as far as the disk tells: none is used twice.
    highest: u64,
    /// Whether the pointer on disk names the generation that answers.
    pointed_at: bool,
    rejected: Vec<String>,
    read: BTreeMap<SourceName, (Result<Read>, u64)>,
}

async fn run(engine: &Engine, scope: Scope) -> Result<RebuildOutcome> {
    let started = Instant::now();
    // A name that one of these gives up goes to whoever waits for it, in this rebuild.
    let scope = match scope {
        Scope::Sources(mut names) => {
            names.extend(plan::all_collided(&engine.generation()));
            Scope::Sources(names)
        }
        everything => everything,
    };
    let reads = read(engine, scope.clone()).await?;
    let mut reasons = Vec::new();
    let claims = claim(engine, &reads, &scope, &mut reasons).await;
    let (next, changed, gone) = assemble(&reads, &claims, &scope, reasons, started);
    let sources = changed.iter().map(|table| table.source.to_string()).collect();
    let outcome = publish(engine, &reads, next, changed, gone).await?;
    record(engine, &outcome).await?;
    if outcome.published && !engine.push_state().profiles_can_wait(&sources).await {
        crate::profile::after_publication(engine).await;
    }
    Ok(outcome)
}

async fn read(engine: &Engine, scope: Scope) -> Result<Reads> {
    let sources = engine.store().sources().list().await?;
    super::drift::follow(engine, &sources).await;
    let answers = |kind: &str| engine.connectors().get(kind).is_some_and(|connector| connector.warehouse().is_some());
    let native: HashSet<String> =
        sources.iter().filter(|source| answers(&source.kind)).map(|source| source.name.to_string()).collect();
    let at = |source: &RegisteredSource| {
        let context = crate::registry::context(engine, source, Cancel::default(), Progress::default());
        engine.connectors().get(&source.kind)?.remote_address(&context)
    };
    let addresses: HashMap<String, String> =
        sources.iter().filter_map(|source| Some((source.name.to_string(), at(source)?))).collect();
    let own: HashSet<String> = sources.into_iter().map(|source| source.name.to_string()).collect();
    // Without the registry there is no fallback for materialized files, and nothing else changes.
    let registry =
        engine.table_index().await.map(|index| index.iter().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let (folder, scratch, last) = (engine.folder().clone(), engine.scratch().to_owned(), engine.generation());
    let (policy, secrets) = (AttachPolicy::of(engine.config()), engine.source_secrets());
    crate::duck::blocking(move || {
        let listing = plan::list(&folder, &scope)?;
        let plan = plan::plan(&last, &listing, &scope);
        let reader = Reader {
            folder: &folder,
            scratch: &scratch,
            policy: &policy,
            secrets: &*secrets,
            own: &own,
            native: &native,
            addresses: &addresses,
            registry: &registry,
        };
        let mut interner = Interner::new(&folder);
        let mut read = BTreeMap::new();
        for source in &plan.read {
            let started = Instant::now();
            let before = listing.sources.get(source).cloned().unwrap_or_default();
            let result = reader.read(source, &before.full, last.sources.get(source), &mut interner);
            if let Err(error) = &result
                && error.code() == "disk_full"
            {
                return Err(error.to_wire().into());
            }
            // Links moved ctime: the fingerprint is that of now, unless more than that moved,
            // for then what was read is not what is there, and the next rebuild reads again.
            let result = result.map(|mut read| {
                let now = plan::fingerprint(&folder.extract(source));
                if own.contains(source.as_str()) && now.content == before.content {
                    read.generation.signature = now.full;
                }
                read
            });
            read.insert(source.clone(), (result, millis(started)));
        }
        interner.sync()?;
        let pointer = load::pointer(&folder).unwrap_or(0);
        let highest = load::numbers(&folder).last().copied().unwrap_or(0).max(pointer);
        let pointed_at = pointer == last.number;
        Ok(Reads { last, plan, highest, pointed_at, rejected: listing.rejected, read })
    })
    .await
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Claims names in the state. Where it cannot be read the rebuild goes on without.
async fn claim(engine: &Engine, reads: &Reads, scope: &Scope, reasons: &mut Vec<String>) -> Claims {
    let ownership = engine.store().ownership();
    let owners = match ownership.all().await {
        Ok(owners) => owners,
        Err(error) => {
            tracing::error!(code = error.code(), "view ownership cannot be read: {error}");
            reasons.push("view ownership cannot be read: collisions are not noticed".to_owned());
            return Claims::default();
        }
    };
    let names =
        |tables: &[PublishedTable]| tables.iter().map(|t| t.name.as_str().to_lowercase()).collect::<BTreeSet<_>>();
    let mut published: BTreeMap<SourceName, BTreeSet<String>> = BTreeMap::new();
    for source in &reads.plan.unchanged {
        if let Some(last) = reads.last.sources.get(source) {
            published.insert(source.clone(), names(&last.tables));
        }
    }
    for (source, (read, _)) in &reads.read {
        if let Ok(read) = read {
            published.insert(source.clone(), names(&read.generation.tables));
        }
    }
    let all_readable = reads.read.values().all(|(read, _)| read.is_ok());
    // Names of folders that are gone: those of this rebuild, and with everything in view
    // those of sources nobody knows any more.
    let mut removed: BTreeSet<String> = reads.plan.removed.iter().map(ToString::to_string).collect();
    if *scope == Scope::Everything {
        let known =
            |source: &String| published.contains_key(source.as_str()) || reads.read.contains_key(source.as_str());
        removed.extend(owners.iter().map(|(_, source)| source.clone()).filter(|source| !known(source)));
    }
    let claims = ownership::decide(&owners, &published, &removed, all_readable);
    if (!claims.claimed.is_empty() || !claims.released.is_empty())
        && let Err(error) = ownership.apply(&claims.claimed, &claims.released, engine.clock().now()).await
    {
        tracing::error!(code = error.code(), "view ownership cannot be written: {error}");
        reasons.push("view ownership cannot be written".to_owned());
    }
    claims
}

/// The next generation, with the tables whose views change and the names that go.
fn assemble(
    reads: &Reads,
    claims: &Claims,
    scope: &Scope,
    reasons: Vec<String>,
    started: Instant,
) -> (Generation, Vec<PublishedTable>, Vec<String>) {
    let last = &reads.last;
    let mut next = Generation { number: last.number.max(reads.highest) + 1, ..(**last).clone() };
    let before = &last.outcome.sources;
    // What was never readable stays so while nobody looks at it.
    let stays =
        |known: bool, o: &SourceOutcome| known || o.status == SourceStatus::Unreadable && !scope.holds(&o.source);
    let mut outcomes: BTreeMap<String, SourceOutcome> = before
        .iter()
        .filter(|o| stays(next.sources.contains_key(o.source.as_str()), o))
        .map(|o| (o.source.clone(), o.clone()))
        .collect();
    for source in &reads.plan.unchanged {
        if let Some(outcome) = outcomes.get_mut(source.as_str()) {
            outcome.status = SourceStatus::Unchanged;
            outcome.alerts.clear();
            outcome.duration_ms = 0;
        }
    }
    for source in &reads.plan.removed {
        next.sources.remove(source);
        let outcome = blank(source, SourceStatus::Removed, 0);
        outcomes.insert(source.to_string(), outcome);
    }
    for (source, (read, duration)) in &reads.read {
        let mut outcome = blank(source, SourceStatus::Ok, *duration);
        match read {
            Ok(read) => {
                outcome.skipped.clone_from(&read.skipped);
                outcome.alerts.clone_from(&read.alerts);
                let mut generation: SourceGeneration = read.generation.clone();
                generation.tables.retain(|table| {
                    match claims.collisions.get(&(source.clone(), table.name.as_str().to_lowercase())) {
                        Some(owner) => {
                            tracing::error!(
                                source = source.as_str(),
                                table = table.name.as_str(),
                                owner,
                                "view name collision"
                            );
                            outcome.skipped.push(note(
                                table.name.as_str(),
                                "collision",
                                format!("`{owner}` publishes this name"),
                            ));
                            false
                        }
                        None => true,
                    }
                });
                next.sources.insert(source.clone(), generation);
            }
            Err(error) => {
                tracing::error!(source = source.as_str(), code = error.code(), "a source cannot be read: {error}");
                outcome.status = SourceStatus::Unreadable;
                outcome.error = Some(error.to_string());
                if let Some(kept) = next.sources.get_mut(source) {
                    kept.degraded = true;
                }
            }
        }
        outcomes.insert(source.to_string(), outcome);
    }
    for name in &reads.rejected {
        outcomes.insert(name.clone(), plan::rejected(name));
    }
    let old: BTreeMap<&str, &PublishedTable> = last.tables().map(|t| (t.name.as_str(), t)).collect();
    let now: BTreeSet<&str> = next.tables().map(|t| t.name.as_str()).collect();
    let changed: Vec<PublishedTable> = next
        .tables()
        .filter(|t| old.get(t.name.as_str()).is_none_or(|o| o.content_hash != t.content_hash || o.columns.is_empty()))
        .cloned()
        .collect();
    let gone = old.keys().filter(|name| !now.contains(*name)).map(ToString::to_string).collect();
    // What did not change keeps its columns.
    for table in next.sources.values_mut().flat_map(|s| &mut s.tables) {
        if let Some(old) = old.get(table.name.as_str())
            && old.content_hash == table.content_hash
            && table.columns.is_empty()
        {
            table.columns.clone_from(&old.columns);
        }
    }
    next.outcome = RebuildOutcome {
        degraded: !reasons.is_empty(),
        reasons,
        sources: outcomes.into_values().collect(),
        duration_ms: millis(started),
        published: false,
    };
    (next, changed, gone)
}

fn blank(source: &SourceName, status: SourceStatus, duration_ms: u64) -> SourceOutcome {
    SourceOutcome {
        source: source.to_string(),
        status,
        error: None,
        views: Vec::new(),
        skipped: Vec::new(),
        alerts: Vec::new(),
        duration_ms,
    }
}

/// Views of the outcome, and whether all is well.
fn finish(next: &mut Generation, published: bool) {
    let views: BTreeMap<String, Vec<String>> = next
        .sources
        .iter()
        .map(|(source, s)| (source.to_string(), s.tables.iter().map(|t| t.name.to_string()).collect()))
        .collect();
    let degraded = next.sources.values().any(|s| s.degraded);
    let outcome = &mut next.outcome;
    for source in &mut outcome.sources {
        source.views = views.get(&source.source).cloned().unwrap_or_default();
    }
    outcome.published = published;
    outcome.degraded |= degraded
        || outcome.sources.iter().any(|s| {
            matches!(s.status, SourceStatus::Unreadable | SourceStatus::RejectedName)
                || !s.skipped.is_empty()
                || !s.alerts.is_empty()
        });
}

async fn publish(
    engine: &Engine,
    reads: &Reads,
    mut next: Generation,
    changed: Vec<PublishedTable>,
    gone: Vec<String>,
) -> Result<RebuildOutcome> {
    let last = &reads.last;
    let nothing_new = reads.pointed_at && changed.is_empty() && gone.is_empty() && same_content(last, &next);
    if nothing_new && (last.number > 0 || next.sources.is_empty()) {
        next.number = last.number;
        next.published_at = last.published_at;
        finish(&mut next, false);
        let outcome = next.outcome.clone();
        // Outcome and fingerprints are news, the catalog is not: same number, same content.
        if last.number > 0 && (next.sources != last.sources || !same_outcome(&last.outcome, &outcome)) {
            let (folder, generation) = (engine.folder().clone(), next.clone());
            crate::duck::blocking(move || load::publish(&folder, &generation)).await?;
        }
        engine.set_generation(Arc::new(next));
        return Ok(outcome);
    }
    next.published_at = engine.clock().now();
    let (folder, last) = (engine.folder().clone(), last.clone());
    let next = crate::duck::blocking(move || {
        std::fs::create_dir_all(folder.analytics()).map_err(|e| Error::io("make the analytics folder", e))?;
        let unchanged: Vec<PublishedTable> =
            next.tables().filter(|t| !changed.iter().any(|c| c.name == t.name)).cloned().collect();
        let changed_refs: Vec<&PublishedTable> = changed.iter().collect();
        let unchanged_refs: Vec<&PublishedTable> = unchanged.iter().collect();
        let attaches: Vec<(&SourceName, &RemoteAttach)> = next
            .sources
            .iter()
            .flat_map(|(source, generation)| generation.attaches.iter().map(move |attach| (source, attach)))
            .collect();
        let master = master::prepare(&folder, &last, next.number, &changed_refs, &unchanged_refs, &gone, &attaches)?;
        for (source, generation) in &mut next.sources {
            let mut degraded = generation.degraded;
            generation.tables.retain_mut(|table| {
                if table.remote.is_some() {
                    return true;
                }
                if let Some(failed) = master.failed.get(table.name.as_str()) {
                    if let Some(outcome) = next.outcome.sources.iter_mut().find(|o| o.source == source.as_str()) {
                        outcome.skipped.push(note(table.name.as_str(), "unreadable_data", failed.reason.clone()));
                    }
                    degraded |= failed.kept.is_some();
                    if let Some(kept) = &failed.kept {
                        table.clone_from(kept);
                    }
                    return failed.kept.is_some();
                }
                if let Some(columns) = master.columns.get(table.name.as_str()) {
                    table.columns.clone_from(columns);
                }
                true
            });
            generation.degraded = degraded;
        }
        finish(&mut next, true);
        load::publish(&folder, &next)?;
        // The pointer has moved: from here on the new generation is the truth. The master
        // follows; a kill in between makes the next rebuild write it anew.
        if let Err(error) = master.publish(&folder) {
            tracing::error!(code = error.code(), "the master could not be replaced: {error}");
        }
        Ok(next)
    })
    .await?;
    let outcome = next.outcome.clone();
    engine.set_generation(Arc::new(next));
    Ok(outcome)
}

fn same_content(last: &Generation, next: &Generation) -> bool {
    let key = |g: &Generation| {
        g.tables()
            .map(|t| (t.name.clone(), t.source.clone(), t.mode, t.content_hash.clone(), t.description.clone()))
            .collect::<Vec<_>>()
    };
    key(last) == key(next) && last.sources.values().map(|s| &s.attaches).eq(next.sources.values().map(|s| &s.attaches))
}

fn same_outcome(last: &RebuildOutcome, next: &RebuildOutcome) -> bool {
    let key = |o: &RebuildOutcome| {
        let sources =
            o.sources.iter().map(|s| (s.source.clone(), s.error.clone(), s.skipped.clone(), s.alerts.clone()));
        (o.degraded, o.reasons.clone(), sources.collect::<Vec<_>>())
    };
    key(last) == key(next)
}
