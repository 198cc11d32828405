//! What must not get through: with every wall, and with the parser wall taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agnes_core::ErrorKind;
use agnes_core::query::{GrantSet, InProcess, Params, QueryJob, QueryLimits, Relation, Runtime, Sealed};
use agnes_core::sandbox::Checked;

use crate::support::{Answer, Installation, Making, data, lines, maker_with, owner, rows, texts};

#[cfg(target_os = "linux")]
mod cells;

/// Stands in everything that `bob` may not read.
const MARKER: &str = "HIDDEN-7f3a9c";
/// Seen in an answer, one of these came from outside: [`MARKER`], the account file, the environment.
const OUTSIDE: [&str; 3] = [MARKER, "root:x:0", env!("CARGO_PKG_DESCRIPTION")];
const GRANTED: [&str; 5] = ["customers", "events", "issues", "model_scores", "orders"];

struct Attack {
    name: String,
    /// `400`, `403`, or `40` for either.
    status: String,
    sql: String,
}

/// A place with all that an attack reaches for, and a way to see that it was touched.
struct Target {
    at: Installation,
    /// Outside the data folder.
    outside: PathBuf,
    web: TcpListener,
    attacks: Vec<Attack>,
}

impl Target {
    async fn new() -> Self {
        let maker = maker_with(None).unwrap();
        maker.execute_batch(&std::fs::read_to_string(data("data.sql")).unwrap()).unwrap();
        for hidden in ["salaries", "\"order\""] {
            maker
                .execute_batch(&format!(
                    "CREATE TABLE {hidden} AS SELECT i AS a, i AS x, '{MARKER}' AS note FROM range(50) t(i)"
                ))
                .unwrap();
        }
        let at = Making::default().publish(&maker, |table| GRANTED.contains(&table)).await;
        let outside = at.folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        for (name, text) in [("x.csv", "a,b\nMARK,1\n"), ("x.json", "{\"a\": \"MARK\"}\n"), ("x.txt", "MARK\n")] {
            std::fs::write(outside.join(name), text.replace("MARK", MARKER)).unwrap();
        }
        let state = duckdb::Connection::open(outside.join("state.duckdb")).unwrap();
        state.execute_batch(&format!("CREATE TABLE secrets AS SELECT '{MARKER}' AS s; CHECKPOINT")).unwrap();
        state.close().unwrap();
        let web = TcpListener::bind("127.0.0.1:0").unwrap();
        web.set_nonblocking(true).unwrap();
        let port = web.local_addr().unwrap().port();
        let granted = at.folder.path().join("data/extracts/shop/data/orders.parquet");
        let hidden = at.folder.path().join("data/extracts/shop/data/salaries.parquet");
        let mut attacks = Vec::new();
        for file in ["attacks/parser.tsv", "attacks/engine.tsv"] {
            for [name, status, sql] in rows(&std::fs::read_to_string(data(file)).unwrap()) {
                let put = |sql: String, what: &str, with: &Path| sql.replace(what, &with.to_string_lossy());
                let sql = put(sql, "{hidden}", &hidden);
                let sql = put(sql, "{blob}", &granted);
                let sql = put(sql, "{csv}", &outside.join("x.csv"));
                let sql = put(sql, "{json}", &outside.join("x.json"));
                let sql = put(sql, "{text}", &outside.join("x.txt"));
                let sql = put(sql, "{state}", &outside.join("state.duckdb"));
                let sql = put(sql, "{dir}", &outside);
                let sql = put(sql, "{root}", &outside);
                let sql =
                    sql.replace("{url}", &format!("http://127.0.0.1:{port}")).replace("{port}", &port.to_string());
                attacks.push(Attack { name, status, sql });
            }
        }
        let names: BTreeSet<&str> = attacks.iter().map(|attack| attack.name.as_str()).collect();
        assert_eq!(names.len(), attacks.len(), "every attack has a name of its own");
        Self { at, outside, web, attacks }
    }

