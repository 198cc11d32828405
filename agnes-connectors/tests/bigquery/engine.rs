//! Whole walks: a project is added, synced, and asked where it is, by those who may.

use std::sync::Arc;

use agnes_core::config::Config;
use agnes_core::connector::Progress;
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::ident::quote_literal;
use agnes_core::query::{HybridQuery, Params, Query, Value as Param};
use agnes_core::rbac::{AuthMethod, ClientKind, Principal, ResourceType};
use agnes_core::registry::NewSource;
use agnes_core::scan::ScanRequest;
use agnes_core::secret::FixedSecrets;
use agnes_core::sync::{SyncRequest, TableStatus};
use agnes_core::{CallContext, Engine};
use serde_json::{Value, json};

use crate::emulator::{Emulator, PROJECT};
use crate::google::Google;

const SHOP: [&str; 8] = [
    "CREATE SCHEMA mart",
    "CREATE TABLE mart.web_sessions (id INT64, country STRING, price NUMERIC, ratio FLOAT64, paid BOOL, day DATE, \
     at TIMESTAMP, noted DATETIME)",
    "INSERT INTO mart.web_sessions SELECT n, IF(MOD(n, 3) = 0, NULL, IF(MOD(n, 2) = 0, 'CZ', 'SK')), \
     CAST(n AS NUMERIC) / 4, n / 8, MOD(n, 2) = 0, DATE_ADD(DATE '2024-01-01', INTERVAL n DAY), \
     TIMESTAMP_ADD(TIMESTAMP '2024-01-01 00:00:00+00', INTERVAL n HOUR), \
     DATETIME_ADD(DATETIME '2024-01-01 00:00:00', INTERVAL n HOUR) FROM UNNEST(GENERATE_ARRAY(1, 100)) AS n",
    "CREATE TABLE mart.countries (code STRING, name STRING)",
    "INSERT INTO mart.countries VALUES ('CZ', 'Czechia'), ('SK', 'Slovakia')",
    "CREATE TABLE mart.hidden (secret STRING)",
    "CREATE TABLE mart.parts (id INT64, day DATE) PARTITION BY day CLUSTER BY id",
    "CREATE VIEW mart.paid AS SELECT * FROM mart.web_sessions WHERE paid",
];

pub(crate) struct Site {
    pub(crate) emulator: Emulator,
    pub(crate) google: Google,
    pub(crate) engine: Engine,
    pub(crate) ctx: CallContext,
    _place: tempfile::TempDir,
}

impl Site {
    async fn new(change: impl FnOnce(&mut Config)) -> Option<Self> {
        let emulator = Emulator::start(&SHOP)?;
        let (google, place) = (Google::start(), tempfile::tempdir().unwrap());
        let mut config = Config::default();
        config.allowed_private_hosts = vec!["127.0.0.1".to_owned()];
        change(&mut config);
        // What the tests ask of BigQuery goes by a door that counts.
        google.forward_to(&emulator.addresses().0);
        let engine = Engine::builder(place.path())
            .connectors(agnes_connectors::builtin_for(&config))
            .config(config)
            .secrets(Arc::new(FixedSecrets::new([("GOOGLE_APPLICATION_CREDENTIALS", google.key().as_str())])))
            .open()
            .await
            .unwrap();
        let ctx = CallContext::new(Principal::trusted_owner_of_the_data_folder("a test", ClientKind::Api));
        let settings = json!({"project": PROJECT, "endpoint": google.url, "storage_endpoint": emulator.addresses().1});
        let new =
            NewSource { name: "bigquery".to_owned(), kind: "bigquery".to_owned(), config: settings, schedule: None };
        let added = engine.sources().add(&ctx, new).await.unwrap();
        assert!(added.skipped.is_empty(), "{:?}", added.skipped);
        let place = Self { emulator, google, engine, ctx, _place: place };
        place.sync().await;
        Some(place)
    }

    pub(crate) async fn sync(&self) {
        let request = SyncRequest { sources: vec!["bigquery".to_owned()], ..SyncRequest::default() };
        let outcome = self.engine.sync().run(&self.ctx, request, Progress::default()).await.unwrap().outcome.unwrap();
        for table in &outcome.tables {
            assert_ne!(table.status, TableStatus::Error, "{table:?}");
        }
    }

