//! Who sends a request.

use agnes_core::CallContext;
use agnes_core::context::Client;
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, ORIGIN, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};

use crate::frame::RequestId;
use crate::peer::{Peer, client_address};
use crate::problem::Problem;
use crate::state::App;

/// The cookie of a session.
pub(crate) const SESSION_COOKIE: &str = "access_token";

/// Who sends a request that needs somebody, with the request's id.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) CallContext);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let client = client(parts, app);
        if let Some(token) = bearer(&parts.headers)? {
            return Ok(Self(app.engine().sign_in().authenticate(&client, token).await?));
        }
        let Some(token) = cookie(&parts.headers, SESSION_COOKIE) else {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "auth_required", "sign in first")
                .hint("send `Authorization: Bearer <token>`"));
        };
        if !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) && is_cross_site(&parts.headers) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "csrf_failed",
                "this request was not made by a page of this server",
            ));
        }
        Ok(Self(app.engine().sign_in().authenticate(&client.from_browser(), token).await?))
    }
}

/// What is known of a request that may be nobody's.
#[derive(Debug)]
pub(crate) struct Sender(pub(crate) Client);

impl FromRequestParts<App> for Sender {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(client(parts, app)))
    }
}

/// What is known of a request before anybody knows who sent it.
fn client(parts: &Parts, app: &App) -> Client {
    let peer = parts.extensions.get::<Peer>().copied();
    let client = Client::at(client_address(&parts.headers, peer, app.limits().trusted_proxy_hops));
    let client = match parts.extensions.get::<RequestId>() {
        Some(id) => client.with_request_id(&id.0),
        None => client,
    };
    match parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()) {
        Some(agent) => client.with_user_agent(agent),
        None => client,
    }
}

/// The token of `Authorization: Bearer`. Another scheme, or an empty token, is refused: it was
/// meant to say who sends the request, and a cookie must not answer in its place.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.trim().split_once(' ')).and_then(|(scheme, token)| {
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    });
    token.map(Some).ok_or_else(|| {
        Problem::new(StatusCode::UNAUTHORIZED, "token_invalid", "`Authorization` does not hold a bearer token")
    })
}

/// The value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
}

/// Whether a browser says that a page of somebody else made this request. A request that says
/// nothing of its origin does not come from a browser.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(ORIGIN.as_str()) else { return false };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_none() || host != text(HOST.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn credentials_are_read_as_browsers_and_programs_send_them() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer  abc")])).unwrap(), Some("abc"));
        assert_eq!(bearer(&headers(&[])).unwrap(), None);
        for wrong in ["Bearer", "Bearer ", "Basic abc", "abc", ""] {
            assert_eq!(bearer(&headers(&[("authorization", wrong)])).unwrap_err().code(), "token_invalid", "{wrong}");
        }
        let both = headers(&[("cookie", "a=1; access_token=xyz")]);
        assert_eq!((cookie(&both, "access_token"), cookie(&both, "token")), (Some("xyz"), None));
        assert_eq!(cookie(&headers(&[("cookie", "access_token=")]), "access_token"), None);
    }

    #[test]
    fn pages_of_others_are_told_apart() {
        for (pairs, cross) in [
            (&[] as &[(&'static str, &str)], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://a:1"), ("host", "a:1")], true),
            (&[("origin", "http://a:1"), ("host", "a:1")], false),
            (&[("origin", "http://b"), ("host", "a")], true),
            (&[("origin", "null"), ("host", "a")], true),
            (&[("origin", "http://a")], true),
        ] {
            assert_eq!(is_cross_site(&headers(pairs)), cross, "{pairs:?}");
        }
    }
}
