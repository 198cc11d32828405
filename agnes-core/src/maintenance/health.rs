//! Whether the engine answers. Nothing of anybody's data is in these answers.

use std::time::Duration;

use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::rbac::{ClientKind, Principal};

/// How long the catalog may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// Whether the state can be read.
    ///
    /// # Errors
    /// What the state said.
    pub async fn probe_state(&self) -> Result<()> {
        self.store().schema().await.map(drop)
    }

    /// Whether a small query over the published catalog is answered, on the way that every
    /// query goes, but without an audit row.
    ///
    /// # Errors
    /// Those of a query, `timeout` after five seconds.
    pub async fn probe_query(&self) -> Result<()> {
        let owner = Principal::trusted_owner_of_the_data_folder("health probe without an answer", ClientKind::Api);
        crate::query::probe(self, &CallContext::new(owner).with_timeout(PATIENCE)).await
    }

    /// Number of the published catalog; 0 before the first.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.generation().number
    }
}
