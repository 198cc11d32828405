//! The contract of all connectors.

use std::sync::Arc;
use std::time::Duration;

use agnes_connectors::keboola::KeboolaConnector;
use agnes_core::connector::{
    Cancel, Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext,
};
use agnes_core::error::Result;
use agnes_core::extract::TableWriter;
use agnes_core::testing::connector_suite::{ConnectorFixture, ConnectorRun};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fake::{Fake, TOKEN};

const ID: &str = "in.c-shop.sales";

struct Project(Fake, Arc<dyn Connector>);

impl Project {
    fn new() -> Self {
        let fake = Fake::start();
        fake.table("sales", &["id:INTEGER", "name", "amount:NUMERIC(12,2)"], &[&["1", "a", "1.50"], &["2", "b", ""]]);
        let project = Self(fake, Arc::new(crate::support::connector()));
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
        self.1.clone()
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
    fn hold(&self) -> Option<oneshot::Receiver<()>> {
        let (tell, told) = oneshot::channel();
        self.0.state().held = Some(tell);
        Some(told)
    }
}

agnes_core::connector_suite!(a_project, Some(super::Project::new()), std::sync::Arc::new(crate::support::connector()));

/// One that asks whether it was cancelled as it begins, and never again.
#[derive(Debug)]
struct Deaf(KeboolaConnector);

#[async_trait::async_trait]
impl Connector for Deaf {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }
    fn capability(&self) -> Capability {
        self.0.capability()
    }
    fn normalise_config(&self, config: &Value) -> Result<Value> {
        self.0.normalise_config(config)
    }
    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        self.0.check(source).await
    }
    async fn discover(&self, source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        self.0.discover(source).await
    }
    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        source.cancel.check()?;
        self.0.extract(&SourceContext { cancel: Cancel::default(), ..source.clone() }, request, writer).await
    }
}

#[tokio::test]
async fn one_that_does_not_listen_while_it_reads_breaks_the_contract() {
    let project = Project(Project::new().0, Arc::new(Deaf(crate::support::connector())));
    let run = ConnectorRun::new(&project).unwrap();
    let request = run.request().await.unwrap();
    let ended = run.cancel_held(&request, project.hold().unwrap(), Duration::from_secs(1)).await;
    assert!(ended.is_none(), "{ended:?}");
}
