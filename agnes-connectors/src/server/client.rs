//! Asks a server over HTTP.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use agnes_core::error::Result;
use agnes_core::secret::Secret;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;

use super::{Call, ServerError};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a call without a limit waits for the first of its answer.
const LONG: Duration = Duration::from_secs(3600);
/// After so long without a byte the system asks whether the other side is still there.
const ALIVE: Duration = Duration::from_secs(30);
/// Longest answer that is read as JSON.
const LONGEST: usize = 256 << 20;

/// How a server is asked.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Certificates to trust beside the system's own, PEM.
    pub ca_file: Option<PathBuf>,
    /// How long a query may take.
    pub query_timeout: Duration,
    /// How long files, and answers that have begun, may bring nothing.
    pub silence: Duration,
    /// As whom the client shows itself, e.g. `agnes/0.1.0 (linux)`.
    pub agent: String,
    /// Version of the client, for servers that take none this old.
    pub version: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let agent = format!("agnes/{version} ({})", std::env::consts::OS);
        let (query_timeout, silence) = (Duration::from_secs(300), Duration::from_secs(60));
        Self { ca_file: None, query_timeout, silence, agent, version }
    }
}

/// An answer with JSON.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The JSON; null where there is none.
    pub body: Value,
}

/// A server, asked on behalf of one person. Cheap to clone.
#[derive(Clone)]
pub struct ServerClient {
    http: reqwest::Client,
    server: Url,
    name: String,
    token: Option<Secret>,
    /// Why what was kept of a token is not had.
    withheld: Option<ServerError>,
    see_as: Option<String>,
    options: Arc<ServerOptions>,
    /// Whether the server said that it unpacks what it is sent.
    pub(super) unpacks: Arc<AtomicBool>,
}

impl std::fmt::Debug for ServerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerClient").field("server", &self.name).finish_non_exhaustive()
    }
}

impl ServerClient {
    /// A client of the server at this address: scheme, host, and what it needs besides.
    ///
    /// # Errors
    /// `bad_server_address`, `bad_certificates`.
    pub fn new(server: &str, token: Option<Secret>, options: ServerOptions) -> Result<Self> {
        let (url, name) = address(server)?;
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .tcp_keepalive(ALIVE)
            .tcp_keepalive_interval(ALIVE)
            .tcp_keepalive_retries(4)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(&options.agent);
        if let Some(file) = &options.ca_file {
            let read = std::fs::read(file).ok().and_then(|pem| reqwest::Certificate::from_pem_bundle(&pem).ok());
            let trusted = read.filter(|trusted| !trusted.is_empty()).ok_or(ServerError::BadCertificates)?;
            http = http.tls_certs_merge(trusted);
        }
        let http = http.build().map_err(|e| agnes_core::Error::internal("make a client", e))?;
        let options = options.into();
        Ok(Self { http, server: url, name, token, withheld: None, see_as: None, options, unpacks: Arc::default() })
    }

    /// A client of the same server that asks what somebody else, by id or address, would be
    /// answered. For admins.
    #[must_use]
    pub fn seeing_as(&self, user: &str) -> Self {
        Self { see_as: Some(user.to_owned()), ..self.clone() }
    }

    /// A client of the same server whose queries may take this long.
    #[must_use]
    pub fn answering_queries_within(&self, timeout: Duration) -> Self {
        let options = ServerOptions { query_timeout: timeout, ..(*self.options).clone() };
        Self { options: options.into(), ..self.clone() }
    }

    /// A client of the server at this address with `token`, else with what `account` or the
    /// environment keeps for it.
    ///
    /// # Errors
    /// `bad_server_address`, `bad_certificates`, `bad_token_store`.
    pub fn signed_in(
        server: &str,
        token: Option<Secret>,
        mut options: ServerOptions,
        account: &super::Account,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        if options.ca_file.is_none() {
            options.ca_file = match account.authority_of(&address(server)?.1) {
                Err(error) if error.code() == "account_unreadable" => None,
                kept => kept?,
            };
        }
        let mut client = Self::new(server, token, options)?;
        if client.token.is_none() {
            match account.token(&client.name, env) {
                // Told once it is needed: to sign in again it is not.
                Err(error) if error.code() == "no_keyring" => client.withheld = Some(ServerError::NoKeyring),
                Err(error) if error.code() == "account_unreadable" => {
                    client.withheld = Some(ServerError::AccountUnreadable);
                }
                kept => client.token = kept?.map(|kept| kept.token),
            }
        }
        Ok(client)
    }

