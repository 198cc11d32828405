//! A shop with orders in two regions, and people who may see some of them.

#[cfg(target_os = "linux")]
use agnes_core::config::{Config, IsolationMode};
use agnes_core::policy::{ColumnRule, FilterMode, PolicyRules, RowFilter};
use agnes_core::query::{Query, json_rows};
use agnes_core::rbac::{ClientKind, Principal, ResourceType};
use agnes_core::{CallContext, Engine, EngineBuilder, Result};
use serde_json::Value;

pub(crate) struct Shop {
    pub(crate) engine: Engine,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

/// Publishes `tables` (name, query) as the source `shop`.
pub(crate) async fn publish(engine: &Engine, root: &std::path::Path, tables: &[(&str, &str)]) {
    let folder = root.join("extracts/shop");
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let conn = duckdb::Connection::open(folder.join("extract.duckdb")).unwrap();
    conn.execute_batch(
        "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, size_bytes BIGINT, \
         extracted_at TIMESTAMP, query_mode VARCHAR)",
    )
    .unwrap();
    for (name, query) in tables {
        let file = folder.join(format!("data/{name}.parquet"));
        let file = file.to_string_lossy();
        conn.execute_batch(&format!(
            "COPY ({query}) TO '{file}' (FORMAT parquet); \
             INSERT INTO _meta SELECT '{name}', NULL, count(*), 0, TIMESTAMP '2026-01-01', 'local' FROM ({query}); \
             CREATE VIEW {name} AS SELECT * FROM read_parquet('{file}')"
        ))
        .unwrap();
    }
    conn.execute_batch("CHECKPOINT").unwrap();
    drop(conn);
    engine.orchestrator().rebuild(&owner()).await.unwrap();
}

/// Rows 4 and 5 hold values that must never be seen by those who see the EU alone.
pub(crate) const ORDERS: &str = "SELECT * FROM (VALUES \
    (1, 'EU', 'ann@acme.example', 10, '7', DATE '2026-01-01'), (2, 'EU', 'bob@acme.example', 20, '8', DATE '2026-01-02'), \
    (3, 'EU', NULL, 30, '9', NULL), (4, 'US', 'sam@secret.example', 0, 'hidden-secret', DATE '2026-02-01'), \
    (5, 'US', 'bob@acme.example', 50, '5', DATE '2026-02-02')) AS t(id, region, email, amount, code, day)";
pub(crate) const TEAMS: &str = "SELECT * FROM (VALUES ('ann@acme.example', 'EU'), ('bob@acme.example', 'EU'), ('bob@acme.example', 'US')) AS t(who, area)";

/// Runs tests, functions of a shop, with queries in this process and in worker processes.
macro_rules! in_each_runtime {
    ($($name:ident),* $(,)?) => {
        mod in_this_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Shop::open().await).await;
            })*
        }
        #[cfg(target_os = "linux")]
        mod in_cells {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Shop::in_cells().await).await;
            })*
        }
    };
}
pub(crate) use in_each_runtime;

/// Queries run in worker processes that prove every guarantee.
#[cfg(target_os = "linux")]
pub(crate) fn cells(builder: EngineBuilder) -> EngineBuilder {
    let mut config = Config::default();
    config.query.isolation = IsolationMode::Process;
    config.query.strict = true;
    builder.config(config).query_worker(env!("CARGO_BIN_EXE_agnes-cell"))
}

impl Shop {
    /// Ann is in `eu`, Bob in `us`, Cy in both, Dan is an Admin; `eu` and `us` may read
    /// `orders`.
    pub(crate) async fn open() -> Self {
        Self::with(|builder| builder).await
    }

    /// The same, with queries in worker processes that prove every guarantee.
    #[cfg(target_os = "linux")]
    pub(crate) async fn in_cells() -> Self {
        Self::with(cells).await
    }

    pub(crate) async fn with(change: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = change(Engine::builder(folder.path())).open().await.unwrap();
        publish(&engine, folder.path(), &[("orders", ORDERS), ("teams", TEAMS)]).await;
        let identity = engine.identity();
        for group in ["eu", "us"] {
            identity.create_group(&owner(), group, None).await.unwrap();
            identity.grant(&owner(), group, ResourceType::Table, "orders").await.unwrap();
        }
        for (who, groups) in [("ann", &["eu"][..]), ("bob", &["us"]), ("cy", &["eu", "us"]), ("dan", &["Admin"])] {
            identity.add_user(&owner(), &format!("{who}@acme.example"), None).await.unwrap();
            for group in groups {
                identity.add_member(&owner(), group, &format!("{who}@acme.example")).await.unwrap();
            }
        }
        Self { engine, folder }
    }

    pub(crate) async fn ctx(&self, who: &str) -> CallContext {
        let who = format!("{who}@acme.example");
        CallContext::new(self.engine.identity().principal_of(&owner(), &who, ClientKind::Api).await.unwrap())
    }

    /// Puts a policy on `orders`; its id.
    pub(crate) async fn policy(&self, group: &str, rules: PolicyRules) -> String {
        self.engine.policies().create(&owner(), group, "orders", rules).await.unwrap().policy.id
    }

    pub(crate) async fn try_ask(&self, ctx: &CallContext, sql: &str) -> Result<Vec<Vec<Value>>> {
        let mut result = self.engine.query(ctx, Query::new(sql)).await?;
        let mut rows = Vec::new();
        while let Some(batch) = result.next().await {
            rows.extend(json_rows(&batch?).into_iter().map(|row| row.into_iter().map(|(_, v)| v).collect()));
        }
        Ok(rows)
    }

    /// The answer, one text a row.
    pub(crate) async fn ask(&self, who: &str, sql: &str) -> Vec<String> {
        let rows = self.try_ask(&self.ctx(who).await, sql).await.unwrap_or_else(|e| panic!("{who}: {sql}: {e}"));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join(" ")).collect()
    }

    /// Ids of the orders that somebody sees.
    pub(crate) async fn ids(&self, who: &str) -> String {
        self.ask(who, "SELECT string_agg(id::VARCHAR, ',' ORDER BY id) FROM orders").await.remove(0)
    }
}

pub(crate) fn rows(predicate: &str) -> PolicyRules {
    let filter = RowFilter { predicate: predicate.into(), mode: FilterMode::Permissive };
    PolicyRules { filter: Some(filter), ..PolicyRules::default() }
}

pub(crate) fn only(predicate: &str) -> PolicyRules {
    let filter = RowFilter { predicate: predicate.into(), mode: FilterMode::Restrictive };
    PolicyRules { filter: Some(filter), ..PolicyRules::default() }
}

pub(crate) fn columns(rules: &[(&str, ColumnRule)]) -> PolicyRules {
    let columns = rules.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect();
    PolicyRules { columns, ..PolicyRules::default() }
}
