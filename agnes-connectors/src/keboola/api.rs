//! Calls of the Storage API. The token goes to the stack alone, and is taken out of whatever
//! the stack says.

use std::time::Duration;

use agnes_core::connector::Cancel;
use agnes_core::error::{Error, Result};
use agnes_core::ident::printable;
use agnes_core::registry::ColumnMetadata;
use agnes_core::secret::Secret;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::KeboolaError;
use super::model::{Bucket, FileDetail, Job, Table, TokenInfo};
use crate::calls::{Answered, ask, encoded, until_cancelled};
use crate::outbound::{Outbound, Request};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer; the list of a large project's tables.
const ANSWER: u64 = 256 << 20;
/// Characters that are kept of what the server says of a failure.
const WORDS: usize = 500;
/// The longest pause between two looks at a job.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The Storage API of one project.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) outbound: Outbound,
    stack: String,
    token: Secret,
    project: Option<String>,
    pub(crate) cancel: Cancel,
}

impl Api {
    pub(crate) fn new(
        outbound: Outbound,
        stack: String,
        token: Secret,
        project: Option<String>,
        cancel: Cancel,
    ) -> Self {
        Self { outbound, stack, token, project, cancel }
    }

    /// Whose token it is.
    pub(crate) async fn verify(&self) -> Result<TokenInfo> {
        self.get("verify the token", "tokens/verify").await
    }

    pub(crate) async fn buckets(&self) -> Result<Vec<Bucket>> {
        self.get("list the buckets", "buckets").await
    }

    /// All tables with their columns and buckets.
    pub(crate) async fn tables(&self) -> Result<Vec<Table>> {
        self.get("list the tables", "tables?include=columns,buckets").await
    }

    /// The tables of one bucket with their columns.
    pub(crate) async fn tables_of(&self, bucket: &str) -> Result<Vec<Table>> {
        let path = format!("buckets/{}/tables?include=columns", encoded(bucket));
        self.get("list the tables of a bucket", &path).await
    }

    pub(crate) async fn table(&self, id: &str) -> Result<Table> {
        self.get("describe the table", &format!("tables/{}", encoded(id))).await
    }

    /// Has a table exported; the job that does it.
    pub(crate) async fn export(&self, id: &str, form: &[(String, String)]) -> Result<Job> {
        let url = self.url(&format!("tables/{}/export-async", encoded(id)));
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // A second export of the same rows costs, but does no harm.
        self.call("export the table", self.outbound.post(&url).form(&form).repeatable()).await
    }

    pub(crate) async fn job(&self, id: &str) -> Result<Job> {
        self.get("look at the export's job", &format!("jobs/{}", encoded(id))).await
    }

    /// Where a file is, with credentials that open it for a while.
    pub(crate) async fn file(&self, id: &str) -> Result<FileDetail> {
        self.get("find the exported file", &format!("files/{}?federationToken=1", encoded(id))).await
    }

    /// Tells what people wrote about a column, and its type.
    pub(crate) async fn describe_column(&self, id: &str, column: &ColumnMetadata) -> Result<()> {
        let said = |key: &str, value: &Option<String>| {
            let value = value.as_deref().filter(|value| !value.trim().is_empty())?;
            Some(json!({"key": key, "value": value}))
        };
        let kind = column.basetype.as_ref().map(|kind| kind.trim().to_uppercase());
        let metadata = [said("KBC.datatype.basetype", &kind), said("KBC.description", &column.description)];
        let metadata: Vec<Value> = metadata.into_iter().flatten().collect();
        if metadata.is_empty() {
            return Ok(());
        }
        let path = format!("tables/{}/columns/{}/metadata", encoded(id), encoded(&column.column_name));
        let (url, body) = (self.url(&path), json!({"provider": "ai-metadata-enrichment", "metadata": metadata}));
        // Said twice it is said once.
        let _: Value = self.call("describe a column", self.outbound.post(&url).json(&body).repeatable()).await?;
        Ok(())
    }

