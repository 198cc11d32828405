//! Groups of people in a Google Workspace, read from the Admin SDK Directory API.
//!
//! No key is kept: the machine's own service account (metadata server) has Google sign an
//! assertion for the service account that may act for an administrator (IAM Credentials API,
//! `signJwt`; domain-wide delegation), and that assertion is exchanged for a token.
//!
//! What the operator sets up: domain-wide delegation of the scope
//! `https://www.googleapis.com/auth/admin.directory.group.readonly` to the service account, and
//! the role `roles/iam.serviceAccountTokenCreator` on it for the machine's account (which may be
//! the same).

use std::time::{Duration, Instant};

use agnes_core::identity::Directory;
use agnes_core::secret::Secret;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use url::Url;

use crate::outbound::{Outbound, OutboundError, Rules};

/// What the token may be used for.
const SCOPE: &str = "https://www.googleapis.com/auth/admin.directory.group.readonly";
/// Groups of one page, the most there are.
const PAGE: &str = "200";
/// Pages that are read; who is in more groups has no known groups.
const PAGES: usize = 50;
/// How long one call may take: somebody waits for it at the sign-in page.
const CALL: Duration = Duration::from_secs(10);
/// How long all of it may take.
const ALL: Duration = Duration::from_secs(20);
/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(60);
/// Where the machine's own service account is.
const METADATA_HOST: &str = "metadata.google.internal";

/// Where the services are.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// The metadata server, up to `/computeMetadata`.
    pub metadata: String,
    /// The IAM Credentials API, up to `/v1`.
    pub iam: String,
    /// The token endpoint.
    pub token: String,
    /// The Directory API, up to `/admin`.
    pub directory: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            metadata: format!("http://{METADATA_HOST}"),
            iam: "https://iamcredentials.googleapis.com".to_owned(),
            token: "https://oauth2.googleapis.com/token".to_owned(),
            directory: "https://admin.googleapis.com".to_owned(),
        }
    }
}

/// The directory of one Workspace.
#[derive(Debug)]
pub struct WorkspaceDirectory {
    outbound: Outbound,
    /// For the metadata server alone, which is a private address.
    metadata: Outbound,
    endpoints: Endpoints,
    /// The administrator it acts for.
    subject: String,
    /// The service account that may; the machine's own unless said.
    service_account: Option<String>,
    /// The token in use, and when it is no longer.
    token: Mutex<Option<(Secret, Instant)>>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "signedJwt")]
    signed_jwt: String,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    groups: Vec<Group>,
    #[serde(rename = "nextPageToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Group {
    email: String,
}

impl WorkspaceDirectory {
    /// The directory, read in the name of `subject` by `service_account`, else by the account
    /// of this machine.
    #[must_use]
    pub fn new(outbound: Outbound, subject: String, service_account: Option<String>) -> Self {
        let metadata = Outbound::new(Rules::default().allowing([METADATA_HOST]));
        let (endpoints, token) = (Endpoints::default(), Mutex::new(None));
        Self { outbound, metadata, endpoints, subject, service_account, token }
    }

    /// The same, with services elsewhere.
    #[must_use]
    pub fn at(self, endpoints: Endpoints) -> Self {
        Self { metadata: self.outbound.clone(), endpoints, ..self }
    }

    /// A value of the machine's own service account.
    fn of_machine(&self, what: &str) -> crate::outbound::Request<'_> {
        let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/{what}", self.endpoints.metadata);
        self.metadata.get(&url).header("metadata-flavor", "Google").timeout(CALL)
    }

    async fn account(&self) -> Result<String, OutboundError> {
        if let Some(account) = &self.service_account {
            return Ok(account.clone());
        }
        let said = self.of_machine("email").send().await?.ok()?.bytes().await?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// A token for the administrator; the one in use as long as it lasts.
    async fn token(&self) -> Result<Secret, OutboundError> {
        let mut kept = self.token.lock().await;
        if let Some((token, _)) = kept.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Ok(token.clone());
        }
        let own: Token = self.of_machine("token").send().await?.ok()?.json().await?;
        let account = self.account().await?;
        let now = chrono::Utc::now().timestamp();
        let claims = json!({
            "iss": account, "sub": self.subject, "scope": SCOPE, "aud": self.endpoints.token,
            "iat": now, "exp": now + 3600,
        });
        let account: String = url::form_urlencoded::byte_serialize(account.as_bytes()).collect();
        let url = format!("{}/v1/projects/-/serviceAccounts/{account}:signJwt", self.endpoints.iam);
        let sign = self.outbound.post(&url).bearer(&Secret::new(own.access_token)).timeout(CALL).repeatable();
        let signed: Signed = sign.json(&json!({"payload": claims.to_string()})).send().await?.ok()?.json().await?;
        let form =
            [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", signed.signed_jwt.as_str())];
        let exchange = self.outbound.post(&self.endpoints.token).timeout(CALL).repeatable().form(&form);
        let token: Token = exchange.send().await?.ok()?.json().await?;
        let life = Duration::from_secs(token.expires_in.min(3600)).saturating_sub(MARGIN);
        let secret = Secret::new(token.access_token);
        *kept = Some((secret.clone(), Instant::now() + life));
        Ok(secret)
    }

    async fn page(&self, email: &str, next: Option<&str>) -> Result<Page, OutboundError> {
        let base = format!("{}/admin/directory/v1/groups", self.endpoints.directory);
        let mut fields = vec![("userKey", email), ("maxResults", PAGE), ("fields", "groups(email),nextPageToken")];
        fields.extend(next.map(|next| ("pageToken", next)));
        let url = Url::parse_with_params(&base, fields)
            .map_err(|_| OutboundError::UrlInvalid { reason: "the directory has no valid address" })?;
        let token = self.token().await?;
        let answer = self.outbound.get(url.as_str()).bearer(&token).timeout(CALL).send().await?;
        if answer.status() == 401 {
            // Taken back before its time.
            *self.token.lock().await = None;
        }
        answer.ok()?.json().await
    }

    async fn all(&self, email: &str) -> Result<Vec<String>, OutboundError> {
        let (mut groups, mut next) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let page = self.page(email, next.as_deref()).await?;
            groups.extend(page.groups.into_iter().map(|group| group.email));
            match page.next.filter(|next| !next.is_empty()) {
                Some(more) => next = Some(more),
                None => return Ok(groups),
            }
        }
        // A part of them would look like all of them.
        Err(OutboundError::NotUnderstood { host: "the directory".to_owned(), reason: "it has too many pages" })
    }
}

#[async_trait]
impl Directory for WorkspaceDirectory {
    async fn groups_of(&self, email: &str) -> agnes_core::Result<Vec<String>> {
        let late = |_| OutboundError::TimedOut { host: "the directory".to_owned() };
        Ok(tokio::time::timeout(ALL, self.all(email)).await.map_err(late)??)
    }
}