    /// Its address, without a slash at the end.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.name
    }

    /// Whether it asks on behalf of anybody.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Why it asks on behalf of nobody.
    #[must_use]
    pub fn without_token(&self) -> ServerError {
        let nobody = || ServerError::NotSignedIn { server: self.name.clone() };
        self.withheld.clone().unwrap_or_else(nobody)
    }

    /// How long a query may take.
    #[must_use]
    pub fn query_timeout(&self) -> Duration {
        self.options.query_timeout
    }

    /// An address of the server.
    #[must_use]
    pub fn address_of(&self, path: &[&str]) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Asks, and reads JSON.
    ///
    /// # Errors
    /// `not_signed_in`, `server_unreachable`, `server_not_understood`, `client_too_old`, and what the
    /// server says no with.
    pub async fn ask(&self, call: Call) -> Result<Answer> {
        self.answer(self.send(call).await?).await
    }

    /// What an answer says, in JSON.
    pub(super) async fn answer(&self, response: Response) -> Result<Answer> {
        let status = response.status().as_u16();
        let text = self.text(response).await?;
        if text.is_empty() {
            return Ok(Answer { status, body: Value::Null });
        }
        let body = serde_json::from_slice(&text).map_err(|_| self.not_understood("the answer is no JSON"))?;
        Ok(Answer { status, body })
    }

    /// Asks, and reads bytes: not more than `longest`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn bytes(&self, call: Call, longest: usize) -> Result<Vec<u8>> {
        let response = self.send(call).await?;
        self.read_up_to(response, longest).await
    }

    /// Asks for something that only has to be there.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn page(&self, call: Call) -> Result<()> {
        self.send(call).await.map(drop)
    }

    /// Asks, and gives the answer as it comes, when its status is one of success, or 304.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) async fn send(&self, call: Call) -> Result<Response> {
        Ok(self.try_send(call).await?)
    }

    pub(super) async fn try_send(&self, call: Call) -> Result<Response, ServerError> {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let mut url = self.address_of(&path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.http.request(call.method, url).header(ACCEPT, "application/json");
        if !call.is_public {
            let token = self.token.as_ref().ok_or_else(|| self.without_token())?;
            request = request.bearer_auth(token.expose());
        }
        let mut named = HeaderMap::new();
        let see_as = self.see_as.as_ref().map(|user| ("x-agnes-see-as", user.clone()));
        for (name, value) in call.headers.into_iter().chain(see_as) {
            let value = value.parse().map_err(|_| self.not_understood("a header cannot be sent"))?;
            named.insert(name, value);
        }
        request = request.headers(named);
        if let Some((kind, body)) = call.body {
            request = request.header(CONTENT_TYPE, kind).body(body);
        }
        if let Some(timeout) = call.timeout {
            request = request.timeout(timeout);
        }
        let longest = if call.is_file { self.options.silence } else { LONG };
        let sent = tokio::time::timeout(longest, request.send()).await.map_err(|_| self.late())?;
        let response = sent.map_err(|error| self.unreachable(error))?;
        self.check_version(response.headers())?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            let to: String = to.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(ServerError::Moved { server: self.name.clone(), to });
        }
        Err(self.refused(response).await)
    }

    /// What the server says no with.
    async fn refused(&self, response: Response) -> ServerError {
        let (status, headers) = (response.status(), response.headers().clone());
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let retry_after = header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
        let body: Value =
            self.text(response).await.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(ToOwned::to_owned);
        let reason = status.canonical_reason().unwrap_or("refused").to_lowercase();
        ServerError::Refused {
            status: status.as_u16(),
            code: text("code").unwrap_or_else(|| reason.replace(' ', "_")),
            detail: Some(body["detail"].clone())
                .filter(|detail| !detail.is_null())
                .unwrap_or_else(|| reason.into())
                .into(),
            hint: text("hint"),
            facts: Some(body["facts"].clone()).filter(Value::is_object).map(Box::new),
            request_id: text("request_id").or_else(|| header("x-request-id")),
            retry_after,
        }
    }

    pub(super) async fn text(&self, response: Response) -> Result<Vec<u8>> {
        self.read_up_to(response, LONGEST).await
    }

    async fn read_up_to(&self, mut response: Response, longest: usize) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            text.extend_from_slice(&piece);
            if text.len() > longest {
                return Err(self.not_understood("the answer does not end").into());
            }
        }
        Ok(text)
    }

    fn check_version(&self, headers: &HeaderMap) -> Result<(), ServerError> {
        let Some(least) = headers.get("x-agnes-min-version").and_then(|value| value.to_str().ok()) else {
            return Ok(());
        };
        let numbers =
            |text: &str| -> Vec<u64> { text.split(['.', '-', '+']).map_while(|number| number.parse().ok()).collect() };
        let own = &self.options.version;
        if numbers(own) < numbers(least) {
            let least = least.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(ServerError::TooOld { own: own.clone(), least });
        }
        Ok(())
    }

    /// The next of an answer's bytes.
    pub(super) async fn piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, ServerError> {
        match tokio::time::timeout(self.options.silence, response.chunk()).await {
            Ok(piece) => piece.map_err(|error| self.broke_off(error)),
            Err(_) => Err(ServerError::BrokeOff { server: self.name.clone(), reason: SILENT.to_owned() }),
        }
    }

    pub(super) fn not_understood(&self, what: impl Into<String>) -> ServerError {
        ServerError::NotUnderstood { server: self.name.clone(), what: what.into() }
    }

    pub(super) fn broke_off(&self, error: reqwest::Error) -> ServerError {
        let (reason, _) = reason(error);
        ServerError::BrokeOff { server: self.name.clone(), reason }
    }

    fn late(&self) -> ServerError {
        ServerError::Late { server: self.name.clone() }
    }

    fn unreachable(&self, error: reqwest::Error) -> ServerError {
        if error.is_timeout() && !error.is_connect() {
            return self.late();
        }
        let (reason, is_untrusted) = reason(error);
        ServerError::Unreachable { server: self.name.clone(), reason, is_untrusted }
    }
}