    async fn try_ask(&self, ctx: &CallContext, query: Query) -> agnes_core::Result<Vec<String>> {
        let mut result = self.engine.query(ctx, query).await?;
        let mut out = Vec::new();
        while let Some(batch) = result.next().await {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                let cells =
                    batch.columns().iter().map(|c| arrow::util::display::array_value_to_string(c, row).unwrap());
                out.push(cells.collect::<Vec<_>>().join("|"));
            }
        }
        Ok(out)
    }

    async fn ask(&self, sql: &str) -> Vec<String> {
        self.try_ask(&self.ctx, Query::new(sql))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error} {:?}", error.facts()))
    }

    /// The statements of jobs (no dry runs) since the last look.
    fn jobs(&self) -> Vec<String> {
        let requests = std::mem::take(&mut *self.google.requests.lock().unwrap());
        let bodies = requests.into_iter().filter(|(what, _)| what.starts_with("POST ") && what.ends_with("/jobs"));
        bodies
            .filter_map(|(_, body)| {
                let body: Value = serde_json::from_str(&body).ok()?;
                let sql = body.pointer("/configuration/query/query")?.as_str()?.to_owned();
                (body.pointer("/configuration/dryRun") != Some(&true.into())).then_some(sql)
            })
            .collect()
    }
}

