//! The contract of all connectors.

use std::sync::Arc;

use agnes_core::connector::Connector;
use agnes_core::testing::connector_suite::ConnectorFixture;
use serde_json::Value;

use crate::fake::{Fake, SECRET, TOKEN};

struct Site(Fake);

impl Site {
    fn new() -> Self {
        let fake = Fake::start();
        fake.create("HELP", "one");
        fake.create("HELP", "two");
        Self(fake)
    }
}

impl ConnectorFixture for Site {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(crate::support::connector())
    }
    fn config(&self) -> Value {
        self.0.config()
    }
    fn secrets(&self) -> Vec<(String, String)> {
        vec![("JIRA_API_TOKEN".to_owned(), TOKEN.to_owned()), ("JIRA_WEBHOOK_SECRET".to_owned(), SECRET.to_owned())]
    }
    fn rows(&self) -> u64 {
        self.0.state().issues.len() as u64
    }
    fn grow(&self) -> u64 {
        self.0.create("HELP", "three");
        self.rows()
    }
    fn empty(&self) {
        self.0.state().issues.clear();
    }
    fn columns(&self) -> Vec<(String, String)> {
        crate::support::ISSUES.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    }
    fn take_down(&self) -> bool {
        self.0.fault("", 503, &[], "down", u32::MAX);
        true
    }
    fn bring_up(&self) {
        self.0.state().faults.clear();
    }
}

agnes_core::connector_suite!(a_site, Some(super::Site::new()), std::sync::Arc::new(crate::support::connector()));
