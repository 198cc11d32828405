//! The leak oracle: every query is asked twice, on the whole installation as the caller, and
//! on one that holds nothing but what the caller may read. Answers and errors are the same,
//! or something of the rest showed.
//!
//! Worlds and queries come from seeds. `AGNES_FUZZ_SEED` gives the first one,
//! `AGNES_FUZZ_SECONDS` how long to go on (`make fuzz`).

mod generate;
mod surfaces;
mod tape;
mod world;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use agnes_core::ErrorKind;
use agnes_core::query::{InProcess, Isolation, Params, QueryJob, QueryLimits, Relation, RunningQuery, Runtime};
use agnes_core::rbac::ResourceType;
use tape::Tape;
use world::{EMAIL, GROUPS, MARKER, User, World};

use crate::support::{Answer, Installation, Making, fuzz_seconds, fuzz_seed, maker_with, owner};

/// Queries asked of one world.
const PER_WORLD: u64 = 100;
/// Choices behind one query.
const TAPE: usize = 160;

/// Where the queries of the whole installation run.
#[derive(Clone)]
enum Where {
    InProcess,
    #[cfg(target_os = "linux")]
    Cells,
    Given(Arc<dyn Runtime>),
}

/// The same caller before the whole and before their slice.
struct Pair {
    world: World,
    whole: Installation,
    slice: Installation,
}

/// What came of a query; equal for both if nothing leaks.
enum Got {
    Answer(Answer),
    Error { code: String, words: Option<String> },
}

fn limits() -> QueryLimits {
    QueryLimits { memory_bytes: 256 << 20, threads: 1, timeout: Duration::from_secs(20), ..QueryLimits::default() }
}

/// Gives every group of a world what it may read, and no more than its policies leave.
async fn grant(at: &Installation, world: &World) {
    let (identity, owner) = (at.engine.identity(), owner());
    for (group, member) in GROUPS.into_iter().filter(|(group, _)| !["bob", "Everyone"].contains(group)) {
        identity.create_group(&owner, group, None).await.unwrap();
        if member {
            identity.add_member(&owner, group, EMAIL).await.unwrap();
        }
    }
    for table in &world.tables {
        for group in &table.grants {
            identity.grant(&owner, GROUPS[*group].0, ResourceType::Table, &table.name).await.unwrap();
        }
        for (group, rules) in &table.policies {
            let made = at.engine.policies().create(&owner, GROUPS[*group].0, &table.name, rules.clone()).await;
            made.unwrap_or_else(|e| panic!("{}: {e}: {rules:?}", table.name));
        }
    }
}

impl Pair {
    async fn new(world: World, place: Where) -> Self {
        let (all, own) = (maker_with(None).unwrap(), maker_with(None).unwrap());
        world.create(&all);
        world.create(&own);
        let mut making = Making { limits: Some(limits()), ..Making::default() };
        match place {
            Where::InProcess => {}
            #[cfg(target_os = "linux")]
            Where::Cells => making.cells = true,
            Where::Given(runtime) => making.runtime = Some(runtime),
        }
        let whole = making.publish(&all, |_| false).await;
        grant(&whole, &world).await;
        let key = std::fs::read_to_string(whole.engine.folder().instance_key()).ok();
        world.narrow(&own, &User { id: whole.bob.principal().user_id().to_owned(), key });
        let slice = Making { limits: Some(limits()), ..Making::default() }.publish(&own, |_| true).await;
        Self { world, whole, slice }
    }

    /// How the whole differs from the slice.
    async fn leak(&self, sql: &str) -> Result<Got, String> {
        let (whole, slice) = (got(&self.whole, sql).await, got(&self.slice, sql).await);
        let shown = match &whole {
            Got::Answer(answer) => answer.text(),
            Got::Error { words, .. } => words.clone().unwrap_or_default(),
        };
        if shown.contains(MARKER) && !sql.contains(MARKER) {
            return Err(format!("what is hidden shows: {shown}"));
        }
        let difference = match (&whole, &slice) {
            (Got::Answer(whole), Got::Answer(slice)) => whole.difference(slice),
            (Got::Error { code, words }, Got::Error { code: other, words: others }) => {
                (code != other || words != others).then(|| format!("{code} {words:?} and {other} {others:?}"))
            }
            (Got::Answer(_), Got::Error { code, .. }) => Some(format!("an answer and {code}")),
            (Got::Error { code, .. }, Got::Answer(_)) => Some(format!("{code} and an answer")),
        };
        difference.map_or(Ok(whole), Err)
    }

