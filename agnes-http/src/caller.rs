//! Who sends a request.

use agnes_core::CallContext;
use agnes_core::context::Client;
use agnes_core::rbac::AccessError;
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

/// The header with which an admin asks what somebody else would be answered.
pub(crate) const SEE_AS: &str = "x-agnes-see-as";

/// Who sends a request that needs somebody, with the request's id.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) CallContext);

/// The call as the person of [`SEE_AS`] would make it, where the request names one.
pub(crate) async fn seen_as(parts: &Parts, app: &App, ctx: CallContext) -> Result<CallContext, Problem> {
    let Some(user) = parts.headers.get(SEE_AS) else { return Ok(ctx) };
    if !crate::routes::is_reading(&parts.method, parts.uri.path()) {
        return Err(agnes_core::Error::from(AccessError::ReadOnlyView).into());
    }
    let user = app.engine().identity().exact_user(&ctx, user.to_str().unwrap_or_default()).await?;
    Ok(app.engine().identity().see_as(&ctx, &user.id).await?)
}

/// Says who sends a request that this process makes of itself. No byte of a connection becomes
/// one.
#[derive(Debug, Clone)]
pub(crate) struct OfThisProcess(pub(crate) CallContext);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let client = client(parts, app);
        if let Some(OfThisProcess(ctx)) = parts.extensions.remove::<OfThisProcess>() {
            return Ok(Self(ctx.with_request_id(client.request_id())));
        }
        if app.engine().config().dev.is_some() {
            return developer(parts, app, client).await;
        }
        if let Some(token) = bearer(&parts.headers)? {
            let ctx = app.engine().sign_in().authenticate(&client, token).await?;
            return Ok(Self(seen_as(parts, app, ctx).await?));
        }
        let Some(token) = cookie(&parts.headers, SESSION_COOKIE) else {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "auth_required", "sign in first")
                .hint("send `Authorization: Bearer <token>`"));
        };
        if !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) && is_cross_site(&parts.headers, app) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "csrf_failed",
                "this request was not made by a page of this server",
            ));
        }
        let ctx = app.engine().sign_in().authenticate(&client.from_browser(), token).await?;
        Ok(Self(seen_as(parts, app, ctx).await?))
    }
}

/// On a developer's machine nobody proves anything. A page of somebody else must not be able to
/// use that: neither by a request of its own nor by a name of its own for this machine.
async fn developer(parts: &Parts, app: &App, client: Client) -> Result<Caller, Problem> {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let looks = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !app.engine().config().site.is_own_host(host) || (!looks && is_cross_site(&parts.headers, app)) {
        let text = "this request was not made by a page of this server";
        return Err(Problem::new(StatusCode::FORBIDDEN, "csrf_failed", text)
            .hint("in development mode, go to `localhost` or to the host of `SERVER_URL`"));
    }
    let ctx = app.engine().sign_in().developer(&client.from_browser()).await?;
    Ok(Caller(seen_as(parts, app, ctx).await?))
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
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
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
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
}

/// Whether a browser says that a page of somebody else made this request. A request that says
/// nothing of its origin does not come from a browser.
pub(crate) fn is_cross_site(headers: &HeaderMap, app: &App) -> bool {
    is_foreign(headers, |host| app.engine().config().site.is_own_host(host))
}

fn is_foreign(headers: &HeaderMap, is_own_host: impl Fn(&str) -> bool) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(ORIGIN.as_str()) else { return false };
    let host = origin.split_once("://").map(|(_, host)| host);
    // A proxy may have changed `Host`; our own name is ours all the same. Loopback is not: it
    // may be another program's page.
    !host.is_some_and(|host| Some(host) == text(HOST.as_str()) || is_public_own(host, &is_own_host))
}

fn is_public_own(host: &str, is_own_host: &impl Fn(&str) -> bool) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    is_own_host(host) && !agnes_core::config::is_this_machine(name)
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
            (&[("origin", "https://agnes.example"), ("host", "inner:8000")], false),
            (&[("origin", "http://localhost:9"), ("host", "localhost:8000")], true),
        ] {
            assert_eq!(
                is_foreign(&headers(pairs), |host| host == "agnes.example" || host == "localhost:9"),
                cross,
                "{pairs:?}"
            );
        }
    }
}