    /// Waits until a job ended well. What goes wrong on the way may pass until `timeout` does.
    pub(crate) async fn finished(&self, id: &str, first_pause: Duration, timeout: Duration) -> Result<Job> {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut pause = first_pause;
        loop {
            let mut wait = pause;
            match self.job(id).await {
                Ok(job) if job.status == "success" => return Ok(job),
                Ok(job) if matches!(job.status.as_str(), "error" | "cancelled" | "terminated") => {
                    let words = self.clean(&job.words());
                    return Err(KeboolaError::JobFailed { job: job.id, words }.into());
                }
                Ok(_) => {}
                Err(error) if error.is_retryable() && !self.cancel.is_cancelled() => {
                    tracing::warn!(job = id, code = error.code(), "a job could not be looked at: {error}");
                    let asked = error.facts().and_then(|facts| facts.get("retry_after_seconds")?.as_u64());
                    wait = wait.max(Duration::from_secs(asked.unwrap_or_default()));
                }
                Err(error) => return Err(error),
            }
            if tokio::time::Instant::now() + wait >= deadline {
                return Err(KeboolaError::JobTimeout { job: printable(id, 40), seconds: timeout.as_secs() }.into());
            }
            until_cancelled(&self.cancel, async {
                tokio::time::sleep(wait).await;
                Ok(())
            })
            .await?;
            pause = pause.mul_f64(1.5).min(LONGEST_PAUSE.max(first_pause));
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v2/storage/{path}", self.stack)
    }

    async fn get<T: DeserializeOwned>(&self, call: &'static str, path: &str) -> Result<T> {
        let url = self.url(path);
        self.call(call, self.outbound.get(&url)).await
    }

    async fn call<T: DeserializeOwned>(&self, call: &'static str, request: Request<'_>) -> Result<T> {
        let request = request.header("Accept", "application/json").timeout(TIMEOUT).body_limit(ANSWER);
        let token = self.token.expose();
        // Programmatic tokens are another kind, and say apart which project they are for.
        let request = match (token.starts_with("kbc_at_") || token.starts_with("kbc_pat_"), &self.project) {
            (true, Some(project)) => request.bearer(&self.token).header("X-KBC-ProjectId", project),
            (true, None) => request.bearer(&self.token),
            (false, _) => request.header("X-StorageApi-Token", token),
        };
        let away = |reason| KeboolaError::Away { call, reason };
        let Answered { status, retry_after, body, .. } = ask(&self.cancel, request, away).await?;
        if status >= 400 {
            let words = self.words(&body);
            return Err(KeboolaError::Refused { call, status, words, retry_after }.into());
        }
        serde_json::from_slice(&body).map_err(|error| {
            tracing::debug!(call, line = error.line(), column = error.column(), "an answer is not understood");
            let reason = "it is not JSON of the expected shape";
            Error::from(KeboolaError::NotUnderstood { call, reason })
        })
    }

    /// What the server says of a failure, fit for people.
    fn words(&self, body: &[u8]) -> String {
        let parsed: Option<Value> = serde_json::from_slice(body).ok();
        let said = parsed.as_ref().and_then(|value| {
            ["error", "message", "errorMessage"].iter().find_map(|key| value.get(*key)?.as_str()).map(str::to_owned)
        });
        let text = said.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        let text = self.clean(&text);
        if text.is_empty() { text } else { format!(": {text}") }
    }

    /// `text` without token and without what follows an address, cut.
    fn clean(&self, text: &str) -> String {
        let text = self.token.scrub(text.trim());
        let words: Vec<&str> = text
            .split_ascii_whitespace()
            .map(|word| if word.contains("://") { word.split(['?', '#']).next().unwrap_or_default() } else { word })
            .collect();
        printable(&words.join(" "), WORDS)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::outbound::Rules;

    #[test]
    fn what_the_server_says_holds_no_secret() {
        let outbound = Outbound::new(Rules::default());
        let api = Api::new(outbound, "https://x".to_owned(), Secret::new("1-secret"), None, Cancel::default());
        assert_eq!(api.words(br#"{"error": "token 1-secret is bad", "code": "x"}"#), ": token *** is bad");
        let text = format!("see https://s3/x?X-Amz-Signature=abc now {}", "y".repeat(600));
        let words = api.words(text.as_bytes());
        assert!(
            words.starts_with(": see https://s3/x now yyy") && !words.contains("abc") && words.chars().count() <= 510
        );
        assert_eq!(api.words(b""), "");
    }
}
