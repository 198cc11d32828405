//! The other walls: checked queries in a real locked instance, and what the instance itself
//! refuses when the parser wall is taken away.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_core::query::{GrantSet, InProcess, Params, QueryJob, QueryLimits, Relation, Runtime};
use agnes_core::sandbox::{Checked, Gate, Readable, RelationKind};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

struct Granted(Vec<String>);

impl Readable for Granted {
    fn find(&self, name: &str) -> Option<RelationKind> {
        self.0.iter().any(|n| n == name).then_some(RelationKind::Local)
    }
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
    fn sees_everything(&self) -> bool {
        false
    }
}

const TABLES: [&str; 5] = ["customers", "events", "issues", "model_scores", "orders"];

/// Where queries run: every test runs in each.
#[derive(Clone, Copy)]
enum In {
    ThisProcess,
    #[cfg(target_os = "linux")]
    Cells,
}

impl In {
    fn start(self, limits: QueryLimits, folder: &Path) -> Arc<dyn Runtime> {
        match self {
            Self::ThisProcess => Arc::new(InProcess::new(limits, folder.join("tmp"))),
            #[cfg(target_os = "linux")]
            Self::Cells => {
                use agnes_core::cell::{CellOptions, Cells};
                let worker = env!("CARGO_BIN_EXE_agnes-cell").into();
                let options = CellOptions::new(worker, limits, folder.join("tmp"), vec![folder.join("blobs")]);
                Arc::new(Cells::start(options).unwrap())
            }
        }
    }
}

macro_rules! in_each_runtime {
    ($($name:ident),* $(,)?) => {
        mod in_this_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::In::ThisProcess).await;
            })*
        }
        #[cfg(target_os = "linux")]
        mod in_cells {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::In::Cells).await;
            })*
        }
    };
}

in_each_runtime!(
    honest_sql_gives_what_duckdb_gives,
    the_catalog_shows_the_grant_set_alone,
    plans_and_errors_tell_no_path,
    parameters_bind,
    a_dropped_query_stops_and_a_late_one_is_stopped,
    a_memory_limit_is_an_error_not_the_end,
    a_query_that_fails_half_way_says_so,
);

struct Bench {
    folder: tempfile::TempDir,
    gate: Gate,
    runtime: Arc<dyn Runtime>,
    set: Arc<GrantSet>,
    raw: duckdb::Connection,
}

fn blob(folder: &Path, table: &str) -> PathBuf {
    folder.join("blobs").join(format!("{table}.parquet"))
}

impl Bench {
    async fn with(limits: QueryLimits, runtime: In) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("blobs")).unwrap();
        let raw = duckdb::Connection::open_in_memory().unwrap();
        raw.execute_batch("SET TimeZone='UTC'").unwrap();
        let maker = raw.try_clone().unwrap();
        maker.execute_batch(&format!("ATTACH ':memory:' AS m; USE m; {}", include_str!("evidence/data.sql"))).unwrap();
        let mut relations = BTreeMap::new();
        for table in TABLES {
            let path = blob(folder.path(), table);
            maker.execute_batch(&format!("COPY m.{table} TO '{}' (FORMAT parquet)", path.display())).unwrap();
            raw.execute_batch(&format!("CREATE VIEW {table} AS SELECT * FROM read_parquet('{}')", path.display()))
                .unwrap();
            let mut statement =
                raw.prepare(&format!("SELECT column_name, column_type FROM (DESCRIBE {table})")).unwrap();
            let columns =
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, true))).unwrap().map(Result::unwrap);
            let relation = Relation {
                name: table.to_owned(),
                description: None,
                columns: columns.collect(),
                blobs: vec![path],
                partitioned: false,
            };
            relations.insert(table.to_owned(), relation);
        }
        std::fs::write(folder.path().join("secret.csv"), "a\nsecret-value\n").unwrap();
        let runtime = runtime.start(limits, folder.path());
        let set = Arc::new(GrantSet { fingerprint: "f".to_owned(), relations });
        Self { folder, gate: Gate::start().await.unwrap(), runtime, set, raw }
    }

    async fn new(runtime: In) -> Self {
        Self::with(QueryLimits { memory_bytes: 512 << 20, ..QueryLimits::default() }, runtime).await
    }

    async fn check(&self, sql: &str) -> Checked {
        let readable = Granted(TABLES.map(str::to_owned).to_vec());
        self.gate.parse(sql).await.unwrap().resolve(&readable).unwrap()
    }

    fn job(&self, query: Checked, params: Params) -> QueryJob {
        let deadline = Instant::now() + Duration::from_secs(60);
        QueryJob { grant_set: self.set.clone(), query, params, deadline, alone: None, guard: Box::new(()) }
    }

    async fn ask(&self, sql: &str, params: Params) -> agnes_core::Result<Vec<String>> {
        let mut running = self.runtime.start(self.job(self.check(sql).await, params)).await?;
        let mut rows =
            vec![running.schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join("\u{1f}")];
        while let Some(batch) = running.batches.recv().await {
            rows.extend(shown(&batch?));
        }
        Ok(rows)
    }

    fn ask_raw(&self, sql: &str) -> duckdb::Result<Vec<String>> {
        let mut statement = self.raw.prepare(sql)?;
        let batches: Vec<RecordBatch> = statement.query_arrow([])?.collect();
        let schema = statement.schema();
        let mut rows = vec![schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join("\u{1f}")];
        rows.extend(batches.iter().flat_map(shown));
        Ok(rows)
    }
}