    /// The shortest query found that still leaks.
    async fn minimise(&self, mut tape: Tape) -> (String, String) {
        let mut sql = generate::query(&self.world, tape.clone());
        let mut how = self.leak(&sql).await.err().unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(20);
        let mut size = tape.choices().len() / 2;
        while size > 0 && Instant::now() < until {
            let mut at = 0;
            while at < tape.choices().len() && Instant::now() < until {
                let end = (at + size).min(tape.choices().len());
                let mut cut = tape.choices().to_vec();
                cut.drain(at..end);
                let mut zero = tape.choices().to_vec();
                zero[at..end].fill(0);
                let mut better = None;
                for choices in [cut, zero] {
                    let tape = Tape::of(choices);
                    let shorter = generate::query(&self.world, tape.clone());
                    if shorter.len() < sql.len()
                        && let Err(how) = self.leak(&shorter).await
                    {
                        better = Some((tape, shorter, how));
                        break;
                    }
                }
                match better {
                    Some(found) => (tape, sql, how) = found,
                    None => at += size,
                }
            }
            size /= 2;
        }
        (sql, how)
    }
}

async fn got(at: &Installation, sql: &str) -> Got {
    match at.ask(sql, Params::None).await {
        Ok(answer) => Got::Answer(answer),
        Err(e) => {
            // Whose value a failing cast names is the engine's choice; a refusal is Agnes's own.
            let own = matches!(e.kind(), ErrorKind::Forbidden | ErrorKind::QueryRefused);
            Got::Error { code: e.code().to_owned(), words: own.then(|| format!("{e} {:?}", e.hint())) }
        }
    }
}

/// The least world found in which `sql` still leaks.
async fn smaller(mut pair: Pair, place: &Where, sql: &str, how: &mut String) -> World {
    let until = Instant::now() + Duration::from_secs(60);
    'again: while Instant::now() < until {
        for world in pair.world.simpler() {
            let smaller = Pair::new(world, place.clone()).await;
            if let Err(leak) = smaller.leak(sql).await {
                (*how, pair) = (leak, smaller);
                continue 'again;
            }
            if Instant::now() > until {
                break;
            }
        }
        break;
    }
    pair.world
}

#[derive(Default)]
struct Hunt {
    asked: u64,
    answered: u64,
    refused: u64,
    failed: u64,
    found: Option<String>,
}

/// Asks queries of worlds from `seed` on, of each world those from `first` on, until a leak
/// is found or the time is up; at least one world whole.
async fn hunt(seed: u64, first: u64, time: Duration, place: impl Fn(&World) -> Where) -> Hunt {
    let (begun, mut hunt) = (Instant::now(), Hunt::default());
    for seed in seed.. {
        let world = World::new(seed);
        let place = place(&world);
        let pair = Pair::new(world, place.clone()).await;
        for n in first..first + PER_WORLD {
            let tape = Tape::random(seed.wrapping_mul(1_000_003).wrapping_add(n), TAPE);
            let sql = generate::query(&pair.world, tape.clone());
            hunt.asked += 1;
            match pair.leak(&sql).await {
                Ok(Got::Answer(_)) => hunt.answered += 1,
                Ok(Got::Error { words: Some(_), .. }) => hunt.refused += 1,
                Ok(Got::Error { .. }) => hunt.failed += 1,
                Err(_) => {
                    let (sql, mut how) = pair.minimise(tape).await;
                    // A hole that a test made is in one world.
                    let world = match place {
                        Where::Given(_) => pair.world,
                        _ => smaller(pair, &place, &sql, &mut how).await,
                    };
                    let world = world.text();
                    hunt.found = Some(format!("AGNES_FUZZ_SEED={seed}, query {n}: {sql}\n  {how}\nin{world}"));
                    return hunt;
                }
            }
        }
        if begun.elapsed() > time {
            break;
        }
    }
    hunt
}

fn nothing_was_found(hunt: Hunt) {
    let Hunt { asked, answered, refused, failed, found } = hunt;
    println!("{asked} queries: {answered} answered, {refused} refused, {failed} failed, all the same on both sides");
    if let Some(found) = found {
        panic!("{found}");
    }
    // The generator makes queries that say something.
    assert!(answered * 2 > asked && refused > 0 && failed > 0, "{asked} {answered} {refused} {failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_shows_that_is_not_in_the_slice() {
    nothing_was_found(hunt(fuzz_seed(), 0, fuzz_seconds(8), |_| Where::InProcess).await);
}

/// The same of other queries, asked of worker processes.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_shows_through_cells() {
    nothing_was_found(hunt(fuzz_seed(), PER_WORLD, fuzz_seconds(8), |_| Where::Cells).await);
}

