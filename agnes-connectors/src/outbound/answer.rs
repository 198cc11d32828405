//! What a host answered: status, headers, and a body that is read up to a limit.

use serde::de::DeserializeOwned;

use super::StatusCode;
use super::error::OutboundError;
use super::rules::shown;

/// What a host answered.
#[derive(Debug)]
pub struct Answer {
    response: reqwest::Response,
    host: String,
    limit: u64,
    read: u64,
}

impl Answer {
    pub(super) fn new(response: reqwest::Response, host: String, limit: u64) -> Self {
        Self { response, host, limit, read: 0 }
    }

    /// The status; every status is an answer until [`Answer::ok`] is asked.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The first value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// This answer, if its status says success.
    ///
    /// # Errors
    /// `host_refused` with the status.
    pub fn ok(self) -> Result<Self, OutboundError> {
        if self.status().is_success() {
            return Ok(self);
        }
        Err(OutboundError::Status { host: shown(&self.host), status: self.status().as_u16() })
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// `answer_too_large` as soon as it is, `answer_broken_off`, `host_timed_out`.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, OutboundError> {
        let announced = self.response.content_length().unwrap_or_default();
        let chunk = match announced > self.limit {
            true => None,
            false => self.response.chunk().await.map_err(|e| OutboundError::of(&self.host, e))?,
        };
        self.read += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if announced.max(self.read) > self.limit {
            return Err(OutboundError::TooLarge { host: shown(&self.host), limit: self.limit });
        }
        Ok(chunk.map(|chunk| chunk.to_vec()))
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Answer::chunk`].
    pub async fn bytes(mut self) -> Result<Vec<u8>, OutboundError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// The whole body, which has to be JSON of this shape.
    ///
    /// # Errors
    /// As [`Answer::chunk`]; `answer_not_understood`.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, OutboundError> {
        let host = shown(&self.host);
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            // The parser's words hold none of the values but positions and kinds.
            tracing::debug!(
                host,
                line = error.line(),
                column = error.column(),
                "an answer is not the JSON it should be"
            );
            OutboundError::NotUnderstood { host, reason: "it is not JSON of the expected shape" }
        })
    }
}
