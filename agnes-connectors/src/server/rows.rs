//! Rows of a query that a server answers: Arrow as it comes.

use std::collections::VecDeque;

use agnes_core::error::{Error, Result};
use agnes_core::local::{RowSource, Rows};
use agnes_core::query::{Query, QueryError, Receipt};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{Call, ServerClient, ServerError};

impl ServerClient {
    /// Asks a query of the server, and gives its rows as they come. Dropping them ends the query.
    ///
    /// # Errors
    /// As [`ServerClient::ask`]; `query_timeout`.
    pub async fn query(&self, query: &Query) -> Result<Rows> {
        let mut body = json!({
            "sql": query.sql,
            "params": query.params.to_json(),
            "receipt": query.receipt,
            "limit": query.limit,
        });
        if !query.frames.is_empty() {
            body["frames"] = serde_json::to_value(&query.frames).map_err(|e| Error::internal("send a frame", e))?;
        }
        let call = Call::post(&["api", "query"], body).within(self.query_timeout());
        self.rows(call).await
    }

    /// Asks what is answered with rows.
    pub(super) async fn rows(&self, call: Call) -> Result<Rows> {
        let call = call.header("accept", "application/vnd.apache.arrow.stream").header("te", "trailers");
        let limit = call.timeout;
        let response = self.try_send(call).await.map_err(|error| match (error, limit) {
            (ServerError::Late { .. }, Some(limit)) => QueryError::Timeout { seconds: limit.as_secs() }.into(),
            (error, _) => Error::from(error),
        })?;
        let mut rows = Arriving {
            client: self.clone(),
            end: response.headers().clone(),
            body: Some(response.into()),
            decoder: StreamDecoder::new(),
            buffer: Buffer::default(),
            waiting: VecDeque::new(),
        };
        let schema = rows.schema().await?;
        Ok(Rows::of(schema, Box::new(rows)))
    }
}

struct Arriving {
    client: ServerClient,
    /// What is said of the end: in the head, or in trailers.
    end: HeaderMap,
    body: Option<reqwest::Body>,
    decoder: StreamDecoder,
    buffer: Buffer,
    waiting: VecDeque<RecordBatch>,
}

impl Arriving {
    fn unreadable(&self, error: &ArrowError) -> Error {
        self.client.not_understood(format!("its rows cannot be read: {error}")).into()
    }

    /// Reads as far as the columns.
    async fn schema(&mut self) -> Result<SchemaRef> {
        while self.decoder.schema().is_none() && self.more().await? {}
        self.decoder.schema().ok_or_else(|| self.client.not_understood("its rows have no columns").into())
    }

    /// Takes the next bytes; whether there were any.
    async fn more(&mut self) -> Result<bool> {
        if self.buffer.is_empty() {
            let Some(body) = &mut self.body else { return Ok(false) };
            match body.frame().await {
                None => {
                    self.body = None;
                    self.decoder.finish().map_err(|error| self.unreadable(&error))?;
                    return Ok(false);
                }
                Some(frame) => match frame.map_err(|error| self.client.broke_off(error))?.into_data() {
                    Ok(bytes) => self.buffer = Buffer::from(bytes),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.end.extend(trailers);
                        }
                        return Ok(true);
                    }
                },
            }
        }
        if let Some(batch) = self.decoder.decode(&mut self.buffer).map_err(|error| self.unreadable(&error))?
            && batch.num_rows() > 0
        {
            self.waiting.push_back(batch);
        }
        Ok(true)
    }
}

#[async_trait]
impl RowSource for Arriving {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.waiting.is_empty() && self.more().await? {}
        Ok(self.waiting.pop_front())
    }

    fn end(&mut self) -> (bool, Option<Receipt>) {
        let field = |name: &str| self.end.get(name).and_then(|value| value.to_str().ok());
        let receipt = field("x-agnes-receipt").and_then(|text| serde_json::from_str::<Value>(text).ok());
        let receipt = receipt.and_then(|value| serde_json::from_value(value).ok());
        (field("x-agnes-truncated") == Some("true"), receipt)
    }
}