/// Worlds are worth asking: every kind of rule narrows some table of the caller's.
#[test]
fn worlds_have_every_kind_of_policy() {
    let mut kinds = std::collections::BTreeSet::new();
    let (mut opens, mut closes) = (0, 0);
    for seed in 1..40 {
        for table in World::new(seed).tables.iter().filter(|table| table.granted()) {
            let part = table.part();
            opens = opens.max(part.opens.len());
            closes = closes.max(part.closes.len());
            kinds.extend(part.rules.iter().map(|(_, rule)| rule.as_str()));
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["expression", "hash", "hidden", "null", "partial"]);
    assert!(opens > 1 && closes > 1, "{opens} {closes}");
}

/// A hole in the runtime: what it does to a query's grant set before it runs.
struct Leaky<F>(InProcess, F, #[expect(dead_code, reason = "kept as long as it serves")] tempfile::TempDir);

impl<F> std::fmt::Debug for Leaky<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaky")
    }
}

#[async_trait::async_trait]
impl<F: Fn(&mut QueryJob) + Send + Sync> Runtime for Leaky<F> {
    async fn start(&self, mut job: QueryJob) -> agnes_core::Result<RunningQuery> {
        self.1(&mut job);
        self.0.start(job).await
    }

    async fn isolation(&self) -> agnes_core::Result<Isolation> {
        self.0.isolation().await
    }
}

fn leaky(hole: impl Fn(&mut QueryJob) + Send + Sync + 'static) -> Where {
    let scratch = tempfile::tempdir().unwrap();
    Where::Given(Arc::new(Leaky(InProcess::new(limits(), scratch.path().to_owned()), hole, scratch)))
}

/// The catalog of the instance shows a table that was not granted.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_catalog_wall_is_found() {
    let hunt = hunt(1, 0, Duration::from_secs(60), |world| {
        let hidden = world.tables.iter().find(|table| !table.granted()).unwrap();
        let relation = Relation {
            name: hidden.name.clone(),
            description: None,
            columns: vec![("id".to_owned(), "INTEGER".to_owned(), true)],
            blobs: Vec::new(),
            partitioned: false,
        };
        leaky(move |job| {
            Arc::make_mut(&mut job.grant_set).relations.insert(relation.name.clone(), relation.clone());
        })
    })
    .await;
    let found = hunt.found.unwrap();
    assert!(found.contains("information_schema") || found.contains("SHOW TABLES"), "{found}");
    let (query, _) = found.split_once("\nin\n").unwrap();
    assert!(query.len() < 600, "it was made small: {found}");
}

/// A granted table gives rows that are not in the slice.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_rows_is_found() {
    let hunt = hunt(1, 0, Duration::from_secs(60), |_| {
        leaky(|job| {
            let set = Arc::make_mut(&mut job.grant_set);
            if let Some(relation) = set.relations.values_mut().next()
                && let Some(first) = relation.blobs.first().cloned()
            {
                // Each row twice.
                relation.blobs.push(first);
            }
        })
    })
    .await;
    assert!(hunt.found.is_some());
}

/// What a query reads of a narrowed table is the whole table.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_not_applied_is_found() {
    let whole: Arc<OnceLock<std::path::PathBuf>> = Arc::default();
    let world = World::new(1);
    let narrowed = |table: &&world::Table| table.granted() && !table.part().is_whole() && table.rows.len() > 3;
    let name = world.tables.iter().find(narrowed).unwrap().name.clone();
    let (folder, relation) = (whole.clone(), name.to_lowercase());
    let place = leaky(move |job| {
        if let Some(relation) = Arc::make_mut(&mut job.grant_set).relations.get_mut(&relation) {
            relation.blobs = vec![folder.get().unwrap().join(format!("{name}.parquet"))];
        }
    });
    let pair = Pair::new(world, place).await;
    whole.set(pair.whole.folder.path().join("data/extracts/shop/data")).unwrap();
    let mut found = 0;
    for n in 0..300 {
        let sql = generate::query(&pair.world, Tape::random(n, TAPE));
        found += usize::from(pair.leak(&sql).await.is_err());
    }
    assert!(found > 0);
}
