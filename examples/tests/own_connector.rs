//! The connector of the guide keeps the contract of all connectors, and the guide shows it as
//! it is.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use agnes_core::connector::Connector;
use agnes_core::testing::connector_suite::ConnectorFixture;
use serde_json::{Value, json};

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../own_connector.rs"]
mod own_connector;

use own_connector::Pond;

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Option<Self> {
        let fixture = Self(tempfile::tempdir().unwrap());
        fixture.put("1 mallard\n2 teal\n");
        Some(fixture)
    }

    fn put(&self, text: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.0.path().join("pond.txt")).unwrap();
    }
}

impl ConnectorFixture for Fixture {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(Pond)
    }
    fn config(&self) -> Value {
        json!({"path": self.0.path().join("pond.txt")})
    }
    fn rows(&self) -> u64 {
        2
    }
    fn grow(&self) -> u64 {
        self.put("1 mallard\n2 teal\n3 pintail\n");
        3
    }
    fn empty(&self) {
        self.put("");
    }
    fn columns(&self) -> Vec<(String, String)> {
        vec![("id".to_owned(), "BIGINT".to_owned()), ("species".to_owned(), "VARCHAR".to_owned())]
    }
}

agnes_core::connector_suite!(contract, super::Fixture::new(), std::sync::Arc::new(super::Pond));

#[test]
fn the_guide_shows_the_connector_that_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = std::fs::read_to_string(root.join("own_connector.rs")).unwrap();
    let guide = std::fs::read_to_string(root.join("../docs/adding-a-connector.md")).unwrap();
    let shown = guide.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(shown, code);
    assert!(code.lines().count() < 100, "{} lines", code.lines().count());
}