    /// What `bob` may read, for an instance of its own.
    fn grant_set(&self, fingerprint: &str) -> GrantSet {
        let relation = |name: &str| {
            let columns = format!("SELECT column_name || '|' || column_type FROM (DESCRIBE {name})");
            let columns = texts(&self.at.raw, &columns);
            let columns = columns.iter().filter_map(|column| column.split_once('|'));
            Relation {
                name: name.to_owned(),
                description: None,
                columns: columns.map(|(name, kind)| (name.to_owned(), kind.to_owned(), true)).collect(),
                blobs: vec![self.at.folder.path().join(format!("data/extracts/shop/data/{name}.parquet"))],
                partitioned: false,
            }
        };
        let relations: BTreeMap<_, _> = GRANTED.iter().map(|name| ((*name).to_owned(), relation(name))).collect();
        GrantSet { fingerprint: fingerprint.to_owned(), relations }
    }

    /// All that an attack could leave behind.
    fn traces(&self) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
        let mut found = BTreeMap::new();
        let extract = self.at.folder.path().join("data/extracts");
        let mut folders = vec![(self.outside.clone(), true), (extract, true), (".".into(), false)];
        while let Some((folder, deep)) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let Ok(about) = entry.metadata() else { continue };
                if about.is_dir() && deep {
                    folders.push((entry.path(), true));
                } else {
                    found.insert(entry.path(), (about.len(), about.modified().ok().filter(|_| about.is_file())));
                }
            }
        }
        found
    }

    /// How the outside changed since `before`, or whether somebody called.
    fn touched(&self, before: &BTreeMap<PathBuf, (u64, Option<SystemTime>)>) -> Option<String> {
        if self.web.accept().is_ok() {
            return Some("it opened a connection".to_owned());
        }
        let after = self.traces();
        if let Ok(path) = std::fs::canonicalize("/tmp/pwn").or_else(|_| std::fs::canonicalize("/tmp/pwn.csv")) {
            return Some(format!("it wrote {}", path.display()));
        }
        let changed = after.iter().find(|(path, about)| before.get(*path) != Some(about)).map(|(path, _)| path);
        let gone = before.keys().find(|path| !after.contains_key(*path));
        changed.or(gone).map(|path| format!("it wrote {}", path.display()))
    }
}

fn from_outside(text: &str) -> Option<&'static str> {
    OUTSIDE.into_iter().find(|marker| text.contains(marker))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_through_all_walls() {
    let target = Target::new().await;
    let honest = "SELECT customer, count(*), sum(amount) FROM orders GROUP BY ALL";
    let answer = target.at.ask(honest, Params::None).await.unwrap();
    let (before, folder) = (target.traces(), target.at.folder.path().to_string_lossy().into_owned());
    let mut wrong = Vec::new();
    for Attack { name, status, sql } in &target.attacks {
        let (got, shown) = match target.at.ask(sql, Params::None).await {
            Ok(answer) => ("answered".to_owned(), answer.text()),
            Err(e) => {
                let status = match e.kind() {
                    ErrorKind::Forbidden => "403",
                    ErrorKind::QueryRefused | ErrorKind::InvalidInput => "400",
                    _ => "another",
                };
                (format!("{status} {}", e.code()), format!("{e} {:?} {:?}", e.hint(), e.facts()))
            }
        };
        if !got.starts_with(status.as_str()) {
            wrong.push(format!("{name}: {got}: {sql}: {}", shown.chars().take(200).collect::<String>()));
        }
        let leaked = from_outside(&shown).or(shown.contains(&folder).then_some("a path"));
        if let Some(leaked) = leaked.filter(|leaked| !sql.contains(leaked) && !sql.contains(&folder)) {
            wrong.push(format!("{name}: shows {leaked}: {sql}"));
        }
    }
    wrong.extend(target.touched(&before));
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), target.attacks.len(), wrong.join("\n"));
    assert!(target.attacks.len() >= 900, "{}", target.attacks.len());
    assert_eq!(target.at.ask(honest, Params::None).await.unwrap().difference(&answer), None);
    assert!(target.at.ask_raw("FROM salaries").unwrap().text().contains(MARKER), "there was something to find");
    assert!(crate::support::ask(&target.at.engine, &owner(), "FROM salaries", Params::None).await.is_ok());
}

fn limits() -> QueryLimits {
    QueryLimits { memory_bytes: 256 << 20, threads: 1, ..QueryLimits::default() }
}

/// Whether every statement gets an instance of its own, not only the next one after each
/// that ran.
fn always_fresh() -> bool {
    std::env::var_os("AGNES_FUZZ_SECONDS").is_some()
}