/// Why an answer counts as broken off that nothing came of.
const SILENT: &str = "nothing came any more";

/// What went wrong on the way, innermost cause first, without the address; and whether the
/// certificate is not trusted.
fn reason(error: reqwest::Error) -> (String, bool) {
    if error.is_timeout() {
        return ("it took too long".to_owned(), false);
    }
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    let is_untrusted = words.contains("certificate") || words.contains("UnknownIssuer");
    (words, is_untrusted)
}

/// The address of a server as it is kept: scheme, host, port, path.
fn address(text: &str) -> Result<(Url, String), ServerError> {
    let bad = || ServerError::BadAddress { text: agnes_core::ident::printable(text, 120) };
    let url = Url::parse(text.trim()).map_err(|_| bad())?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !is_plain {
        return Err(bad());
    }
    let name = url.as_str().trim_end_matches('/').to_owned();
    Ok((url, name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "patience_tests.rs"]
mod patience;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain() {
        for (text, kept) in [
            ("https://agnes.example.com", "https://agnes.example.com"),
            (" http://127.0.0.1:8000/ ", "http://127.0.0.1:8000"),
            ("https://example.com/agnes/", "https://example.com/agnes"),
            ("HTTPS://EXAMPLE.com:443", "https://example.com"),
        ] {
            assert_eq!(address(text).unwrap().1, kept);
        }
        for bad in ["", "agnes.example.com", "ftp://x", "https://", "https://a:b@x", "https://x?y=1", "https://x#y"] {
            assert_eq!(
                ServerClient::new(bad, None, ServerOptions::default()).unwrap_err().code(),
                "bad_server_address"
            );
        }
    }

    #[test]
    fn segments_of_a_path_stay_segments() {
        let client = ServerClient::new("https://x/base/", None, ServerOptions::default()).unwrap();
        assert_eq!(client.address_of(&["api", "a/b", ".."]).as_str(), "https://x/base/api/a%2Fb");
        assert_eq!(client.address_of(&["a b?c"]).as_str(), "https://x/base/a%20b%3Fc");
    }

    #[tokio::test]
    async fn nobody_is_asked_without_a_token() {
        let client = ServerClient::new("http://127.0.0.1:9", None, ServerOptions::default()).unwrap();
        assert_eq!(client.ask(Call::get(&["x"])).await.unwrap_err().code(), "not_signed_in");
        let away = client.ask(Call::get(&["x"]).public()).await.unwrap_err();
        assert_eq!((away.code(), away.is_retryable()), ("server_unreachable", true));
    }
}
