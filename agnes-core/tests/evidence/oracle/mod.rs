//! The leak oracle: every query is asked twice, on the whole installation as the caller, and
//! on one that holds nothing but what the caller may read. Answers and errors are the same,
//! or something of the rest showed.
//!
//! Worlds and queries come from seeds. `AGNES_FUZZ_SEED` gives the first one,
//! `AGNES_FUZZ_SECONDS` how long to go on (`make fuzz`).

mod generate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_core::ErrorKind;
use agnes_core::policy::{FilterMode, PolicyRules, RowFilter};
use agnes_core::query::{InProcess, Isolation, Params, QueryJob, QueryLimits, Relation, RunningQuery, Runtime};
use agnes_core::rbac::ResourceType;
use generate::{MARKER, Tape, World};

use crate::support::{Answer, Installation, Making, fuzz_seconds, fuzz_seed, maker_with, owner};

/// Queries asked of one world.
const PER_WORLD: u64 = 150;
/// Choices behind one query.
const TAPE: usize = 160;

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

impl Pair {
    async fn new(world: World, runtime: Option<Arc<dyn Runtime>>) -> Self {
        let (all, own) = (maker_with(None).unwrap(), maker_with(None).unwrap());
        world.create(&all);
        world.create(&own);
        world.narrow(&own);
        let granted = |name: &str| world.tables.iter().any(|table| table.granted && table.name == name);
        let whole = Making { limits: Some(limits()), runtime }.publish(&all, granted).await;
        let slice = Making { limits: Some(limits()), runtime: None }.publish(&own, |_| true).await;
        let (engine, owner) = (&whole.engine, owner());
        for table in &world.tables {
            // One policy a group; `bob` is in as many as there are filters.
            let policies = table.filters.len().max(usize::from(!table.rules.is_empty()));
            for n in 0..policies {
                let group = if n == 0 { "bob".to_owned() } else { format!("more{n}") };
                if n > 0 {
                    let made = engine.identity().create_group(&owner, &group, None).await.is_ok();
                    if made {
                        engine.identity().add_member(&owner, &group, "bob@acme.example").await.unwrap();
                    }
                    engine.identity().grant(&owner, &group, ResourceType::Table, &table.name).await.unwrap();
                }
                let filter = table.filters.get(n).cloned();
                let rules = PolicyRules {
                    filter: filter.map(|predicate| RowFilter { predicate, mode: FilterMode::Permissive }),
                    columns: table.rules.iter().cloned().collect(),
                    ..PolicyRules::default()
                };
                engine.policies().create(&owner, &group, &table.name, rules).await.unwrap();
            }
        }
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

#[derive(Default)]
struct Hunt {
    asked: u64,
    answered: u64,
    refused: u64,
    failed: u64,
    found: Option<String>,
}

/// Asks queries of worlds from `seed` on, until a leak is found or the time is up; at least
/// one world whole.
async fn hunt(seed: u64, time: Duration, runtime: impl Fn(&World) -> Option<Arc<dyn Runtime>>) -> Hunt {
    let (begun, mut hunt) = (Instant::now(), Hunt::default());
    for seed in seed.. {
        let world = World::new(seed);
        let runtime = runtime(&world);
        let pair = Pair::new(world, runtime).await;
        for n in 0..PER_WORLD {
            let tape = Tape::random(seed.wrapping_mul(1_000_003).wrapping_add(n), TAPE);
            let sql = generate::query(&pair.world, tape.clone());
            hunt.asked += 1;
            match pair.leak(&sql).await {
                Ok(Got::Answer(_)) => hunt.answered += 1,
                Ok(Got::Error { words: Some(_), .. }) => hunt.refused += 1,
                Ok(Got::Error { .. }) => hunt.failed += 1,
                Err(_) => {
                    let (sql, how) = pair.minimise(tape).await;
                    hunt.found = Some(format!("AGNES_FUZZ_SEED={seed}, query {n}: {sql}\n  {how}"));
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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_shows_that_is_not_in_the_slice() {
    let hunt = hunt(fuzz_seed(), fuzz_seconds(15), |_| None).await;
    let Hunt { asked, answered, refused, failed, found } = hunt;
    println!("{asked} queries: {answered} answered, {refused} refused, {failed} failed, all the same on both sides");
    assert_eq!(found, None);
    // The generator makes queries that say something.
    assert!(answered * 2 > asked && refused > 0 && failed > 0, "{asked} {answered} {refused} {failed}");
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

fn leaky(hole: impl Fn(&mut QueryJob) + Send + Sync + 'static) -> Option<Arc<dyn Runtime>> {
    let scratch = tempfile::tempdir().unwrap();
    Some(Arc::new(Leaky(InProcess::new(limits(), scratch.path().to_owned()), hole, scratch)))
}

/// The catalog of the instance shows a table that was not granted.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_catalog_wall_is_found() {
    let hunt = hunt(1, Duration::from_secs(60), |world| {
        let hidden = world.tables.iter().find(|table| !table.granted).unwrap();
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
    assert!(found.len() < 600, "it was made small: {found}");
}

/// A granted table gives rows that are not in the slice.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_rows_is_found() {
    let hunt = hunt(1, Duration::from_secs(60), |_| {
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
