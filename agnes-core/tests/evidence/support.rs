//! What the evidence shares: installations made of tables, and answers that can be compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agnes_core::config::{Config, IsolationMode};
use agnes_core::query::{Params, Query, QueryLimits, Runtime};
use agnes_core::rbac::{ClientKind, Principal, ResourceType};
use agnes_core::{CallContext, Engine, Result};
use arrow::array::{ArrayData, ArrayRef, AsArray as _, StringArray, make_array};
use arrow::datatypes::{DataType, Decimal128Type, Field};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// An engine whose catalog was published from an extract, the caller `bob`, and DuckDB alone
/// over the same files.
pub(crate) struct Installation {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) engine: Engine,
    pub(crate) bob: CallContext,
    pub(crate) raw: duckdb::Connection,
}

pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("evidence", ClientKind::Api))
}

/// Whether this process has the test `name` to itself. If not, another one is started and
/// must hold: the memory of this one is that of all tests that run in it.
pub(crate) fn alone(name: &str) -> bool {
    let mark = "AGNES_TEST_ALONE";
    if std::env::var_os(mark).is_some() {
        return true;
    }
    let mut test = std::process::Command::new(std::env::current_exe().unwrap());
    let ran = test.args(["--exact", name]).env(mark, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    false
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How an [`Installation`] is made.
#[derive(Default)]
pub(crate) struct Making {
    pub(crate) limits: Option<QueryLimits>,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
    /// Runs queries in processes of their own.
    pub(crate) cells: bool,
}

impl Making {
    /// Publishes every table that `maker` has in its current schema as source `shop`; `bob`
    /// may read those for which `granted` holds.
    pub(crate) async fn publish(self, maker: &duckdb::Connection, granted: impl Fn(&str) -> bool) -> Installation {
        let folder = tempfile::tempdir().unwrap();
        let tables = texts(maker, "SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1");
        let extract = folder.path().join("data/extracts/shop");
        write_extract(maker, &extract, &tables);
        let raw = duckdb::Connection::open_in_memory().unwrap();
        raw.execute_batch("SET TimeZone='UTC'").unwrap();
        for table in &tables {
            let file = data_file(&extract, table);
            let name = quoted(table);
            raw.execute_batch(&format!("CREATE VIEW {name} AS FROM read_parquet('{}')", file.display())).unwrap();
        }
        let mut builder = Engine::builder(folder.path().join("data"));
        if let Some(limits) = self.limits {
            builder = builder.query_limits(limits);
        }
        if let Some(runtime) = self.runtime {
            builder = builder.query_runtime(runtime);
        }
        if self.cells {
            let mut config = Config::default();
            config.query.isolation = IsolationMode::Process;
            config.query.strict = true;
            builder = builder.config(config).query_worker(env!("CARGO_BIN_EXE_agnes-cell"));
        }
        let engine = builder.open().await.unwrap();
        engine.orchestrator().rebuild(&owner()).await.unwrap();
        let bob = caller(&engine, "bob", tables.iter().filter(|table| granted(table))).await;
        Installation { folder, engine, bob, raw }
    }
}

/// A person in a group of their own that may read `tables`.
pub(crate) async fn caller(engine: &Engine, name: &str, tables: impl Iterator<Item = &String>) -> CallContext {
    let identity = engine.identity();
    let email = format!("{name}@acme.example");
    identity.add_user(&owner(), &email, None).await.unwrap();
    identity.create_group(&owner(), name, None).await.unwrap();
    identity.add_member(&owner(), name, &email).await.unwrap();
    for table in tables {
        identity.grant(&owner(), name, ResourceType::Table, table).await.unwrap();
    }
    CallContext::new(identity.principal_of(&owner(), &email, ClientKind::Api).await.unwrap())
}

fn data_file(extract: &Path, table: &str) -> PathBuf {
    extract.join("data").join(format!("{table}.parquet"))
}

/// An extract as any producer may write it.
fn write_extract(maker: &duckdb::Connection, extract: &Path, tables: &[String]) {
    std::fs::create_dir_all(extract.join("data")).unwrap();
    let mut catalog = "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, \
         size_bytes BIGINT, extracted_at TIMESTAMP, query_mode VARCHAR);"
        .to_owned();
    for table in tables {
        let (name, file) = (quoted(table), data_file(extract, table));
        maker.execute_batch(&format!("COPY {name} TO '{}' (FORMAT parquet)", file.display())).unwrap();
        catalog += &format!(
            "INSERT INTO _meta VALUES ('{table}', NULL, 1, 1, TIMESTAMP '2024-01-01', 'local'); \
             CREATE VIEW {name} AS SELECT * FROM read_parquet('{}');",
            file.display()
        );
    }
    let conn = duckdb::Connection::open(extract.join("extract.duckdb")).unwrap();
    conn.execute_batch(&catalog).unwrap();
    conn.close().unwrap();
}

/// The first column of an answer of `conn`.
pub(crate) fn texts(conn: &duckdb::Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(std::result::Result::unwrap).collect()
}

/// A DuckDB of its own; `extension` is one of those the tests fetch. `None` when it is not
/// there and need not be.
pub(crate) fn maker_with(extension: Option<&str>) -> Option<duckdb::Connection> {
    let config = duckdb::Config::default();
    let conn = duckdb::Connection::open_in_memory_with_flags(config).unwrap();
    conn.execute_batch("SET TimeZone='UTC'").unwrap();
    if let Some(extension) = extension {
        let folder = std::env::var_os("AGNES_TEST_EXTENSIONS").map(PathBuf::from);
        let file = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.duckdb/extensions"));
        let file = file.join(format!("{extension}.duckdb_extension"));
        if !file.exists() {
            let needed = std::env::var("CI").is_ok_and(|ci| ci == "true")
                || std::env::var("AGNES_REQUIRE_COMPONENTS").is_ok_and(|required| required == "1");
            assert!(!needed, "DuckDB's extension `{extension}` is missing: run scripts/fetch-extensions.sh");
            eprintln!("SKIPPED: DuckDB's extension `{extension}` is missing: run scripts/fetch-extensions.sh");
            return None;
        }
        conn.execute_batch(&format!("LOAD '{}'", file.display())).unwrap();
    }
    Some(conn)
}

/// The first seed of what is made at random.
pub(crate) fn fuzz_seed() -> u64 {
    std::env::var("AGNES_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// How long to go on: `AGNES_FUZZ_SECONDS`, else `normally`.
pub(crate) fn fuzz_seconds(normally: u64) -> std::time::Duration {
    let asked = std::env::var("AGNES_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    std::time::Duration::from_secs(asked.unwrap_or(normally))
}

/// A file of the corpus: a statement a line, `-- ` starts a comment line.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("-- "))
}

/// Rows of a table of statements: cells between tabs, the last is SQL with `\n`, `\r`, `\t`, `\0`, `\\`.
pub(crate) fn rows<const N: usize>(text: &str) -> impl Iterator<Item = [String; N]> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).map(|line| {
        let cells: Vec<&str> = line.splitn(N, '\t').collect();
        let mut cells = <[&str; N]>::try_from(cells).unwrap_or_else(|_| panic!("{line}")).map(str::to_owned);
        if let Some(sql) = cells.last_mut() {
            *sql = sql
                .replace("\\n", "\n")
                .replace("\\t", "\t")
                .replace("\\0", "\0")
                .replace("\\r", "\r")
                .replace("\\\\", "\\");
        }
        cells
    })
}

/// `path` below this folder.
pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence").join(path)
}

/// What came back, ready to be compared: floats apart, rows in no order.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) columns: Vec<(String, String)>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    /// All cells as text, with `#` in place of every float.
    text: String,
    floats: Vec<f64>,
}