/// The same statements on the remote table and on a copy of it here.
#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_depend_on_where_they_are_computed() {
    let Some(site) = Site::new(|_| {}).await else { return };
    assert_eq!(site.ask("SELECT count(*) FROM mart_web_sessions").await, ["100"]);
    let copy = site.emulator.run("SELECT 1");
    assert!(copy.get("rows").is_some());
    site.jobs();
    // (statement, whether the whole of it is asked there)
    let statements = [
        ("SELECT count(*) FROM {t}", true),
        (
            "SELECT country, count(*) AS n, sum(price) AS total, avg(ratio) FROM {t} GROUP BY country ORDER BY n DESC, country",
            true,
        ),
        ("SELECT id, country FROM {t} ORDER BY country DESC, id LIMIT 7", true),
        ("SELECT id FROM {t} WHERE country IS NULL AND id > 50 ORDER BY id", true),
        ("SELECT id, day FROM {t} WHERE day BETWEEN DATE '2024-02-01' AND '2024-02-03' ORDER BY 1", true),
        (
            "SELECT id FROM {t} WHERE \"at\" >= TIMESTAMP '2024-01-03 00:00:00' AND noted < '2024-01-03 05:00:00' ORDER BY id",
            true,
        ),
        ("SELECT id, price * 1.5, ratio / 2, -id, price + 1 FROM {t} WHERE id IN (1, 2, 3) ORDER BY id", true),
        ("SELECT DISTINCT paid FROM {t} ORDER BY paid", true),
        ("SELECT count(DISTINCT country), count(*) FILTER (WHERE paid), min(day), max(\"at\") FROM {t}", true),
        (
            "SELECT CASE WHEN paid THEN 'yes' ELSE 'no' END AS p, count(*) FROM {t} GROUP BY 1 HAVING count(*) > 1 ORDER BY 1",
            true,
        ),
        (
            "WITH a AS (SELECT id, country FROM {t} WHERE id < 10), b AS (SELECT id FROM a WHERE id > 3) SELECT count(*) FROM a JOIN b USING (id)",
            true,
        ),
        (
            "SELECT id FROM {t} WHERE id IN (SELECT max(id) FROM {t}) OR EXISTS (SELECT 1 FROM {t} AS o WHERE o.id = 1000)",
            true,
        ),
        ("SELECT id FROM {t} WHERE id < 3 UNION ALL SELECT id FROM {t} WHERE id > 98 ORDER BY 1", true),
        (
            "SELECT id, row_number() OVER (PARTITION BY country ORDER BY id DESC) AS r FROM {t} QUALIFY r = 1 ORDER BY id",
            true,
        ),
        (
            "SELECT lower(country), upper('a\\b''c'), length(country), replace(country, 'C', 'x') FROM {t} WHERE country LIKE 'C%' LIMIT 1",
            true,
        ),
        (
            "SELECT date_trunc('month', day) AS m, extract(year FROM day) AS y, count(*) FROM {t} GROUP BY 1, 2 ORDER BY 1",
            true,
        ),
        ("SELECT coalesce(country, 'none') AS c, sum(id)::DOUBLE FROM {t} GROUP BY c ORDER BY c", true),
        ("SELECT * FROM {t} ORDER BY id LIMIT 2", true),
        ("SELECT s.id, u.id FROM {t} s LEFT JOIN {t} u ON s.id = u.id + 99 WHERE s.id > 98 ORDER BY 1", false),
        // Said otherwise there, so computed here.
        ("SELECT list(id ORDER BY id) FROM {t} WHERE id < 4", false),
        ("SELECT country, sum(id) FROM {t} GROUP BY ALL ORDER BY ALL", false),
        ("SELECT id % 7 AS m, count(*) FROM {t} WHERE country ILIKE 'c%' GROUP BY m ORDER BY m", false),
        ("SELECT strftime(day, '%Y') AS y, median(price) FROM {t} WHERE id <= 10 GROUP BY y", false),
        ("SELECT * EXCLUDE (price, ratio) FROM {t} WHERE id = 5", false),
        ("SELECT count(*) FROM {t} WHERE trim(country) = 'CZ'", false),
        ("SUMMARIZE SELECT id FROM {t}", false),
    ];
    for (sql, shipped) in statements {
        let there = site.ask(&sql.replace("{t}", "mart_web_sessions")).await;
        let jobs = site.jobs();
        // Here: the rows are moved first, by a statement that no dialect has.
        let here = format!("WITH moved AS MATERIALIZED (SELECT * FROM mart_web_sessions WHERE [1] IS NOT NULL) {}", "");
        let body = sql.replace("{t}", "moved");
        let here = match body.strip_prefix("WITH ") {
            Some(rest) => format!("{}, {rest}", here.trim_end()),
            None if body.starts_with("SUMMARIZE") => continue,
            None => format!("{here} {body}"),
        };
        let local = site.ask(&here).await;
        site.jobs();
        assert_eq!(there, local, "{sql}");
        let whole = jobs.len() == 1 && !jobs[0].contains(" LIMIT 500001");
        assert_eq!(whole, shipped, "{sql}: {jobs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_with_local_data_moves_what_it_needs() {
    let Some(site) = Site::new(|_| {}).await else { return };
    site.jobs();
    let sql = "SELECT s.country, count(*) AS n FROM mart_web_sessions s JOIN (VALUES ('CZ'), ('SK')) v(c) ON s.country = v.c \
               WHERE s.day >= DATE '2024-03-01' AND s.id < $1 GROUP BY ALL ORDER BY 1";
    let query = Query::new(sql).params(Params::Positional(vec![Param::Int(90)]));
    let rows = site.try_ask(&site.ctx, query).await.unwrap();
    assert_eq!(rows, ["CZ|10", "SK|10"]);
    let jobs = site.jobs();
    assert_eq!(
        jobs,
        ["SELECT `id`, `country`, `day` FROM `agnes-test`.`mart`.`web_sessions` AS `mart_web_sessions` \
          WHERE (`day` >= DATE '2024-03-01') AND (`id` < 90) LIMIT 500001"]
    );
    // Two remote tables and a count: no column at all is needed of one.
    let sql = "SELECT (SELECT count(*) FROM mart_countries), list(DISTINCT paid) FROM mart_web_sessions WHERE id = 2";
    assert_eq!(site.ask(sql).await, ["2|[true]"]);
    let mut jobs = site.jobs();
    jobs.sort();
    assert!(jobs[0].starts_with("SELECT 1 AS `_rows` FROM `agnes-test`.`mart`.`countries`"), "{jobs:?}");
    // What is asked about the table alone asks nobody.
    assert_eq!(site.ask("SELECT column_name FROM (DESCRIBE mart_countries)").await, ["code", "name"]);
    let schema = site.engine.catalog().schema(&site.ctx, "mart_parts").await.unwrap();
    assert_eq!((schema.partition_by.as_deref(), schema.clustered_by), (Some("day"), vec!["id".to_owned()]));
    assert_eq!((schema.sql_flavor.as_str(), schema.where_dialect_hints.len()), ("bigquery", 5));
    let scan = ScanRequest {
        table: "mart_countries".to_owned(),
        predicate: Some("code = 'CZ'".to_owned()),
        ..ScanRequest::default()
    };
    site.google.estimates(1 << 40);
    let estimate = site.engine.estimate_scan(&site.ctx, &scan).await.unwrap();
    assert_eq!((estimate.estimated_scan_bytes, estimate.bq_cost_estimate_usd), (1 << 40, 5.0));
    site.google.estimates(0);
    let mut rows = site.engine.scan(&site.ctx, &scan).await.unwrap();
    assert_eq!(rows.collect().await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    drop(rows);
    let jobs = site.jobs();
    assert!(jobs.len() == 1 && jobs[0].contains("(`code` = 'CZ')"), "the whole scan is asked there: {jobs:?}");
    assert!(site.ask("EXPLAIN SELECT * FROM mart_countries").await.len() == 1);
    assert_eq!(site.jobs(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn full_paths_stand_for_registered_tables() {
    let Some(site) = Site::new(|_| {}).await else { return };
    let unregistered = site.engine.registry().unregister(&site.ctx, "mart_hidden").await;
    assert!(unregistered.is_ok(), "{unregistered:?}");
    for path in [
        "bq.mart.web_sessions",
        "\"bq\".\"mart\".\"web_sessions\"",
        "BQ.MART.\"Web_Sessions\"",
        "`agnes-test.mart.web_sessions`",
    ] {
        assert_eq!(site.ask(&format!("SELECT count(*) FROM {path}")).await, ["100"], "{path}");
        let sql = format!("SELECT max(web_sessions.id), '`x`', 'bq.mart.hidden' FROM {path} -- `y z`");
        if path.contains("Web") {
            continue;
        }
        assert_eq!(site.ask(&sql).await, ["100|`x`|bq.mart.hidden"], "{path}");
    }
    assert_eq!(
        site.ask("SELECT count(*) FROM bq.mart.paid p JOIN bq.mart.countries c ON p.country = c.code").await,
        ["34"]
    );
    // A CTE of the registered name is another relation.
    let sql =
        "WITH mart_countries AS (SELECT 7 AS n) SELECT (SELECT count(*) FROM bq.mart.countries), n FROM mart_countries";
    assert_eq!(site.ask(sql).await, ["2|7"]);
    let refused = async |sql: &str| {
        let error = site.try_ask(&site.ctx, Query::new(sql)).await.unwrap_err();
        (error.code().to_owned(), error.facts().unwrap_or_default())
    };
    let (code, facts) = refused("SELECT * FROM bq.mart.hidden").await;
    assert_eq!((code.as_str(), &facts["path"]), ("bq_path_not_registered", &json!("bq.mart.hidden")));
    let (code, facts) = refused("SELECT * FROM `other-proj.mart.web_sessions`").await;
    assert_eq!((code.as_str(), &facts["expected_project"]), ("bq_path_cross_project", &json!("agnes-test")));
    assert_eq!(refused("SELECT * FROM `web sessions`").await.0, "backtick_name");
    for sql in [
        "SELECT * FROM bq.hidden",
        "SELECT * FROM \"bq:agnes-test\".mart.hidden",
        "SELECT * FROM other.mart.web_sessions",
    ] {
        assert!(["relation_unknown", "bq_path_not_registered"].contains(&refused(sql).await.0.as_str()), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_are_looked_at_first_and_counted() {
    let Some(site) = Site::new(|config| {
        config.bigquery.max_scan_bytes = 5000;
        config.scan.max_daily_bytes_per_user = 6000;
    })
    .await
    else {
        return;
    };
    site.google.estimates(5001);
    site.jobs();
    for sql in ["SELECT count(*) FROM mart_paid", "SELECT list(id) FROM mart_paid"] {
        let error = site.try_ask(&site.ctx, Query::new(sql)).await.unwrap_err();
        assert_eq!(error.code(), "remote_scan_too_large");
        let facts = error.facts().unwrap();
        assert_eq!((&facts["scan_bytes"], &facts["limit_bytes"]), (&json!(5001), &json!(5000)));
        assert_eq!((&facts["tables"], &facts["view_targets"]), (&json!(["mart.paid"]), &json!(["mart_paid"])));
    }
    assert_eq!(site.jobs(), Vec::<String>::new(), "nothing ran");
    site.google.estimates(5000);
    let mut result = site.engine.query(&site.ctx, Query::new("SELECT count(*) FROM mart_paid")).await.unwrap();
    result.collect().await.unwrap();
    assert_eq!(result.stats().bytes_scanned, Some(5000));
    drop(result);
    assert_eq!(site.ask("SELECT count(*) FROM mart_paid").await, ["50"]);
    site.google.requests.lock().unwrap().clear();
    let error = site.try_ask(&site.ctx, Query::new("SELECT count(*) FROM mart_paid")).await.unwrap_err();
    assert_eq!((error.code(), error.facts().unwrap()["current"].clone()), ("daily_byte_cap_exceeded", json!(10_000)));
    assert!(site.google.requests.lock().unwrap().is_empty(), "refused before BigQuery is called");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_warehouse_stand_beside_local_tables() {
    let Some(site) = Site::new(|config| config.remote_query.max_rows = 60).await else { return };
    let checked = site.engine.test_warehouse(&site.ctx).await.unwrap();
    assert_eq!((checked.billing_project.as_str(), checked.data_project.as_str()), (PROJECT, PROJECT));
    let ask = async |sql: &str, statements: &[(&str, &str)]| {
        let statements = statements.iter().map(|(a, s)| ((*a).to_owned(), (*s).to_owned())).collect();
        site.engine.hybrid(&site.ctx, &HybridQuery { sql: sql.to_owned(), statements }).await
    };
    let sql = "SELECT w.country, c.name, w.n FROM web w JOIN mart_countries c ON c.code = w.country ORDER BY 1";
    let statement = "SELECT country, COUNTIF(paid) AS n FROM mart.web_sessions GROUP BY country";
    let answer = ask(sql, &[("Web", statement)]).await.unwrap();
    assert_eq!(answer.columns, ["country", "name", "n"]);
    assert_eq!(
        answer.rows,
        [json!(["CZ", "Czechia", 34]), json!(["SK", "Slovakia", 0])].map(|row| row.as_array().unwrap().clone())
    );
    assert_eq!((answer.registered_aliases.as_slice(), answer.truncated), (["Web".to_owned()].as_slice(), false));
    assert_eq!(ask("SELECT 1 AS a", &[]).await.unwrap().rows, [[json!(1)]]);
    let words = async |sql: &str, statements: &[(&str, &str)]| ask(sql, statements).await.unwrap_err().to_string();
    for (alias, statement, begins) in [
        ("a", "SELECT * FROM mart.web_sessions", "BQ 'a': row_limit: "),
        ("a", "SELEKT 1", "BQ 'a': bq_error: "),
        ("a", "DELETE FROM mart.hidden WHERE true", "BQ 'a': bq_error: "),
        ("a", "SELECT 1; DROP TABLE mart.hidden", "BQ 'a': bq_error: "),
        ("temp", "SELECT 1", "alias `temp` "),
        ("a-b", "SELECT 1", "alias `a-b` "),
    ] {
        let told = words("SELECT 1", &[(alias, statement)]).await;
        assert!(told.starts_with(begins), "{told}");
    }
    for sql in ["SELECT * FROM nowhere", "SELEC", "SELECT * FROM read_text('/etc/passwd')", "SELECT 1; SELECT 2"] {
        let told = words(sql, &[("a", "SELECT 1 AS x")]).await;
        assert!(told.starts_with("Query: query_error: "), "{told}");
    }
    // Nobody else, whatever they were granted.
    let member = CallContext::new(Principal::user("u1", AuthMethod::Session, ClientKind::Api));
    let query = HybridQuery { sql: "SELECT 1".to_owned(), statements: Vec::new() };
    let refused = site.engine.hybrid(&member, &query).await.unwrap_err();
    assert!(["admin_required", "inactive_user"].contains(&refused.code()), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_end_where_the_days_bytes_do() {
    let Some(site) = Site::new(|config| config.scan.max_daily_bytes_per_user = 6000).await else { return };
    site.google.estimates(3000);
    site.jobs();
    let statements = ["a", "b", "c"].map(|alias| (alias.to_owned(), format!("SELECT '{alias}' AS x")));
    let query = HybridQuery { sql: "SELECT 1".to_owned(), statements: statements.to_vec() };
    let error = site.engine.hybrid(&site.ctx, &query).await.unwrap_err();
    assert_eq!((error.code(), error.facts().unwrap()["current"].clone()), ("daily_byte_cap_exceeded", json!(6000)));
    assert_eq!(site.jobs(), ["SELECT 'a' AS x", "SELECT 'b' AS x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_tables_follow_the_project_of_the_data() {
    let Some(site) = Site::new(|_| {}).await else { return };
    let folder = site.engine.folder().root().join("extracts/bigquery");
    let url = || agnes_core::extract::read_extract(&folder).unwrap().attaches[0].url.clone();
    assert_eq!(url(), "project=agnes-test");
    let scratch = tempfile::tempdir().unwrap();
    let db = ScratchDb::open(scratch.path(), &ScratchLimits::default()).unwrap();
    let file = quote_literal(&folder.join("extract.duckdb").to_string_lossy());
    let older = "UPDATE x._remote_attach SET url = 'project=agnes-before'; CHECKPOINT x; DETACH x";
    db.execute(&format!("ATTACH {file} AS x; {older}")).unwrap();
    drop(db);
    assert_eq!(url(), "project=agnes-before");
    // One that is gone keeps none of the others.
    site.emulator.run("DROP TABLE mart.hidden");
    site.engine.orchestrator().rebuild(&site.ctx).await.unwrap();
    assert_eq!(url(), "project=agnes-test");
    assert_eq!(site.ask("SELECT count(*) FROM mart_countries").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_hold_where_the_data_is() {
    let Some(site) = Site::new(|_| {}).await else { return };
    let identity = site.engine.identity();
    identity.add_user(&site.ctx, "ann@acme.example", None).await.unwrap();
    identity.create_group(&site.ctx, "eu", None).await.unwrap();
    identity.add_member(&site.ctx, "eu", "ann@acme.example").await.unwrap();
    let ann = CallContext::new(identity.principal_of(&site.ctx, "ann@acme.example", ClientKind::Api).await.unwrap());
    let code = async |sql: &str| match site.try_ask(&ann, Query::new(sql)).await {
        Ok(rows) => rows.join(","),
        Err(error) => error.code().to_owned(),
    };
    site.jobs();
    let ways = [
        ("SELECT count(*) FROM mart_countries", "relation_denied"),
        ("SELECT count(*) FROM bq.mart.countries", "bq_path_access_denied"),
        ("SELECT count(*) FROM `agnes-test.mart.countries`", "bq_path_access_denied"),
        ("SELECT count(*) FROM bq.mart.nothing", "bq_path_not_registered"),
        ("SELECT count(*) FROM (VALUES (1)) v WHERE EXISTS (SELECT 1 FROM bq.mart.countries)", "bq_path_access_denied"),
    ];
    for (sql, refused) in ways {
        assert_eq!(code(sql).await, refused, "{sql}");
    }
    assert_eq!(site.jobs(), Vec::<String>::new(), "nobody was asked");
    let granted = identity.grant(&site.ctx, "eu", ResourceType::Table, "mart_countries").await.unwrap();
    for (sql, _) in ways.iter().take(3) {
        assert_eq!(code(sql).await, "2", "{sql}");
    }
    // What one of two tables lacks, both lack.
    let both = "SELECT count(*) FROM mart_countries, mart_web_sessions";
    assert_eq!(code(both).await, "relation_denied");
    // No filter is promised that could not be kept there.
    let rules = serde_json::from_value(json!({"filter": {"predicate": "code = 'CZ'"}})).unwrap();
    let refused = site.engine.policies().create(&site.ctx, "eu", "mart_countries", rules).await.unwrap_err();
    assert_eq!(refused.code(), "policy_on_remote_table");
    identity.revoke(&site.ctx, &granted.grant.id).await.unwrap();
    assert_eq!(code("SELECT count(*) FROM bq.mart.countries").await, "bq_path_access_denied");
}
