//! Queries through an engine: grants, audit, internal tables, limits. The state is a small
//! double that holds just what queries ask of it.

#![allow(clippy::unwrap_used, clippy::unimplemented)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agnes_core::audit::{AuditEvent, AuditFilter, AuditRepository};
use agnes_core::config::{Config, IsolationMode};
use agnes_core::ident::{SourceName, TableName};
use agnes_core::orchestrator::{Column, Generation, Part, PublishedTable, SourceGeneration};
use agnes_core::query::{Params, Query, QueryLimits, Value};
use agnes_core::rbac::*;
use agnes_core::registry::*;
use agnes_core::store::{InternalScope, SchemaInfo, Store};
use agnes_core::sync::*;
use agnes_core::{CallContext, Engine, ErrorKind, Result};
use arrow::array::{Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};

macro_rules! in_each_runtime {
    ($($name:ident),* $(,)?) => {
        mod in_this_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::IsolationMode::InProcess).await;
            })*
        }
        #[cfg(target_os = "linux")]
        mod in_cells {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::IsolationMode::Process).await;
            })*
        }
    };
}

in_each_runtime!(
    grants_decide_and_a_revoked_one_is_gone_at_once,
    internal_tables_show_the_callers_rows_alone,
    a_cut_result_says_so,
    every_query_leaves_a_row,
    deadlines_and_turns,
    a_thousand_tables_are_no_burden,
);

#[derive(Debug, Default)]
struct State {
    access: Mutex<AccessSnapshot>,
    revision: AtomicU64,
    audit: Mutex<Vec<AuditEvent>>,
}

#[derive(Debug, Clone, Default)]
struct Fake(Arc<State>);

impl Fake {
    fn change(&self, change: impl FnOnce(&mut AccessSnapshot)) {
        let mut access = self.0.access.lock().unwrap();
        change(&mut access);
        access.revision = self.0.revision.fetch_add(1, Ordering::SeqCst) + 1;
    }
    fn grant(&self, group: &str, table: &str) {
        self.change(|s| {
            s.grants.insert((ResourceType::Table, table.to_owned()), vec![(group.to_owned(), "g1".to_owned())]);
            s.granted_to.entry((group.to_owned(), ResourceType::Table)).or_default().insert(table.to_owned());
        });
    }
    fn revoke(&self, group: &str, table: &str) {
        self.change(|s| {
            s.grants.remove(&(ResourceType::Table, table.to_owned()));
            s.granted_to.insert((group.to_owned(), ResourceType::Table), BTreeSet::new());
        });
    }
}