/// Each statement as if the parser wall had let it pass.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_through_without_the_parser_wall() {
    let target = Target::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let set = Arc::new(target.grant_set("bob"));
    let before = target.traces();
    let (mut wrong, mut runtime) = (Vec::new(), None);
    for Attack { name, sql, .. } in &target.attacks {
        let fresh = runtime.take().unwrap_or_else(|| InProcess::new(limits(), scratch.path().to_owned()));
        let ran = run(&fresh, set.clone(), Checked::unread(sql, &GRANTED)).await;
        // What was refused has changed nothing.
        runtime = (ran.is_err() && !always_fresh()).then_some(fresh);
        let through = from_outside(&ran.unwrap_or_default()).map(str::to_owned);
        wrong.extend(through.or_else(|| target.touched(&before)).map(|how| format!("{name}: {how}: {sql}")));
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), target.attacks.len(), wrong.join("\n"));
    // It was asked for real: what was granted does come.
    let runtime = InProcess::new(limits(), scratch.path().to_owned());
    let honest = Checked::unread("SELECT DISTINCT status FROM orders", &GRANTED);
    assert!(run(&runtime, set, honest).await.unwrap().contains("paid"));
}

/// All values of the answer to a text that nobody read.
async fn run(runtime: &dyn Runtime, set: Arc<GrantSet>, query: Checked) -> agnes_core::Result<String> {
    let job = QueryJob {
        grant_set: set,
        query,
        params: Params::None,
        deadline: Instant::now() + Duration::from_secs(5),
        alone: None,
        guard: Box::new(()),
    };
    let mut running = runtime.start(job).await?;
    let mut batches = Vec::new();
    while let Some(batch) = running.batches.recv().await {
        batches.push(batch?);
    }
    Ok(Answer::new(&running.schema, &batches).text())
}

/// The catalog wall and the engine wall alone: every statement of a text runs, whatever its
/// kind. Some get through, which is why the parser wall and the process wall exist; the list
/// of these is exact.
#[test]
fn what_the_engine_wall_alone_leaves_open_is_known() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let target = runtime.block_on(Target::new());
    let scratch = tempfile::tempdir().unwrap();
    let set = Arc::new(target.grant_set("bob"));
    let text = std::fs::read_to_string(data("attacks/open_to_the_engine.txt")).unwrap();
    let known: BTreeSet<&str> = lines(&text).collect();
    let blob = &set.relations["orders"].blobs[0];
    let bytes = std::fs::read(blob).unwrap();
    let mut before = target.traces();
    let (mut through, mut kept) = (BTreeMap::new(), None);
    // One never ends, and there is no deadline here; some end the process, as only the
    // process wall can bear. With the kind of statement checked they are asked above.
    let bearable = |attack: &&Attack| !["summary(", "enable_logging("].iter().any(|word| attack.sql.contains(word));
    for Attack { name, sql, .. } in target.attacks.iter().filter(bearable) {
        let sealed = kept.take().unwrap_or_else(|| Sealed::open(set.clone(), &limits(), scratch.path()).unwrap());
        // The driver panics where a result ends in an error.
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sealed.run(sql)));
        let refused = matches!(ran, Ok(Err(_))) && !sql.contains(';');
        let shown = ran.ok().and_then(Result::ok).map(|(schema, batches)| Answer::new(&schema, &batches).text());
        // Some write when they are closed.
        kept = (refused && !always_fresh()).then_some(sealed);
        let found = from_outside(&shown.unwrap_or_default()).map(str::to_owned);
        if let Some(how) = found.or_else(|| target.touched(&before)) {
            through.insert(name.as_str(), format!("{name}: {how}: {sql}"));
            kept = None;
            std::fs::write(blob, &bytes).unwrap();
            before = target.traces();
        }
    }
    let new: Vec<&String> = through.iter().filter(|(name, _)| !known.contains(*name)).map(|(_, how)| how).collect();
    assert!(new.is_empty(), "{new:#?}");
    let closed: Vec<&&str> = known.iter().filter(|name| !through.contains_key(*name)).collect();
    assert!(closed.is_empty(), "no longer open, take them off the list: {closed:?}");
}