impl Row {
    fn is_near(&self, other: &Self) -> bool {
        self.text == other.text && self.floats.iter().zip(&other.floats).all(|(a, b)| is_near(*a, *b))
    }
}

fn is_near(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

impl Answer {
    pub(crate) fn new(schema: &arrow::datatypes::Schema, batches: &[RecordBatch]) -> Self {
        let columns = schema
            .fields()
            .iter()
            .map(|f| (f.name().clone(), without_zone(plain(f.data_type())).to_string()))
            .collect();
        let mut rows: Vec<Row> = batches.iter().flat_map(rows_of).collect();
        rows.sort_by(|a, b| {
            let floats = || a.floats.iter().zip(&b.floats).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne());
            a.text.cmp(&b.text).then_with(|| floats().unwrap_or(std::cmp::Ordering::Equal))
        });
        Self { columns, rows }
    }

    /// All cells, for a search in them.
    pub(crate) fn text(&self) -> String {
        self.rows.iter().map(|row| format!("{} {:?}\n", row.text, row.floats)).collect()
    }

    /// How it differs from `other`: as multisets of rows, floats to 1e-9.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        if self.columns != other.columns {
            return Some(format!("columns {:?} and {:?}", self.columns, other.columns));
        }
        if self.rows.len() != other.rows.len() {
            return Some(format!("{} and {} rows", self.rows.len(), other.rows.len()));
        }
        // Rows that differ in the last digit of a float may stand in another order.
        let mut left: Vec<&Row> = Vec::new();
        let mut open: Vec<&Row> = Vec::new();
        for (a, b) in self.rows.iter().zip(&other.rows).filter(|(a, b)| !a.is_near(b)) {
            left.push(a);
            open.push(b);
        }
        for row in left {
            match open.iter().position(|other| row.is_near(other)) {
                Some(at) => drop(open.swap_remove(at)),
                None => return Some(format!("row {row:?} is not there; there is {:?}", open.first())),
            }
        }
        None
    }
}

