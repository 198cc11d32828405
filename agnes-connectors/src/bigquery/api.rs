//! Calls of BigQuery's REST API.

use std::sync::Arc;
use std::time::Duration;

use agnes_core::connector::{Cancel, WarehouseEstimate};
use agnes_core::error::{Error, Result};
use agnes_core::ident::printable;
use agnes_core::secret::Secret;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::auth::Access;
use super::config::BigQueryConfig;
use super::error::{BigQueryError, is_too_large};
use super::model::{Dataset, Datasets, Job, JobReference, Listed, Page, Rows, Said, Table, TableReference, Tables};
use crate::calls::{Answered, ask, encoded, until_cancelled};
use crate::outbound::{Outbound, Request};

const TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER: u64 = 256 << 20;
const WORDS: usize = 500;
/// Rows of one page of a result.
const PAGE: u32 = 50_000;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The API for one run.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) outbound: Outbound,
    pub(crate) access: Arc<Access>,
    pub(crate) config: BigQueryConfig,
    pub(crate) cancel: Cancel,
}

impl Api {
    /// Datasets of the data's project.
    pub(crate) async fn datasets(&self) -> Result<Vec<Dataset>> {
        self.pages::<Datasets>("list the datasets", &format!("projects/{}/datasets", self.config.project()?)).await
    }

    pub(crate) async fn tables(&self, dataset: &str) -> Result<Vec<Listed>> {
        let path = format!("projects/{}/datasets/{}/tables", self.config.project()?, encoded(dataset));
        self.pages::<Tables>("list the tables of a dataset", &path).await
    }

    pub(crate) async fn table(&self, table: &TableReference) -> Result<Table> {
        let path = format!(
            "projects/{}/datasets/{}/tables/{}",
            encoded(&table.project_id),
            encoded(&table.dataset_id),
            encoded(&table.table_id)
        );
        self.call("describe the table", self.outbound.get(&self.url(&path))).await
    }

    /// What a query would read, and whether it writes.
    pub(crate) async fn estimate(&self, sql: &str) -> Result<WarehouseEstimate> {
        let query = json!({"query": sql, "useLegacySql": false, "useQueryCache": false});
        let body = json!({"configuration": {"query": query, "dryRun": true}, "jobReference": self.reference(None)?});
        let path = format!("projects/{}/jobs", self.config.billing()?);
        let request = self.outbound.post(&self.url(&path)).json(&body).repeatable();
        let call = "estimate the query";
        let job: Job = self.call(call, request).await?;
        let bytes = job.statistics.total_bytes_processed;
        let bytes = bytes.ok_or(BigQueryError::NotUnderstood { call, reason: "it does not say how much is read" })?;
        let kind = job.statistics.query.and_then(|query| query.statement_type);
        let only_reads = kind.as_deref() == Some("SELECT");
        Ok(WarehouseEstimate { bytes, only_reads })
    }

    /// Starts a query that may read `most` bytes; `asker` stands for a person in Google's books.
    pub(crate) async fn start(&self, sql: &str, most: Option<u64>, asker: Option<&str>) -> Result<Job> {
        // The id is ours: a request that is sent twice starts one job.
        let id = format!("agnes_{}", uuid::Uuid::new_v4().simple());
        let mut query = json!({"query": sql, "useLegacySql": false});
        if let Some(most) = most {
            query["maximumBytesBilled"] = most.to_string().into();
        }
        let labels = match asker {
            None => json!({"workload_type": "agnes"}),
            Some(asker) => json!({"workload_type": "agnes_query", "user_id": asker}),
        };
        let body =
            json!({"configuration": {"query": query, "labels": labels}, "jobReference": self.reference(Some(&id))?});
        let path = format!("projects/{}/jobs", self.config.billing()?);
        let request = self.outbound.post(&self.url(&path)).json(&body).repeatable();
        match self.call("start the query", request).await {
            Err(error) if error.facts().is_some_and(|facts| facts["status"] == 409) => {
                self.job(&JobReference { job_id: id, location: self.config.location.clone() }).await
            }
            started => started,
        }
    }

