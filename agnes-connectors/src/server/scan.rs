//! Scans of a server, and what is sent to it.

use std::io::Write as _;
use std::sync::atomic::Ordering;

use agnes_core::error::{Error, Result};
use agnes_core::local::Rows;
use agnes_core::scan::ScanRequest;
use agnes_core::workspace::SessionSink;
use async_trait::async_trait;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::ACCEPT_ENCODING;
use serde_json::{Value, json};

use super::{Call, ServerClient};

fn packed(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(content)?;
    packer.finish()
}

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
        let call = Call::post(&["api", "upload", "sessions"], Value::Null).unlimited();
        let call = if self.unpacks.load(Ordering::Relaxed) {
            call.file(&format!("{name}.gz"), &packed(content).map_err(|e| Error::io("pack a session", e))?)
        } else {
            call.file(name, content)
        };
        let response = self.send(call).await?;
        // RFC 7694: what a server takes, it says when it was sent something.
        let takes = response.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let unpacks = takes.is_some_and(|takes| takes.split(',').any(|coding| coding.trim() == "gzip"));
        self.unpacks.store(unpacks, Ordering::Relaxed);
        self.answer(response).await.map(drop)
    }

    async fn notes(&self, text: &str) -> Result<()> {
        self.ask(Call::post(&["api", "upload", "local-md"], json!({"content": text}))).await.map(drop)
    }
}