/// DuckDB's `ENUM`s are dictionaries, which queries hand over as their values.
fn plain(kind: &DataType) -> &DataType {
    if let DataType::Dictionary(_, values) = kind { values } else { kind }
}

fn without_zone(kind: &DataType) -> DataType {
    let field = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(without_zone(f.data_type())));
    match kind {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::List(item) => DataType::List(field(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(field(item), *n),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// The names of time zones are not compiled in, and all of them are UTC here.
fn in_utc(array: ArrayData) -> ArrayData {
    let kind = without_zone(array.data_type());
    let children = array.child_data().iter().cloned().map(in_utc).collect();
    array.into_builder().data_type(kind).child_data(children).build().unwrap()
}

fn has_floats(kind: &DataType) -> bool {
    match kind {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            has_floats(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| has_floats(f.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, f)| has_floats(f.data_type())),
        _ => false,
    }
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayRef> = batch.columns().iter().map(|column| make_array(in_utc(column.to_data()))).collect();
    let shown: Vec<_> =
        columns.iter().map(|c| (has_floats(c.data_type()), ArrayFormatter::try_new(c, &options).unwrap())).collect();
    (0..batch.num_rows())
        .map(|n| {
            let mut row = Row { text: String::new(), floats: Vec::new() };
            for (floats, column) in &shown {
                // What cannot be shown, a date beyond the calendar, differs in nothing here.
                let cell = column.value(n).try_to_string().unwrap_or_else(|_| "unshown".to_owned());
                if *floats {
                    take_floats(&cell, &mut row)
                } else {
                    row.text.push_str(&cell)
                }
                row.text.push('\u{1f}');
            }
            row
        })
        .collect()
}

fn take_floats(cell: &str, row: &mut Row) {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    let mut rest = cell;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit() || c == '-') {
        let end = rest[at..].find(|c| !is_number(c)).map_or(rest.len(), |n| at + n);
        match rest[at..end].parse() {
            Ok(number) => {
                row.text.push_str(&rest[..at]);
                row.text.push('#');
                row.floats.push(number);
            }
            Err(_) => row.text.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    row.text.push_str(rest);
}

impl Installation {
    /// Asks as `bob`.
    pub(crate) async fn ask(&self, sql: &str, params: Params) -> Result<Answer> {
        ask(&self.engine, &self.bob, sql, params).await
    }

    /// Asks DuckDB alone. Panics of the driver are errors too.
    pub(crate) fn ask_raw(&self, sql: &str) -> std::result::Result<Answer, String> {
        let run = || -> duckdb::Result<Answer> {
            let mut statement = self.raw.prepare(sql)?;
            let batches: Vec<RecordBatch> = statement.query_arrow([])?.collect();
            let widest = |n: &usize| statement.column_logical_type(*n).id() == duckdb::core::LogicalTypeId::UHugeint;
            let widest: Vec<usize> = (0..statement.column_count()).filter(widest).collect();
            if widest.is_empty() {
                return Ok(Answer::new(&statement.schema(), &batches));
            }
            let batches: Vec<RecordBatch> = batches.iter().map(|batch| widest_as_text(batch, &widest)).collect();
            Ok(Answer::new(&batches.first().map_or_else(|| statement.schema(), RecordBatch::schema), &batches))
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(_) => Err("it failed half way".to_owned()),
        }
    }
}

/// The columns `widest`, which are UHUGEINT, as Agnes gives them: DuckDB gives the upper half as
/// negative numbers.
fn widest_as_text(batch: &RecordBatch, widest: &[usize]) -> RecordBatch {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields()).enumerate().map(|(n, (column, field))| {
        let numbers = column.as_primitive_opt::<Decimal128Type>().filter(|_| widest.contains(&n));
        let texts = numbers.map(|numbers| numbers.iter().map(|n| n.map(|n| n.cast_unsigned().to_string())));
        let texts = texts.map(|texts| Arc::new(texts.collect::<StringArray>()) as ArrayRef);
        (field.name().clone(), texts.unwrap_or_else(|| column.clone()))
    });
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Asks `engine` and takes all rows.
pub(crate) async fn ask(engine: &Engine, ctx: &CallContext, sql: &str, params: Params) -> Result<Answer> {
    let mut result = engine.query(ctx, Query::new(sql).params(params)).await?;
    let batches = result.collect().await?;
    Ok(Answer::new(&result.schema(), &batches))
}
