//! A browser's request: where it thinks it is, how it came, what form tokens it holds.

use std::borrow::Cow;

use agnes_core::config::local_path;
use agnes_core::context::Client;
use agnes_core::identity::Session;
use agnes_core::secret::Secret;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{HOST, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use chrono::TimeDelta;
use serde_json::json;

use crate::caller::{SESSION_COOKIE, Sender, cookie};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::state::App;

/// The cookie whose value every form repeats.
const FORM_COOKIE: &str = "csrf";
/// What its value is sealed for.
const FORM_PURPOSE: &str = "csrf";
/// How long a form may stay open.
const FORM_LIFE: TimeDelta = TimeDelta::hours(24);

/// Whether a client speaks https, as the proxy in front says.
pub(crate) fn is_https(headers: &HeaderMap, trusted_proxy_hops: usize) -> bool {
    trusted_proxy_hops > 0 && headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https")
}

/// A request of a browser.
#[derive(Debug)]
pub(crate) struct Visit {
    /// Who sends it, as far as that is known before signing in.
    pub(crate) client: Client,
    /// How links to this server begin. Never what a request made up.
    pub(crate) origin: String,
    /// Whether the browser speaks https.
    pub(crate) is_https: bool,
    /// The value every form repeats.
    form_token: Secret,
    /// Whether the browser has it not yet.
    is_new: bool,
}

impl FromRequestParts<App> for Visit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Ok(Sender(client)) = Sender::from_request_parts(parts, app).await;
        let held = cookie(&parts.headers, FORM_COOKIE);
        let sign_in = app.engine().sign_in();
        let known = match held {
            Some(text) if sign_in.unseal(FORM_PURPOSE, text).await?.is_some() => Some(Secret::new(text)),
            _ => None,
        };
        let is_new = known.is_none();
        let form_token = match known {
            Some(token) => token,
            None => {
                let id = uuid::Uuid::new_v4().simple().to_string();
                sign_in.seal(FORM_PURPOSE, &json!(id), FORM_LIFE).await?
            }
        };
        let is_https = is_https(&parts.headers, app.limits().trusted_proxy_hops);
        let Origin(origin) = Origin::of(parts, app);
        Ok(Self { client: client.from_browser(), origin, is_https, form_token, is_new })
    }
}

impl Visit {
    /// The value every form repeats.
    pub(crate) fn form_token(&self) -> &str {
        self.form_token.expose()
    }

    /// Whether a form repeats it, and the browser had it before.
    pub(crate) fn sent_form(&self, token: &str) -> bool {
        !self.is_new && !token.is_empty() && token == self.form_token.expose()
    }

    /// The cookie for a browser that has none yet.
    pub(crate) fn form_cookie(&self) -> Option<HeaderValue> {
        let life = FORM_LIFE.num_seconds();
        self.is_new.then(|| set_cookie(FORM_COOKIE, self.form_token.expose(), life, self.is_https)).flatten()
    }
}

fn set_cookie(name: &str, value: &str, seconds: i64, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).ok()
}

/// `next` if it stays on this site, else the home route.
pub(crate) fn landing(app: &App, next: Option<&str>) -> String {
    next.and_then(local_path).unwrap_or(&app.engine().live_config().site.home_route).to_owned()
}

/// A redirect to a path of this site.
pub(crate) fn redirect(status: StatusCode, to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    // A header holds visible ASCII.
    let visible: String = to
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() {
                Cow::from(c.to_string())
            } else {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect::<String>().into()
            }
        })
        .collect();
    if let Ok(value) = HeaderValue::from_str(&visible) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// Gives a browser its session and sends it on.
pub(crate) fn begin_session(
    app: &App,
    visit: &Visit,
    session: &Session,
    status: StatusCode,
    next: Option<&str>,
) -> Response<Body> {
    let mut response = redirect(status, &landing(app, next));
    let life = agnes_core::identity::SESSION_LIFETIME.as_secs();
    let cookie = set_cookie(SESSION_COOKIE, session.token.expose(), i64::try_from(life).unwrap_or(0), visit.is_https);
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Makes a browser forget its session.
pub(crate) fn session_gone(headers: &mut HeaderMap, is_https: bool) {
    if let Some(gone) = set_cookie(SESSION_COOKIE, "", 0, is_https) {
        headers.append(SET_COOKIE, gone);
    }
}

/// How links to this server begin: `SERVER_URL`, else the request's own host where it is ours. A
/// forged `Host` gets into no link.
pub(crate) struct Origin(pub(crate) String);

impl Origin {
    fn of(parts: &Parts, app: &App) -> Self {
        let headers = &parts.headers;
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_https = is_https(headers, app.limits().trusted_proxy_hops);
        let is_here = parts.extensions.get::<Peer>().is_some_and(|peer| peer.is_this_machine(headers));
        Self(app.engine().config().site.origin(host, is_https, is_here, app.bound()))
    }
}

impl FromRequestParts<App> for Origin {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts, app))
    }
}

/// Text as a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
