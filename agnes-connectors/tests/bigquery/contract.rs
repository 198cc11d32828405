//! The contract of all connectors.

use std::sync::Arc;

use agnes_connectors::bigquery::BigQueryConnector;
use agnes_connectors::outbound::{Outbound, Rules};
use agnes_core::connector::Connector;
use agnes_core::testing::connector_suite::ConnectorFixture;
use serde_json::{Value, json};

use crate::emulator::{Emulator, PROJECT};
use crate::google::Google;

fn connector() -> Arc<dyn Connector> {
    Arc::new(BigQueryConnector::new(Outbound::new(Rules::default().allowing(["127.0.0.1"]))))
}

struct Project {
    emulator: Emulator,
    google: Google,
}

impl Project {
    fn new() -> Option<Self> {
        let emulator = Emulator::start(&[
            "CREATE SCHEMA shop",
            "CREATE TABLE shop.sales (id INT64, name STRING, amount NUMERIC)",
            "INSERT INTO shop.sales VALUES (1, 'a', NUMERIC '1.50'), (2, 'b', NULL)",
        ])?;
        Some(Self { emulator, google: Google::start() })
    }
}

impl ConnectorFixture for Project {
    fn connector(&self) -> Arc<dyn Connector> {
        connector()
    }
    fn config(&self) -> Value {
        let (rest, grpc) = self.emulator.addresses();
        json!({"project": PROJECT, "endpoint": rest, "storage_endpoint": grpc})
    }
    fn secrets(&self) -> Vec<(String, String)> {
        vec![("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), self.google.key())]
    }
    fn rows(&self) -> u64 {
        let answer = self.emulator.run("SELECT count(*) FROM shop.sales");
        answer.pointer("/rows/0/f/0/v").unwrap().as_str().unwrap().parse().unwrap()
    }
    fn grow(&self) -> u64 {
        self.emulator.run("INSERT INTO shop.sales VALUES (3, 'c', NUMERIC '3')");
        3
    }
    fn empty(&self) {
        self.emulator.run("DELETE FROM shop.sales WHERE true");
    }
    fn columns(&self) -> Vec<(String, String)> {
        let columns = [("id", "BIGINT"), ("name", "VARCHAR"), ("amount", "DECIMAL(38,9)")];
        columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec()
    }
    fn widen(&self) -> Option<String> {
        self.emulator.run("ALTER TABLE shop.sales ADD COLUMN more STRING");
        Some("more".to_owned())
    }
    fn take_down(&self) -> bool {
        self.emulator.stop();
        true
    }
    fn bring_up(&self) {
        self.emulator.start_again();
    }
}

agnes_core::connector_suite!(a_project, super::Project::new(), super::connector());
