//! Calls of Jira's REST API. The token goes to the site alone, and is taken out of whatever it
//! says.

use std::sync::Arc;
use std::time::Duration;

use agnes_core::connector::Cancel;
use agnes_core::error::{Error, ErrorKind, Result};
use agnes_core::ident::printable;
use agnes_core::secret::Secret;
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::config::Account;
use super::error::JiraError;
use crate::calls::{Answered, ask, encoded, until_cancelled};
use crate::outbound::{Outbound, Request};

/// How long one call may take, and one search.
const TIMEOUT: Duration = Duration::from_secs(30);
const SEARCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer: an issue with hundreds of long comments.
const ANSWER: u64 = 64 << 20;
/// Things of one page.
const PAGE: usize = 100;
/// Between two pages of a search.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a call waits that was told to wait, where it was not told how long; and how often.
const WAIT: Duration = Duration::from_secs(60);
const TRIES: usize = 5;
/// Whoever is asked to wait longer than this comes back another time.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Characters that are kept of what the site says of a failure.
const WORDS: usize = 300;

/// An issue in a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) key: String,
    /// What it is called whatever its key.
    pub(crate) id: Option<String>,
    pub(crate) updated: Option<i64>,
}

/// The API of one site, as one account.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) outbound: Outbound,
    pub(crate) base: String,
    basic: Secret,
    token: Secret,
    pub(crate) cancel: Cancel,
    known: Arc<OnceCell<()>>,
}

