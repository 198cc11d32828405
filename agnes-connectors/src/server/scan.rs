//! Scans of a server, and what is sent to it.

use agnes_core::error::Result;
use agnes_core::local::Rows;
use agnes_core::scan::ScanRequest;
use agnes_core::workspace::SessionSink;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Call, ServerClient};

fn body(request: &ScanRequest) -> Value {
    let list = |items: &[String]| if items.is_empty() { Value::Null } else { json!(items) };
    json!({
        "table_id": request.table,
        "select": list(&request.select),
        "where": request.predicate,
        "limit": request.limit,
        "order_by": list(&request.order_by),
        "as": request.snapshot,
    })
}

impl ServerClient {
    /// What a scan would read and give, as the server says it.
    ///
    /// # Errors
    /// As [`ServerClient::ask`].
    pub async fn estimate_scan(&self, request: &ScanRequest) -> Result<Value> {
        Ok(self.ask(Call::post(&["api", "v2", "scan", "estimate"], body(request))).await?.body)
    }

    /// Rows of one table, as they come.
    ///
    /// # Errors
    /// As [`ServerClient::ask`].
    pub async fn scan(&self, request: &ScanRequest) -> Result<Rows> {
        self.rows(Call::post(&["api", "v2", "scan"], body(request)).within(self.query_timeout())).await
    }
}

#[async_trait]
impl SessionSink for ServerClient {
    async fn session(&self, name: &str, content: &[u8]) -> Result<()> {
        self.ask(Call::post(&["api", "upload", "sessions"], Value::Null).file(name, content).unlimited())
            .await
            .map(drop)
    }

    async fn notes(&self, text: &str) -> Result<()> {
        self.ask(Call::post(&["api", "upload", "local-md"], json!({"content": text}))).await.map(drop)
    }
}