    /// Waits until a job ended well; cancels one that does not.
    pub(crate) async fn finished(&self, job: Job) -> Result<Job> {
        let reference = job.job_reference.clone();
        let reference =
            reference.ok_or(BigQueryError::NotUnderstood { call: "start the query", reason: "it names no job" })?;
        let timeout = self.config.job_timeout();
        let deadline = tokio::time::Instant::now() + timeout;
        let (mut job, mut pause) = (job, FIRST_PAUSE);
        while job.status.state != "DONE" {
            if tokio::time::Instant::now() + pause >= deadline {
                self.cancel_job(&reference).await;
                return Err(BigQueryError::JobTimeout { seconds: timeout.as_secs() }.into());
            }
            let waited = until_cancelled(&self.cancel, async {
                tokio::time::sleep(pause).await;
                Ok(())
            });
            if let Err(ended) = waited.await {
                self.cancel_job(&reference).await;
                return Err(ended);
            }
            pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
            job = match self.job(&reference).await {
                Ok(job) => job,
                Err(error) if error.is_retryable() && !self.cancel.is_cancelled() => {
                    tracing::warn!(code = error.code(), "a job could not be looked at: {error}");
                    continue;
                }
                Err(error) => {
                    self.cancel_job(&reference).await;
                    return Err(error);
                }
            };
        }
        match &job.status.error_result {
            None => Ok(job),
            Some(said) => Err(self.of_job(said).into()),
        }
    }

    fn of_job(&self, said: &Said) -> BigQueryError {
        let words = self.clean(&said.message);
        match said.reason.as_str() {
            "responseTooLarge" => BigQueryError::ResponseTooLarge { words },
            _ if is_too_large(&words) => BigQueryError::ResponseTooLarge { words },
            "invalidQuery" => BigQueryError::Query { words },
            reason @ ("quotaExceeded"
            | "rateLimitExceeded"
            | "jobRateLimitExceeded"
            | "backendError"
            | "internalError"
            | "jobBackendError"
            | "jobInternalError"
            | "accessDenied"
            | "notFound"
            | "bytesBilledLimitExceeded") => {
                let status = match reason {
                    "accessDenied" => 403,
                    "notFound" => 404,
                    "bytesBilledLimitExceeded" => return BigQueryError::Query { words },
                    // Google's own trouble: the same job may end well the next time.
                    "backendError" | "internalError" | "jobBackendError" | "jobInternalError" => 503,
                    _ => 429,
                };
                let reason = reason.to_owned();
                let words = format!(": {words}");
                BigQueryError::Refused { call: "run the query", status, reason, words, retry_after: None }
            }
            _ => BigQueryError::JobFailed { words },
        }
    }

    async fn job(&self, reference: &JobReference) -> Result<Job> {
        let path = format!("projects/{}/jobs/{}", self.config.billing()?, encoded(&reference.job_id));
        let url = self.located(&self.url(&path), reference, '?');
        self.call("look at the job", self.outbound.get(&url)).await
    }

    /// Has a job end that nobody waits for any more.
    async fn cancel_job(&self, reference: &JobReference) {
        let Ok(billing) = self.config.billing() else { return };
        let path = format!("projects/{billing}/jobs/{}/cancel", encoded(&reference.job_id));
        let url = self.located(&self.url(&path), reference, '?');
        // Although the run has ended.
        let api = Self { cancel: Cancel::default(), ..self.clone() };
        let request = api.outbound.post(&url).json(&json!({})).timeout(Duration::from_secs(10)).repeatable();
        if let Err(error) = api.call::<Value>("cancel the job", request).await {
            tracing::warn!(code = error.code(), "a job could not be cancelled: {error}");
        }
    }

    /// A page of a job's rows.
    pub(crate) async fn rows(&self, reference: &JobReference, page: Option<&str>) -> Result<Rows> {
        let path = format!("projects/{}/queries/{}", self.config.billing()?, encoded(&reference.job_id));
        let url = format!("{}?maxResults={PAGE}&formatOptions.useInt64Timestamp=true", self.url(&path));
        let mut url = self.located(&url, reference, '&');
        if let Some(page) = page {
            url.push_str(&format!("&pageToken={}", encoded(page)));
        }
        self.call("read the rows", self.outbound.get(&url)).await
    }

