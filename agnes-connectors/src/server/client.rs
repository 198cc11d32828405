//! Asks a server over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use agnes_core::error::Result;
use agnes_core::secret::Secret;
pub use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;

use super::ServerError;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take, unless the call says otherwise.
const USUAL: Duration = Duration::from_secs(30);
/// How long a stream may bring nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest answer that is read as JSON.
const LONGEST: usize = 256 << 20;

/// How a server is asked.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Certificates to trust beside the system's own, PEM.
    pub ca_file: Option<PathBuf>,
    /// How long a query may take.
    pub query_timeout: Duration,
    /// As whom the client shows itself, e.g. `agnes/0.1.0 (linux)`.
    pub agent: String,
    /// Version of the client, for servers that take none this old.
    pub version: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let agent = format!("agnes/{version} ({})", std::env::consts::OS);
        Self { ca_file: None, query_timeout: Duration::from_secs(300), agent, version }
    }
}

/// One call of a server.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<(String, Vec<u8>)>,
    timeout: Option<Duration>,
    is_public: bool,
}

impl Call {
    /// A call of the path that these segments make; each is encoded by itself.
    #[must_use]
    pub fn new(method: Method, path: &[&str]) -> Self {
        Self {
            method,
            path: path.iter().map(|segment| (*segment).to_owned()).collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            timeout: Some(USUAL),
            is_public: false,
        }
    }

    /// Reads.
    #[must_use]
    pub fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// Does something.
    #[must_use]
    pub fn post(path: &[&str], body: Value) -> Self {
        Self::new(Method::POST, path).json(&body)
    }

    /// With JSON.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Some(("application/json".to_owned(), body.to_string().into_bytes()));
        self
    }

    /// With one file in a form.
    #[must_use]
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        let cut = format!("agnes-{:016x}{:016x}", fold(content), content.len());
        let name = name.replace(['"', '\r', '\n'], "_");
        let head = format!(
            "--{cut}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let body = [head.as_bytes(), content, format!("\r\n--{cut}--\r\n").as_bytes()].concat();
        self.body = Some((format!("multipart/form-data; boundary={cut}"), body));
        self
    }

    /// With a parameter.
    #[must_use]
    pub fn param(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// With a parameter, where there is a value.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.param(name, value),
            None => self,
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Within this time, beginning to end.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Within no time: it only may not be silent for long.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// Without a token.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.is_public = true;
        self
    }
}

/// A number that two contents hardly share: no content may hold the cut of its own form.
fn fold(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
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
    /// Whether there is a token, in a keyring that does not give it.
    is_locked_away: bool,
    see_as: Option<String>,
    options: std::sync::Arc<ServerOptions>,
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
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(&options.agent);
        if let Some(file) = &options.ca_file {
            let read = std::fs::read(file).ok().and_then(|pem| reqwest::Certificate::from_pem_bundle(&pem).ok());
            let trusted = read.filter(|trusted| !trusted.is_empty()).ok_or(ServerError::BadCertificates)?;
            http = http.tls_certs_merge(trusted);
        }
        let http = http.build().map_err(|e| agnes_core::Error::internal("make a client", e))?;
        Ok(Self { http, server: url, name, token, is_locked_away: false, see_as: None, options: options.into() })
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
    /// `bad_server_address`, `bad_certificates`, `account_unreadable`, `bad_token_store`.
    pub fn signed_in(
        server: &str,
        token: Option<Secret>,
        mut options: ServerOptions,
        account: &super::Account,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        if options.ca_file.is_none() {
            options.ca_file = account.authority_of(&address(server)?.1)?;
        }
        let mut client = Self::new(server, token, options)?;
        if client.token.is_none() {
            match account.token(&client.name, env) {
                // Told once it is needed: to sign in again it is not.
                Err(error) if error.code() == "no_keyring" => client.is_locked_away = true,
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
        match self.is_locked_away {
            true => ServerError::NoKeyring,
            false => ServerError::NotSignedIn { server: self.name.clone() },
        }
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
        let response = self.send(call).await?;
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
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        self.check_version(response.headers())?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            let to: String = to.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(ServerError::Moved { server: self.name.clone(), to }.into());
        }
        Err(self.refused(response).await.into())
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
        while let Some(piece) = response.chunk().await.map_err(|error| self.broke_off(error))? {
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

    pub(super) fn not_understood(&self, what: impl Into<String>) -> ServerError {
        ServerError::NotUnderstood { server: self.name.clone(), what: what.into() }
    }

    pub(super) fn broke_off(&self, error: reqwest::Error) -> ServerError {
        let (reason, _) = reason(error);
        ServerError::BrokeOff { server: self.name.clone(), reason }
    }

    fn unreachable(&self, error: reqwest::Error) -> ServerError {
        let (reason, is_untrusted) = reason(error);
        ServerError::Unreachable { server: self.name.clone(), reason, is_untrusted }
    }
}

/// Headers of a request for a range of a file, as long as it has this tag.
pub(super) fn range_headers(call: Call, range: &std::ops::Range<u64>, md5: &str) -> Call {
    let call = call.header("range", format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
    if md5.is_empty() { call } else { call.header("if-range", format!("\"{md5}\"")) }
}

/// Header of a request for what has another tag.
pub(super) fn unless(call: Call, tag: &str) -> Call {
    call.header("if-none-match", format!("\"{tag}\""))
}

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