#[async_trait]
impl Store for Fake {
    fn users(&self) -> Arc<dyn agnes_core::identity::UserRepository> {
        unimplemented!()
    }
    fn credentials(&self) -> Arc<dyn agnes_core::identity::CredentialRepository> {
        unimplemented!()
    }
    fn tokens(&self) -> Arc<dyn agnes_core::identity::TokenRepository> {
        unimplemented!()
    }
    fn access_requests(&self) -> Arc<dyn agnes_core::identity::AccessRequestRepository> {
        unimplemented!()
    }
    fn access(&self) -> Arc<dyn AccessRepository> {
        Arc::new(self.clone())
    }
    fn tables(&self) -> Arc<dyn TableRepository> {
        Arc::new(self.clone())
    }
    fn policies(&self) -> Arc<dyn agnes_core::policy::PolicyRepository> {
        unimplemented!()
    }
    fn sources(&self) -> Arc<dyn SourceRepository> {
        unimplemented!()
    }
    fn ownership(&self) -> Arc<dyn OwnershipRepository> {
        unimplemented!()
    }
    fn sync(&self) -> Arc<dyn SyncRepository> {
        unimplemented!()
    }
    fn profiles(&self) -> Arc<dyn ProfileRepository> {
        unimplemented!()
    }
    fn preferences(&self) -> Arc<dyn PreferenceRepository> {
        unimplemented!()
    }
    fn jobs(&self) -> Arc<dyn JobRepository> {
        Arc::new(self.clone())
    }
    fn audit(&self) -> Arc<dyn AuditRepository> {
        Arc::new(self.clone())
    }
    fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::SeqCst)
    }
    fn credential_revision(&self) -> u64 {
        self.revision()
    }
    async fn internal_rows(&self, table: &str, only: Option<InternalScope>) -> Result<Vec<RecordBatch>> {
        let who = only.map_or_else(|| "everybody".to_owned(), |scope| scope.user_id);
        let id: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let text = |text: &str| Arc::new(StringArray::from(vec![text])) as arrow::array::ArrayRef;
        Ok(vec![RecordBatch::try_from_iter([("id", id), ("user_id", text(&who)), ("name", text(table))]).unwrap()])
    }
    async fn schema(&self) -> Result<SchemaInfo> {
        unimplemented!()
    }
    async fn checkpoint(&self) -> Result<()> {
        Ok(())
    }
    async fn backup_to(&self, _folder: &Path) -> Result<()> {
        unimplemented!()
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl AuditRepository for Fake {
    async fn append(&self, events: &[AuditEvent]) -> Result<()> {
        self.0.audit.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
    async fn list(&self, _filter: &AuditFilter) -> Result<Vec<AuditEvent>> {
        Ok(self.0.audit.lock().unwrap().clone())
    }
}

#[async_trait]
impl AccessRepository for Fake {
    async fn seed_system_groups(&self, now: DateTime<Utc>) -> Result<()> {
        let _ = now;
        Ok(())
    }
    async fn groups(&self) -> Result<Vec<Group>> {
        unimplemented!()
    }
    async fn group(&self, _id: &str) -> Result<Option<Group>> {
        unimplemented!()
    }
    async fn group_by_name(&self, _name: &str) -> Result<Option<Group>> {
        unimplemented!()
    }
    async fn insert_group(&self, _group: &Group) -> Result<()> {
        unimplemented!()
    }
    async fn update_group(&self, _id: &str, _name: &str, _description: Option<&str>) -> Result<Group> {
        unimplemented!()
    }
    async fn delete_group(&self, _id: &str) -> Result<()> {
        unimplemented!()
    }
    async fn members(&self, _group_id: &str) -> Result<Vec<Member>> {
        unimplemented!()
    }
    async fn memberships(&self, _user_id: &str) -> Result<Vec<Member>> {
        unimplemented!()
    }
    async fn add_member(&self, _member: &Member) -> Result<bool> {
        unimplemented!()
    }
    async fn remove_member(&self, _group_id: &str, _user_id: &str) -> Result<()> {
        unimplemented!()
    }
    async fn grants(&self, _group_id: Option<&str>) -> Result<Vec<Grant>> {
        unimplemented!()
    }
    async fn insert_grant(&self, _grant: &Grant) -> Result<()> {
        unimplemented!()
    }
    async fn delete_grant(&self, _id: &str) -> Result<Grant> {
        unimplemented!()
    }
    async fn delete_grants_of(&self, _resource_type: ResourceType, _resource_id: &str) -> Result<usize> {
        unimplemented!()
    }
    async fn snapshot(&self) -> Result<AccessSnapshot> {
        Ok(self.0.access.lock().unwrap().clone())
    }
}

#[async_trait]
impl JobRepository for Fake {
    async fn enqueue(&self, _job: NewJob, _now: DateTime<Utc>) -> Result<(Job, bool)> {
        unimplemented!()
    }
    async fn claim(
        &self,
        _kinds: &[&str],
        _worker: &str,
        _lease: Duration,
        _now: DateTime<Utc>,
    ) -> Result<Option<Job>> {
        unimplemented!()
    }
    async fn claim_one(&self, _id: &str, _worker: &str, _lease: Duration, _now: DateTime<Utc>) -> Result<Option<Job>> {
        unimplemented!()
    }
    async fn extend(&self, _id: &str, _worker: &str, _lease: Duration, _now: DateTime<Utc>) -> Result<bool> {
        unimplemented!()
    }
    async fn succeed(&self, _id: &str, _worker: &str, _outcome: &serde_json::Value, _now: DateTime<Utc>) -> Result<()> {
        unimplemented!()
    }
    async fn fail(
        &self,
        _id: &str,
        _worker: &str,
        _error: &str,
        _outcome: Option<&serde_json::Value>,
        _retry_at: Option<DateTime<Utc>>,
        _now: DateTime<Utc>,
    ) -> Result<()> {
        unimplemented!()
    }
    async fn cancel(&self, _id: &str, _now: DateTime<Utc>) -> Result<bool> {
        unimplemented!()
    }
    async fn get(&self, _id: &str) -> Result<Option<Job>> {
        unimplemented!()
    }
    async fn list(&self, kind: Option<&str>, states: &[JobState], limit: usize) -> Result<Vec<Job>> {
        let _ = (kind, states, limit);
        Ok(Vec::new())
    }
    async fn release_all(&self, worker_prefix: &str, now: DateTime<Utc>) -> Result<usize> {
        let _ = (worker_prefix, now);
        Ok(0)
    }
    async fn prune(&self, _before: DateTime<Utc>) -> Result<usize> {
        unimplemented!()
    }
}

#[async_trait]
impl TableRepository for Fake {
    async fn upsert(&self, _table: &RegisteredTable) -> Result<()> {
        unimplemented!()
    }
    async fn find(&self, _id_or_name: &str) -> Result<Option<RegisteredTable>> {
        unimplemented!()
    }
    async fn list(&self) -> Result<Vec<RegisteredTable>> {
        let mut orders =
            RegisteredTable::new(&TableName::parse("orders").unwrap(), "files", &SourceName::parse("shop").unwrap());
        orders.id = "id-of-orders".to_owned();
        let mut waiting = orders.clone();
        (waiting.id, waiting.name) = ("waiting".to_owned(), "waiting".to_owned());
        Ok(vec![orders, waiting])
    }
    async fn delete(&self, _id: &str) -> Result<bool> {
        unimplemented!()
    }
    async fn column_metadata(&self, _table_id: &str) -> Result<Vec<ColumnMetadata>> {
        unimplemented!()
    }
    async fn set_column_metadata(
        &self,
        _table_id: &str,
        _columns: &[ColumnMetadata],
        _now: DateTime<Utc>,
    ) -> Result<()> {
        unimplemented!()
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    store: Fake,
    engine: Engine,
}

fn published(root: &Path, name: &str, select: &str) -> PublishedTable {
    let folder = agnes_core::layout::DataFolder::new(root);
    let sha256 = format!("{:0<64}", name.bytes().map(|b| format!("{b:02x}")).collect::<String>());
    let blob = folder.blob(&sha256);
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    let raw = duckdb::Connection::open_in_memory().unwrap();
    raw.execute_batch(&format!("COPY ({select}) TO '{}' (FORMAT parquet)", blob.display())).unwrap();
    let mut statement = raw.prepare(&format!("SELECT column_name, column_type FROM (DESCRIBE {select})")).unwrap();
    let columns = statement
        .query_map([], |row| Ok(Column { name: row.get(0)?, data_type: row.get(1)?, nullable: true }))
        .unwrap()
        .map(std::result::Result::unwrap)
        .collect();
    PublishedTable {
        name: TableName::parse(name).unwrap(),
        source: SourceName::parse("shop").unwrap(),
        mode: QueryMode::Local,
        description: None,
        columns,
        rows: 0,
        size_bytes: 0,
        parts: vec![Part {
            path: format!("{name}.parquet"),
            sha256: sha256.clone(),
            md5: String::new(),
            size_bytes: blob.metadata().unwrap().len(),
            rows: 0,
            signature: None,
        }],
        partitioned: false,
        remote: None,
        extracted_at: None,
        content_hash: sha256,
        manifest_hash: String::new(),
    }
}

impl Bench {
    async fn with(limits: QueryLimits, many: usize, mode: IsolationMode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let mut tables = vec![
            published(
                &root,
                "orders",
                "SELECT i AS id, 'c' || (i % 3) AS customer, i * 2 AS amount FROM range(5000) t(i)",
            ),
            published(&root, "salaries", "SELECT 'hidden-wage' AS wage"),
        ];
        for n in 0..many {
            let mut copy = tables[0].clone();
            copy.name = TableName::parse(&format!("t{n}")).unwrap();
            tables.push(copy);
        }
        let source = SourceGeneration { signature: String::new(), degraded: false, attaches: Vec::new(), tables };
        let mut generation = Generation { number: 7, ..Generation::empty() };
        generation.sources.insert(SourceName::parse("shop").unwrap(), source);
        let layout = agnes_core::layout::DataFolder::new(&root);
        std::fs::create_dir_all(layout.generations()).unwrap();
        std::fs::write(layout.generation(7), serde_json::to_vec(&generation).unwrap()).unwrap();
        std::fs::write(layout.current(), "7").unwrap();
        let store = Fake::default();
        store.change(|s| {
            s.admin_group = Some("ga".into());
            for (user, group) in [("ann", "ga"), ("bob", "gb"), ("cy", "gc")] {
                s.active_users.insert(user.into(), format!("{user}@acme.example"));
                s.groups_of.insert(user.into(), [group.to_owned()].into());
            }
        });
        // Grants name the registry's id, which differs from the name.
        store.grant("gb", "id-of-orders");
        let mut config = Config::default();
        config.query.isolation = mode;
        let builder = Engine::builder(&root).config(config).query_worker(env!("CARGO_BIN_EXE_agnes-cell"));
        let engine = builder.store(Arc::new(store.clone())).query_limits(limits).open().await.unwrap();
        Self { _folder: folder, store, engine }
    }

    async fn new(mode: IsolationMode) -> Self {
        Self::with(QueryLimits::default(), 0, mode).await
    }

    async fn ask(&self, who: &str, sql: &str) -> Result<usize> {
        let mut result = self.engine.query(&ctx(who), Query::new(sql)).await?;
        Ok(result.collect().await?.iter().map(RecordBatch::num_rows).sum())
    }

    async fn code(&self, who: &str, sql: &str) -> String {
        match self.ask(who, sql).await {
            Ok(rows) => format!("{rows} rows"),
            Err(e) => e.code().to_owned(),
        }
    }

    async fn audit(&self) -> Vec<AuditEvent> {
        self.engine.audit().list(&ctx("ann"), &AuditFilter { limit: 100, ..AuditFilter::default() }).await.unwrap()
    }
}

fn ctx(who: &str) -> CallContext {
    CallContext::new(Principal::user(who, AuthMethod::Pat, ClientKind::Api)).with_request_id("req-1")
}

async fn grants_decide_and_a_revoked_one_is_gone_at_once(mode: IsolationMode) {
    let bench = Bench::new(mode).await;
    assert_eq!(bench.code("bob", "SELECT * FROM orders WHERE id < 10").await, "10 rows");
    assert_eq!(bench.code("bob", "SELECT * FROM Salaries").await, "relation_denied");
    assert_eq!(bench.code("bob", "SELECT * FROM nothing").await, "relation_denied");
    assert_eq!(bench.code("cy", "SELECT * FROM orders").await, "relation_denied");
    assert_eq!(bench.code("cy", "SELECT 1").await, "1 rows");
    assert_eq!(bench.code("ann", "SELECT * FROM salaries, orders").await, "5000 rows");
    assert_eq!(bench.code("ann", "SELECT * FROM nothing").await, "relation_unknown");
    assert_eq!(bench.code("nobody", "SELECT 1").await, "inactive_user");
    assert_eq!(bench.code("nobody", "SELEC").await, "inactive_user");
    assert_eq!(bench.code("ann", "SELECT * FROM waiting").await, "not_published_yet");
    assert_eq!(bench.code("bob", "SELECT * FROM waiting").await, "relation_denied");
    assert_eq!(bench.code("bob", "SHOW TABLES").await, "1 rows");
    assert_eq!(bench.code("ann", "SHOW TABLES").await, "2 rows");
    assert_eq!(bench.code("bob", "FROM information_schema.columns").await, "3 rows");
    assert_eq!(bench.code("bob", "PIVOT orders ON customer USING sum(amount)").await, "5000 rows");
    assert_eq!(bench.code("bob", "PIVOT salaries ON wage USING count(*)").await, "relation_denied");
    assert_eq!(bench.code("bob", "EXPLAIN SELECT * FROM orders").await, "1 rows");
    bench.store.revoke("gb", "id-of-orders");
    assert_eq!(bench.code("bob", "SELECT * FROM orders").await, "relation_denied");
    let refused = bench.ask("bob", "SELECT * FROM salaris").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    assert!(!refused.hint().unwrap().contains("salaries"), "nothing is suggested that bob may not know");
}

async fn internal_tables_show_the_callers_rows_alone(mode: IsolationMode) {
    let bench = Bench::new(mode).await;
    let mut result =
        bench.engine.query(&ctx("bob"), Query::new("SELECT user_id, name FROM agnes_audit")).await.unwrap();
    let batches = result.collect().await.unwrap();
    let text = |n: usize| batches[0].column(n).as_any().downcast_ref::<StringArray>().unwrap().value(0).to_owned();
    assert_eq!((text(0), text(1)), ("bob".to_owned(), "agnes_audit".to_owned()));
    assert_eq!(bench.code("ann", "SELECT * FROM agnes_audit WHERE user_id = 'everybody'").await, "1 rows");
    assert_eq!(bench.code("bob", "SELECT * FROM agnes_sessions JOIN agnes_audit USING (id)").await, "1 rows");
    assert_eq!(bench.code("bob", "SELECT * FROM agnes_sessions, orders").await, "internal_tables_mixed");
    assert_eq!(bench.code("bob", "SELECT * FROM agnes_sessions, users").await, "internal_tables_mixed");
    assert_eq!(
        bench.code("bob", "SELECT * FROM agnes_sessions, information_schema.tables").await,
        "internal_tables_mixed"
    );
}

async fn a_cut_result_says_so(mode: IsolationMode) {
    let bench = Bench::new(mode).await;
    let ask = async |query: Query| {
        let mut result = bench.engine.query(&ctx("bob"), query).await.unwrap();
        let rows: usize = result.collect().await.unwrap().iter().map(RecordBatch::num_rows).sum();
        (rows, result.truncated(), result.stats().rows)
    };
    let all = "SELECT * FROM orders";
    assert_eq!(ask(Query::new(all)).await, (5000, false, 5000));
    assert_eq!(ask(Query::new(all).limit(5000)).await, (5000, false, 5000));
    assert_eq!(ask(Query::new(all).limit(4999)).await, (4999, true, 4999));
    assert_eq!(ask(Query::new(all).limit(2048)).await, (2048, true, 2048));
    assert_eq!(ask(Query::new(all).limit(1)).await, (1, true, 1));
    assert_eq!(ask(Query::new("SELECT 1 WHERE false").limit(1)).await, (0, false, 0));
    let (rows, truncated, _) = ask(Query::new(all).max_bytes(1000)).await;
    assert!(truncated && rows < 5000);
    let params = Params::Positional(vec![Value::Int(3)]);
    assert_eq!(ask(Query::new("SELECT * FROM orders WHERE id < ?").params(params)).await, (3, false, 3));
    let missing = bench.engine.query(&ctx("bob"), Query::new("SELECT ?")).await.unwrap_err();
    assert_eq!(missing.code(), "wrong_parameters");
}

async fn every_query_leaves_a_row(mode: IsolationMode) {
    let bench = Bench::new(mode).await;
    let _ = bench.ask("bob", "SELECT * FROM orders LIMIT 3").await;
    let _ = bench.ask("bob", "SELECT * FROM salaries").await;
    let _ = bench.ask("bob", "DROP VIEW orders").await;
    let _ = bench.ask("bob", "SELECT 1").await;
    let _ = bench.ask("bob", "SELECT * FROM agnes_audit").await;
    let _ = bench.ask("nobody", "SELECT 1").await;
    drop(bench.engine.query(&ctx("bob"), Query::new("SELECT * FROM range(1000000000)")).await.unwrap());
    let rows: Vec<_> = bench
        .audit()
        .await
        .into_iter()
        .map(|row| (row.user_id.unwrap(), row.action, row.resource.unwrap(), row.result.unwrap()))
        .collect();
    let row = |user: &str, action: &str, resource: &str, result: &str| {
        (user.to_owned(), action.to_owned(), resource.to_owned(), result.to_owned())
    };
    assert_eq!(
        rows,
        [
            row("bob", "query.local", "table:orders", "success"),
            row("bob", "query.local", "table:salaries", "denied"),
            row("bob", "query.local", "adhoc", "error.not_a_query"),
            row("bob", "query.local", "adhoc", "success"),
            row("bob", "query.internal", "table:agnes_audit", "success"),
            row("nobody", "query.local", "adhoc", "denied"),
            row("bob", "query.local", "adhoc", "success"),
        ]
    );
    let first = bench.audit().await.remove(0);
    let params = first.params.unwrap();
    assert_eq!((params["rows_returned"].as_u64(), params["generation"].as_u64()), (Some(3), Some(7)));
    assert_eq!(params["sql"], "SELECT * FROM orders LIMIT 3");
    assert_eq!(first.correlation_id.as_deref(), Some("req-1"));
}

async fn deadlines_and_turns(mode: IsolationMode) {
    let limits = QueryLimits {
        timeout: Duration::from_millis(500),
        per_user: 1,
        wait: Duration::from_millis(50),
        ..QueryLimits::default()
    };
    let bench = Bench::with(limits, 0, mode).await;
    // Row 73 of the specification's table: accepted, then stopped.
    let slow = "SELECT count(*) FROM range(1e12::BIGINT)";
    assert_eq!(bench.code("bob", slow).await, "query_timeout");
    let early = ctx("bob").with_timeout(Duration::from_millis(100));
    let begun = std::time::Instant::now();
    let mut result = bench.engine.query(&early, Query::new(slow)).await;
    let error = match &mut result {
        Ok(result) => result.collect().await.unwrap_err().code().to_owned(),
        Err(error) => error.code().to_owned(),
    };
    assert_eq!(error, "query_timeout");
    assert!(begun.elapsed() < Duration::from_secs(3));
    let first = bench.engine.query(&ctx("bob"), Query::new("SELECT * FROM range(100000000)")).await.unwrap();
    assert_eq!(bench.code("bob", "SELECT 1").await, "too_many_queries");
    assert_eq!(bench.code("cy", "SELECT 1").await, "1 rows");
    drop(first);
    for _ in 0..100 {
        if bench.code("bob", "SELECT 1").await == "1 rows" {
            return;
        }
    }
    panic!("the turn did not come back");
}

async fn a_thousand_tables_are_no_burden(mode: IsolationMode) {
    let bench = Bench::with(QueryLimits::default(), 1000, mode).await;
    bench.ask("bob", "SELECT 1").await.unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(bench.code("ann", "SELECT * FROM t999 LIMIT 1").await, "1 rows");
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1000), "{took:?}");
    println!("first query on a thousand tables: {took:?}");
    assert_eq!(bench.code("ann", "SHOW TABLES").await, "1002 rows");
}