    fn located(&self, url: &str, reference: &JobReference, mark: char) -> String {
        match reference.location.as_ref().or(self.config.location.as_ref()) {
            Some(location) => format!("{url}{mark}location={}", encoded(location)),
            None => url.to_owned(),
        }
    }

    fn reference(&self, id: Option<&str>) -> Result<Value> {
        let mut reference = json!({"projectId": self.config.billing()?});
        if let Some(id) = id {
            reference["jobId"] = id.into();
        }
        if let Some(location) = &self.config.location {
            reference["location"] = location.as_str().into();
        }
        Ok(reference)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/bigquery/v2/{path}", self.config.rest())
    }

    async fn pages<P: Page + DeserializeOwned>(&self, call: &'static str, path: &str) -> Result<Vec<P::Item>> {
        let (mut all, mut token) = (Vec::new(), None::<String>);
        loop {
            let mut url = format!("{}?maxResults=1000", self.url(path));
            if let Some(token) = &token {
                url.push_str(&format!("&pageToken={}", encoded(token)));
            }
            let page: P = self.call(call, self.outbound.get(&url)).await?;
            let (items, next) = page.items();
            all.extend(items);
            token = next.filter(|next| !next.is_empty() && Some(next) != token.as_ref());
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Does something with the token, once more where that ended.
    pub(crate) async fn with_token<T, F>(&self, work: impl Fn(Secret) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let token = self.access.shown();
        match work(token.clone()).await {
            Err(error) if is_refused(&error) => work(self.access.renew(&token).await?).await,
            done => done,
        }
    }

    async fn call<T: DeserializeOwned>(&self, call: &'static str, request: Request<'_>) -> Result<T> {
        self.with_token(|token| self.once(call, request.clone().bearer(&token))).await
    }

    async fn once<T: DeserializeOwned>(&self, call: &'static str, request: Request<'_>) -> Result<T> {
        let request = request.header("Accept", "application/json");
        let request = request.header("X-Goog-User-Project", self.config.billing()?);
        let request = request.timeout(TIMEOUT).body_limit(ANSWER);
        let away = |reason| BigQueryError::Away { call, reason };
        let Answered { status, retry_after, body, .. } = ask(&self.cancel, request, away).await?;
        if status >= 400 {
            return Err(self.refused(call, status, retry_after, &body).into());
        }
        serde_json::from_slice(&body).map_err(|error| {
            tracing::debug!(call, line = error.line(), column = error.column(), "an answer is not understood");
            let reason = "it is not JSON of the expected shape";
            Error::from(BigQueryError::NotUnderstood { call, reason })
        })
    }

    fn refused(&self, call: &'static str, status: u16, retry_after: Option<u64>, body: &[u8]) -> BigQueryError {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let first = said.pointer("/error/errors/0").cloned().unwrap_or_default();
        let said = Said {
            reason: first["reason"].as_str().unwrap_or_default().to_owned(),
            message: said.pointer("/error/message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        };
        let words = self.clean(&said.message);
        if said.reason == "responseTooLarge" || is_too_large(&words) {
            return BigQueryError::ResponseTooLarge { words };
        }
        let plain = words.to_ascii_lowercase();
        if status == 403
            && ["serviceusage", "service usage"].iter().any(|words| plain.contains(words))
            && let (Ok(billing), Ok(data)) = (self.config.billing(), self.config.project())
        {
            let words = format!(": {words}");
            return BigQueryError::CrossProject { call, billing: billing.to_owned(), data: data.to_owned(), words };
        }
        if said.reason == "invalidQuery" {
            return BigQueryError::Query { words };
        }
        let words = if words.is_empty() { words } else { format!(": {words}") };
        BigQueryError::Refused { call, status, reason: said.reason, words, retry_after }
    }

    /// What Google says, fit for people.
    pub(crate) fn clean(&self, text: &str) -> String {
        printable(self.access.shown().scrub(text.trim()).trim(), WORDS)
    }
}

/// Whether it was the token that was refused.
pub(crate) fn is_refused(error: &Error) -> bool {
    error.code() == "bigquery_token_refused"
}
