//! The contract of all connectors, for each kind of database.

use std::sync::{Arc, Mutex};

use agnes_connectors::sql::SqlConnector;
use agnes_core::connector::Connector;
use agnes_core::orchestrator::AttachPolicy;
use agnes_core::testing::connector_suite::ConnectorFixture;
use serde_json::{Value, json};

use crate::support::{PASSWORD, Source};

struct Table(Mutex<Source>);

impl Table {
    fn new(source: Option<Source>) -> Option<Self> {
        let source = source?;
        source.sql("CREATE TABLE sales (id BIGINT PRIMARY KEY, name VARCHAR(20))");
        source.sql("INSERT INTO sales VALUES (1, 'a'), (2, 'b')");
        Some(Self(Mutex::new(source)))
    }

    fn sql(&self, sql: &str) {
        self.0.lock().unwrap().sql(sql);
    }
}

impl ConnectorFixture for Table {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(self.0.lock().unwrap().connector)
    }
    fn config(&self) -> Value {
        let source = self.0.lock().unwrap();
        let mut config = source.config.clone();
        let schema = crate::engine::schema(source.connector.kind());
        config["tables"] = json!({"sales": {"table": format!("{schema}.sales"), "cursor_column": "id"}});
        config
    }
    fn rows(&self) -> u64 {
        2
    }
    fn grow(&self) -> u64 {
        self.sql("INSERT INTO sales VALUES (3, 'c')");
        3
    }
    fn empty(&self) {
        self.sql("DELETE FROM sales");
    }
    fn columns(&self) -> Vec<(String, String)> {
        [("id", "BIGINT"), ("name", "VARCHAR")].map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec()
    }
    fn widen(&self) -> Option<String> {
        self.sql("ALTER TABLE sales ADD COLUMN colour VARCHAR(9)");
        Some("colour".to_owned())
    }
    fn take_down(&self) -> bool {
        self.0.lock().unwrap().down();
        true
    }
    fn bring_up(&self) {
        self.0.lock().unwrap().up();
    }
    fn secrets(&self) -> Vec<(String, String)> {
        match self.0.lock().unwrap().config["password_env"].as_str() {
            Some(name) => vec![(name.to_owned(), PASSWORD.to_owned())],
            None => Vec::new(),
        }
    }
    fn attach(&self) -> AttachPolicy {
        self.0.lock().unwrap().policy.clone()
    }
}

agnes_core::connector_suite!(
    postgres,
    super::Table::new(crate::support::Source::postgres()),
    std::sync::Arc::new(super::SqlConnector::postgres())
);
agnes_core::connector_suite!(
    mariadb,
    super::Table::new(crate::support::Source::mariadb()),
    std::sync::Arc::new(super::SqlConnector::mysql())
);
agnes_core::connector_suite!(
    sqlite,
    super::Table::new(crate::support::Source::sqlite()),
    std::sync::Arc::new(super::SqlConnector::sqlite())
);
