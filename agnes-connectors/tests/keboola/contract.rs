//! The contract of all connectors.

use std::sync::Arc;

use agnes_core::connector::Connector;
use agnes_core::testing::connector_suite::ConnectorFixture;
use serde_json::{Value, json};

use crate::fake::{Fake, TOKEN};

const ID: &str = "in.c-shop.sales";

struct Project(Fake);

impl Project {
    fn new() -> Self {
        let fake = Fake::start();
        fake.table("sales", &["id:INTEGER", "name", "amount:NUMERIC(12,2)"], &[&["1", "a", "1.50"], &["2", "b", ""]]);
        let project = Self(fake);
        project.stamp("2020-01-01");
        project
    }

    /// Says when the table changed.
    fn stamp(&self, day: &str) {
        self.0.state().tables.get_mut(ID).unwrap().stamp = Some(format!("{day}T00:00:00+0100"));
    }
}

impl ConnectorFixture for Project {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(crate::support::connector())
    }
    fn config(&self) -> Value {
        json!({"stack_url": self.0.url, "poll_interval_seconds": 0.01})
    }
    fn secrets(&self) -> Vec<(String, String)> {
        vec![("KEBOOLA_STORAGE_TOKEN".to_owned(), TOKEN.to_owned())]
    }
    fn rows(&self) -> u64 {
        self.0.state().tables[ID].rows.len() as u64
    }
    fn grow(&self) -> u64 {
        self.stamp("2020-02-01");
        self.0.upsert(ID, chrono::Utc::now().timestamp(), &[&["3", "c", "3"]]);
        3
    }
    fn empty(&self) {
        self.stamp("2020-03-01");
        self.0.state().tables.get_mut(ID).unwrap().rows.clear();
    }
    fn columns(&self) -> Vec<(String, String)> {
        let columns = [("id", "BIGINT"), ("name", "VARCHAR"), ("amount", "DECIMAL(12,2)")];
        columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec()
    }
    fn widen(&self) -> Option<String> {
        self.stamp("2020-04-01");
        let mut state = self.0.state();
        let table = state.tables.get_mut(ID).unwrap();
        table.columns.push("more".to_owned());
        table.rows.iter_mut().for_each(|row| row.values.push(String::new()));
        Some("more".to_owned())
    }
    fn take_down(&self) -> bool {
        self.0.fault("", 503, &[], "down", u32::MAX);
        true
    }
    fn bring_up(&self) {
        self.0.state().faults.clear();
    }
}

agnes_core::connector_suite!(a_project, Some(super::Project::new()), std::sync::Arc::new(crate::support::connector()));