impl Api {
    pub(crate) fn new(outbound: Outbound, base: String, account: &Account, cancel: Cancel) -> Self {
        let pair = format!("{}:{}", account.email, account.token.expose());
        let basic = Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)));
        Self { outbound, base, basic, token: account.token.clone(), cancel, known: Arc::default() }
    }

    /// What opens things of this site, for a header.
    pub(crate) fn authorization(&self) -> &str {
        self.basic.expose()
    }

    /// Who the token is of.
    pub(crate) async fn myself(&self) -> Result<Value> {
        self.get("say whose token it is", "/rest/api/3/myself").await
    }

    /// That the site knows whose token it is: to nobody in particular it shows no issues, and refuses nothing.
    /// Asked once.
    pub(crate) async fn is_known(&self) -> Result<()> {
        self.known.get_or_try_init(|| async { self.myself().await.map(drop) }).await.copied()
    }

    /// Every field of the site.
    pub(crate) async fn fields(&self) -> Result<Value> {
        self.get("list the fields", "/rest/api/3/field").await
    }

    /// An issue with what is embedded in it.
    pub(crate) async fn issue(&self, key: &str) -> Result<Value> {
        let path = format!("/rest/api/3/issue/{}?expand=renderedFields,changelog&fields=*all", encoded(key));
        self.get("fetch an issue", &path).await
    }

    /// Some fields of an issue, through Atlassian's own address.
    pub(crate) async fn issue_fields(&self, cloud_id: &str, key: &str, fields: &str) -> Result<Value> {
        let path = format!("/ex/jira/{}/rest/api/3/issue/{}?fields={fields}", encoded(cloud_id), encoded(key));
        self.get("fetch service levels", &path).await
    }

    /// Links of an issue to elsewhere; `None` where the site knows none for it.
    pub(crate) async fn remote_links(&self, key: &str) -> Result<Value> {
        match self.get("list the links of an issue", &format!("/rest/api/3/issue/{}/remotelink", encoded(key))).await {
            Err(error) if error.code() == "jira_not_found" => Ok(json!([])),
            Ok(Value::Array(links)) => Ok(Value::Array(links)),
            Ok(_) => {
                let (call, reason) = ("list the links of an issue", "it is not a list");
                Err(JiraError::NotUnderstood { call, reason }.into())
            }
            Err(error) => Err(error),
        }
    }

    /// All things of a paged list of an issue (`comment`, `changelog`), told apart by id: read until
    /// there are as many as the site says.
    pub(crate) async fn all_of(&self, key: &str, list: &'static str, what: &'static str) -> Result<Vec<Value>> {
        let (name, order) = if list == "comment" { ("comments", "&orderBy=created") } else { ("values", "") };
        // What is deleted or added while pages are read moves all that follows.
        for _ in 0..3 {
            let (mut found, mut known, mut start) = (Vec::new(), std::collections::HashSet::new(), 0);
            let total = loop {
                let path =
                    format!("/rest/api/3/issue/{}/{list}?startAt={start}&maxResults={PAGE}{order}", encoded(key));
                let page = self.get("read a page of an issue", &path).await?;
                let total = page["total"].as_u64().unwrap_or_default();
                let things = page[name].as_array().cloned().unwrap_or_default();
                start += things.len();
                let end = things.is_empty() || start as u64 >= total;
                for thing in things {
                    if known.insert(thing["id"].to_string()) {
                        found.push(thing);
                    }
                }
                if end {
                    break total;
                }
            };
            if found.len() as u64 >= total {
                return Ok(found);
            }
        }
        Err(JiraError::Moving { what }.into())
    }

    /// About how many issues a search finds; `None` where the site does not count.
    pub(crate) async fn count(&self, jql: &str) -> Result<Option<u64>> {
        let url = format!("{}/rest/api/3/search/approximate-count", self.base);
        let body = json!({"jql": jql});
        let count = || {
            let request = self.outbound.post(&url).json(&body).repeatable().timeout(SEARCH_TIMEOUT);
            self.call("count issues", request)
        };
        match self.patiently(count).await {
            Ok(counted) => Ok(counted["count"].as_u64()),
            Err(error) if error.code() == "cancelled" => Err(error),
            Err(error) => {
                tracing::debug!(code = error.code(), "issues were not counted: {error}");
                Ok(None)
            }
        }
    }

    /// Every issue that a search finds, oldest first.
    pub(crate) async fn search(&self, jql: &str) -> Result<Vec<Hit>> {
        let (mut hits, mut next) = (Vec::new(), None::<String>);
        loop {
            self.cancel.check()?;
            let mut body = json!({"jql": jql, "maxResults": PAGE, "fields": ["key", "updated"]});
            if let Some(token) = &next {
                body["nextPageToken"] = token.as_str().into();
            }
            let url = format!("{}/rest/api/3/search/jql", self.base);
            let page = self
                .patiently(|| {
                    let request = self.outbound.post(&url).json(&body).repeatable().timeout(SEARCH_TIMEOUT);
                    self.call("search for issues", request)
                })
                .await?;
            for issue in page["issues"].as_array().into_iter().flatten() {
                let Some(key) = issue["key"].as_str() else { continue };
                let updated = issue["fields"]["updated"].as_str().and_then(super::rows::exact_micros);
                hits.push(Hit { key: key.to_owned(), id: issue["id"].as_str().map(str::to_owned), updated });
            }
            match page["nextPageToken"].as_str() {
                Some(token) if page["isLast"] != true && next.as_deref() != Some(token) => {
                    next = Some(token.to_owned());
                }
                _ => return Ok(hits),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A call that waits where it is told to, and is made again.
    pub(crate) async fn patiently<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut tries = 0;
        loop {
            match call().await {
                Err(error) if error.kind() == ErrorKind::RateLimited && tries < TRIES => {
                    let asked = error.facts().and_then(|facts| facts.get("retry_after_seconds")?.as_u64());
                    let wait = asked.map_or(WAIT, Duration::from_secs);
                    if wait > LONGEST_WAIT {
                        return Err(error);
                    }
                    tracing::info!(seconds = wait.as_secs(), "Jira asks to wait");
                    tries += 1;
                    until_cancelled(&self.cancel, async {
                        tokio::time::sleep(wait).await;
                        Ok(())
                    })
                    .await?;
                }
                done => return done,
            }
        }
    }

    async fn get(&self, call: &'static str, path: &str) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        self.call(call, self.outbound.get(&url).timeout(TIMEOUT)).await
    }

    async fn call(&self, call: &'static str, request: Request<'_>) -> Result<Value> {
        let request = request.header("Accept", "application/json").body_limit(ANSWER);
        let request = request.header("Authorization", self.authorization());
        let away = |reason| JiraError::Away { call, reason };
        let Answered { status, retry_after, anonymous, body } = ask(&self.cancel, request, away).await?;
        // With a token that expired a search finds nothing, and no issue is there: that is no refusal to Jira.
        let status = if anonymous && status < 500 { 401 } else { status };
        if status >= 400 {
            let words = self.words(&body);
            return Err(JiraError::Refused { call, status, words, retry_after }.into());
        }
        let reason = "it is not JSON";
        serde_json::from_slice(&body).map_err(|_| Error::from(JiraError::NotUnderstood { call, reason }))
    }

    /// What the site says of a failure, fit for people.
    fn words(&self, body: &[u8]) -> String {
        let parsed: Option<Value> = serde_json::from_slice(body).ok();
        let said = parsed.as_ref().and_then(|value| {
            let listed = value["errorMessages"].as_array().and_then(|all| all.first()?.as_str());
            listed.or_else(|| value["message"].as_str()).or_else(|| value["error"].as_str())
        });
        let text = self.basic.scrub(&self.token.scrub(said.unwrap_or_default().trim()));
        if text.is_empty() { text } else { format!(": {}", printable(&text, WORDS)) }
    }
}