fn shown(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    // The names of time zones are not compiled in.
    let plain = |column: &arrow::array::ArrayRef| match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => arrow::compute::cast(column, &DataType::Timestamp(*unit, None)).unwrap(),
        _ => column.clone(),
    };
    let columns: Vec<_> = batch.columns().iter().map(plain).collect();
    let columns: Vec<_> = columns.iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|n| columns.iter().map(|c| c.value(n).to_string()).collect::<Vec<_>>().join("\u{1f}"))
        .collect()
}

async fn honest_sql_gives_what_duckdb_gives(runtime: In) {
    let bench = Bench::new(runtime).await;
    let mut wrong = Vec::new();
    let corpus: Vec<&str> =
        include_str!("evidence/honest/everyday.sql").lines().filter(|line| !line.is_empty()).collect();
    assert!(corpus.len() >= 150, "{}", corpus.len());
    for sql in corpus {
        let readable = Granted(TABLES.map(str::to_owned).to_vec());
        let checked = match bench.gate.parse(sql).await.and_then(|parsed| Ok(parsed.resolve(&readable)?)) {
            Ok(checked) => checked,
            Err(e) => {
                wrong.push(format!("refused ({e}): {sql}"));
                continue;
            }
        };
        assert_eq!(checked.sql(), sql, "the caller's own text runs");
        let expected = match bench.ask_raw(sql) {
            Ok(expected) => expected,
            Err(e) => {
                wrong.push(format!("not DuckDB's SQL ({e}): {sql}"));
                continue;
            }
        };
        match bench.ask(sql, Params::None).await {
            Ok(mut got) => {
                let mut want = expected;
                let header = (got.remove(0), want.remove(0));
                got.sort();
                want.sort();
                if header.0 != header.1 || got != want {
                    wrong.push(format!("different: {sql}\n  {:?}\n  {:?}", got.first(), want.first()));
                }
            }
            Err(e) => wrong.push(format!("failed ({e}): {sql}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn the_catalog_shows_the_grant_set_alone(runtime: In) {
    let bench = Bench::new(runtime).await;
    let rows = bench.ask("SHOW TABLES", Params::None).await.unwrap();
    assert_eq!(rows, ["name", "customers", "events", "issues", "model_scores", "orders"]);
    let sql = "SELECT table_name, count(*) FROM information_schema.columns GROUP BY 1 ORDER BY 1";
    let rows = bench.ask(sql, Params::None).await.unwrap();
    assert_eq!(rows[1], "customers\u{1f}5");
    let rows =
        bench.ask("SELECT tables.table_type, count(*) FROM information_schema.tables GROUP BY 1", Params::None).await;
    assert_eq!(rows.unwrap()[1], "VIEW\u{1f}5");
    let sql = "SELECT data_type FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'amount'";
    assert_eq!(bench.ask(sql, Params::None).await.unwrap()[1], "DECIMAL(12,2)");
}

async fn plans_and_errors_tell_no_path(runtime: In) {
    let bench = Bench::new(runtime).await;
    let plan = bench
        .ask("EXPLAIN SELECT customer, sum(amount) FROM orders WHERE id > 3 GROUP BY 1", Params::None)
        .await
        .unwrap();
    assert!(plan.iter().any(|row| row.contains("READ_PARQUET") || row.contains("PARQUET_SCAN")), "{plan:?}");
    let folder = bench.folder.path().to_str().unwrap().to_owned();
    assert!(!plan.join("\n").contains(&folder) && !plan.join("\n").contains(".parquet"));
    let error = bench.ask("SELECT amont FROM orders", Params::None).await.unwrap_err();
    assert_eq!(error.code(), "query_binder");
    assert!(error.to_string().contains("amount"), "{error}");
    let error = bench.ask("SELECT customer::INT FROM orders", Params::None).await.unwrap_err();
    assert_eq!(error.code(), "query_conversion");
    std::fs::remove_file(blob(bench.folder.path(), "issues")).unwrap();
    let error = bench.ask("SELECT * FROM issues", Params::None).await.unwrap_err();
    assert_eq!(error.code(), "data_missing");
    assert!(!format!("{error} {:?}", error.hint()).contains(&folder));
}

async fn parameters_bind(runtime: In) {
    use agnes_core::query::Value;
    let bench = Bench::new(runtime).await;
    let positional = Params::Positional(vec![Value::Int(3), Value::from("c3")]);
    let sql = "SELECT id FROM orders WHERE id >= ? AND customer = ? ORDER BY id LIMIT 2";
    assert_eq!(bench.ask(sql, positional).await.unwrap(), ["id", "3", "10"]);
    let positional = Params::Positional(vec![Value::Int(2), Value::Int(5)]);
    assert_eq!(bench.ask("SELECT $2 - $1 AS d", positional).await.unwrap(), ["d", "3"]);
    let named = Params::try_from(serde_json::json!({ "day": "2024-01-02", "ids": [25, 26, 999], "n": null })).unwrap();
    let sql = "SELECT id FROM orders WHERE created_at::DATE = $day AND id IN (SELECT unnest($ids)) AND $n IS NULL ORDER BY id";
    assert_eq!(bench.ask(sql, named).await.unwrap(), ["id", "25", "26"]);
    let date = chrono::NaiveDate::from_ymd_opt(2024, 1, 2).unwrap();
    let named = Params::Named([("d".to_owned(), Value::Date(date))].into());
    assert_eq!(bench.ask("SELECT $d + 1 AS x", named).await.unwrap(), ["x", "2024-01-03"]);
    let tricky = Params::Positional(vec![Value::from("x'; DROP VIEW orders; --")]);
    assert_eq!(bench.ask("SELECT count(*) AS n FROM orders WHERE customer = ?", tricky).await.unwrap(), ["n", "0"]);
}

async fn a_dropped_query_stops_and_a_late_one_is_stopped(runtime: In) {
    let bench = Bench::new(runtime).await;
    let (guard_in, guard_out) = std::sync::mpsc::channel::<()>();
    struct Tell(std::sync::mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    // Dropped while rows stream.
    let query = bench.check("SELECT a.i FROM range(1000000000) a(i)").await;
    let mut running = bench
        .runtime
        .start(QueryJob { guard: Box::new(Tell(guard_in.clone())), ..bench.job(query, Params::None) })
        .await
        .unwrap();
    assert!(running.batches.recv().await.unwrap().is_ok());
    drop(running);
    guard_out.recv_timeout(Duration::from_secs(60)).unwrap();
    // Dropped while nothing has come yet.
    let slow = "SELECT count(*) FROM range(10000000000) a(i), range(1000) b(j) WHERE (i * j) % 7 = 3";
    let query = bench.check(slow).await;
    let job = QueryJob { guard: Box::new(Tell(guard_in)), ..bench.job(query.clone(), Params::None) };
    let started = tokio::time::timeout(Duration::from_millis(300), async {
        let mut running = bench.runtime.start(job).await.unwrap();
        running.batches.recv().await
    });
    assert!(started.await.is_err());
    guard_out.recv_timeout(Duration::from_secs(60)).unwrap();
    // Late.
    let begun = Instant::now();
    let job = QueryJob { deadline: Instant::now() + Duration::from_millis(300), ..bench.job(query, Params::None) };
    let outcome = async {
        let mut running = bench.runtime.start(job).await?;
        let mut last = Ok(());
        while let Some(batch) = running.batches.recv().await {
            last = batch.map(|_| ()).map_err(agnes_core::Error::from);
        }
        last
    };
    let error = outcome.await.unwrap_err();
    assert_eq!((error.code(), error.facts().unwrap()["reason"].as_str()), ("query_timeout", Some("query_timeout")));
    assert!(begun.elapsed() < Duration::from_secs(60));
    // The instance still serves.
    assert_eq!(bench.ask("SELECT 1 AS x", Params::None).await.unwrap(), ["x", "1"]);
}

async fn a_memory_limit_is_an_error_not_the_end(runtime: In) {
    let limits = QueryLimits { memory_bytes: 40 << 20, spill_bytes: 1 << 20, ..QueryLimits::default() };
    let bench = Bench::with(limits, runtime).await;
    let sql = "SELECT i, list(j) FROM range(3000) a(i), range(3000) b(j) GROUP BY i ORDER BY 2";
    let error = bench.ask(sql, Params::None).await.unwrap_err();
    assert!(["query_memory", "query_spill"].contains(&error.code()), "{error} {}", error.code());
    assert!(!error.to_string().contains('/'));
    assert_eq!(bench.ask("SELECT count(*) AS n FROM orders", Params::None).await.unwrap(), ["n", "400"]);
}

async fn a_query_that_fails_half_way_says_so(runtime: In) {
    let bench = Bench::new(runtime).await;
    let query = bench
        .check("SELECT CASE WHEN i = 500000 THEN error('boom') ELSE i::VARCHAR END FROM range(1000000) r(i)")
        .await;
    let mut running = bench.runtime.start(bench.job(query, Params::None)).await.unwrap();
    let mut last = None;
    while let Some(batch) = running.batches.recv().await {
        last = Some(batch);
    }
    let error = agnes_core::Error::from(last.unwrap().unwrap_err());
    assert_eq!(error.code(), "query_failed");
    assert!(error.to_string().contains("boom"), "{error}");
}
