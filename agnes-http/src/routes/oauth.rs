//! OAuth 2.1: how an assistant elsewhere gets a token of whoever sits before it.

use agnes_core::identity::{OAuthError, OAuthRequest, OAuthTokens, check_resource};
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{Response, StatusCode};
use axum::{Form as Fields, Json};
use maud::html;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::{IntoParams, ToSchema};

use super::mcp::PATH;
use crate::caller::{Caller, Sender};
use crate::extract::{self, Query};
use crate::openapi::{ForUsers, ProblemShape, WithBody, WithForm};
use crate::problem::Problem;
use crate::rates::Limited;
use crate::state::App;
use crate::web::{Form, Origin, Page, Visit, hidden, redirect};

/// What a client may be allowed.
const SCOPE: &str = "mcp";

/// Where to sign in for what is here (RFC 9728).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResourceMetadata {
    /// What a token is for.
    #[schema(example = "https://agnes.example/api/mcp/http")]
    resource: String,
    /// For people.
    resource_name: String,
    /// Who gives tokens for it.
    authorization_servers: Vec<String>,
    /// What a token may be for.
    scopes_supported: [&'static str; 1],
    /// How it is sent.
    bearer_methods_supported: [&'static str; 1],
}

fn resource_metadata(app: &App, origin: &str) -> Json<ResourceMetadata> {
    Json(ResourceMetadata {
        resource: format!("{origin}{PATH}"),
        resource_name: app.engine().live_config().site.product.clone(),
        authorization_servers: vec![origin.to_owned()],
        scopes_supported: [SCOPE],
        bearer_methods_supported: ["header"],
    })
}

/// Where to sign in for what is here
#[utoipa::path(get, path = "/.well-known/oauth-protected-resource", tag = "oauth",
    responses((status = 200, description = "Where", body = ResourceMetadata)))]
pub(crate) async fn resource(State(app): State<App>, Origin(origin): Origin) -> Json<ResourceMetadata> {
    resource_metadata(&app, &origin)
}

/// Where to sign in for the tools
#[utoipa::path(get, path = "/.well-known/oauth-protected-resource/api/mcp/http", tag = "oauth",
    responses((status = 200, description = "Where", body = ResourceMetadata)))]
pub(crate) async fn resource_by_path(State(app): State<App>, Origin(origin): Origin) -> Json<ResourceMetadata> {
    resource_metadata(&app, &origin)
}

/// How tokens are given (RFC 8414).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerMetadata {
    /// Who gives them.
    #[schema(example = "https://agnes.example")]
    issuer: String,
    /// The page where a person allows it.
    authorization_endpoint: String,
    /// Where a code becomes a token.
    token_endpoint: String,
    /// Where clients register themselves.
    registration_endpoint: String,
    /// Where tokens are given back.
    revocation_endpoint: String,
    /// What a token may be for.
    scopes_supported: [&'static str; 1],
    /// Codes, nothing else.
    response_types_supported: [&'static str; 1],
    /// How they are sent.
    response_modes_supported: [&'static str; 1],
    /// For what tokens are given.
    grant_types_supported: [&'static str; 2],
    /// Clients have no secret.
    token_endpoint_auth_methods_supported: [&'static str; 1],
    /// Clients have no secret.
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
    /// How a client proves that a code is its (RFC 7636).
    code_challenge_methods_supported: [&'static str; 1],
    /// Whether an answer says who gives it (RFC 9207).
    authorization_response_iss_parameter_supported: bool,
}

fn server_metadata(origin: &str) -> Json<ServerMetadata> {
    Json(ServerMetadata {
        issuer: origin.to_owned(),
        authorization_endpoint: format!("{origin}/oauth/authorize"),
        token_endpoint: format!("{origin}/oauth/token"),
        registration_endpoint: format!("{origin}/oauth/register"),
        revocation_endpoint: format!("{origin}/oauth/revoke"),
        scopes_supported: [SCOPE],
        response_types_supported: ["code"],
        response_modes_supported: ["query"],
        grant_types_supported: ["authorization_code", "refresh_token"],
        token_endpoint_auth_methods_supported: ["none"],
        revocation_endpoint_auth_methods_supported: ["none"],
        code_challenge_methods_supported: ["S256"],
        authorization_response_iss_parameter_supported: true,
    })
}

/// How tokens are given
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server", tag = "oauth",
    responses((status = 200, description = "How", body = ServerMetadata)))]
pub(crate) async fn server(Origin(origin): Origin) -> Json<ServerMetadata> {
    server_metadata(&origin)
}

/// How tokens for the tools are given
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server/api/mcp/http", tag = "oauth",
    responses((status = 200, description = "How", body = ServerMetadata)))]
pub(crate) async fn server_by_path(Origin(origin): Origin) -> Json<ServerMetadata> {
    server_metadata(&origin)
}

/// How tokens are given, where clients of OpenID Connect look
#[utoipa::path(get, path = "/.well-known/openid-configuration", tag = "oauth",
    responses((status = 200, description = "How", body = ServerMetadata)))]
pub(crate) async fn openid(Origin(origin): Origin) -> Json<ServerMetadata> {
    server_metadata(&origin)
}

/// How tokens for the tools are given, where clients of OpenID Connect look
#[utoipa::path(get, path = "/.well-known/openid-configuration/api/mcp/http", tag = "oauth",
    responses((status = 200, description = "How", body = ServerMetadata)))]
pub(crate) async fn openid_by_path(Origin(origin): Origin) -> Json<ServerMetadata> {
    server_metadata(&origin)
}

/// A client that registers itself (RFC 7591). What else it says of itself is not kept.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ClientRegistration {
    /// As people are shown it.
    #[serde(default)]
    client_name: String,
    /// Where codes may be sent: `https`, or this machine with any port.
    #[serde(default)]
    redirect_uris: Vec<String>,
    /// Has to be `none`, which it also is when it is missing.
    token_endpoint_auth_method: Option<String>,
}

/// A client that registered itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegisteredClient {
    /// Its id.
    client_id: String,
    /// When it registered, seconds since 1970.
    client_id_issued_at: i64,
    /// As people are shown it.
    client_name: String,
    /// Where codes may be sent.
    redirect_uris: Vec<String>,
    /// It has no secret.
    token_endpoint_auth_method: &'static str,
    /// For what it gets tokens.
    grant_types: [&'static str; 2],
    /// Codes, nothing else.
    response_types: [&'static str; 1],
    /// What its tokens are for.
    scope: &'static str,
}

/// Register a client
///
/// Anybody may, ten times a minute from one address: a client is worth nothing until a person
/// allows it something. It has no secret. One that nobody uses for 90 days is forgotten.
#[utoipa::path(post, path = "/oauth/register", tag = "oauth", request_body = ClientRegistration, responses(
    (status = 201, description = "It is registered", body = RegisteredClient),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
    WithBody,
))]
pub(crate) async fn register(
    State(app): State<App>,
    Sender(client): Sender,
    extract::Json(asked): extract::Json<ClientRegistration>,
) -> Result<(StatusCode, Json<RegisteredClient>), Problem> {
    app.rates().count(Limited::Register, client.ip())?;
    if asked.token_endpoint_auth_method.is_some_and(|method| method != "none") {
        return Err(for_clients(OAuthError::Metadata.into()));
    }
    let made = app.engine().oauth().register(&client, &asked.client_name, &asked.redirect_uris).await;
    let made = made.map_err(for_clients)?;
    let answer = RegisteredClient {
        client_id: made.id,
        client_id_issued_at: made.created_at.timestamp(),
        client_name: made.name,
        redirect_uris: made.redirect_uris,
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        scope: SCOPE,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn for_clients(error: agnes_core::Error) -> Problem {
    Problem::from(error).for_clients()
}

/// What a client asks a person for.
#[derive(Debug, Default, Deserialize, Serialize, IntoParams, ToSchema)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The client.
    client_id: String,
    /// Where the code is sent: one of its addresses.
    redirect_uri: String,
    /// `code`.
    response_type: String,
    /// PKCE: base64url of the SHA-256 of a secret of the client.
    code_challenge: String,
    /// `S256`.
    code_challenge_method: String,
    /// Given back with the code.
    state: String,
    /// What the client wants to use: this server.
    resource: String,
    /// `mcp`, or nothing.
    scope: String,
}

impl Wanted {
    fn request(&self) -> OAuthRequest {
        OAuthRequest {
            client_id: self.client_id.clone(),
            redirect_uri: self.redirect_uri.clone(),
            response_type: self.response_type.clone(),
            code_challenge: self.code_challenge.clone(),
            code_challenge_method: self.code_challenge_method.clone(),
            resource: self.resource.clone(),
            scope: self.scope.clone(),
        }
    }

    /// Back to the client, with an answer. Only for an address that it registered.
    fn back(&self, origin: &str, answer: &[(&str, &str)]) -> Result<Response<Body>, Problem> {
        let mut to = Url::parse(&self.redirect_uri).map_err(|_| Problem::internal())?;
        let mut pairs = to.query_pairs_mut();
        pairs.extend_pairs(answer);
        if !self.state.is_empty() {
            pairs.append_pair("state", &self.state);
        }
        pairs.append_pair("iss", origin);
        drop(pairs);
        Ok(redirect(StatusCode::SEE_OTHER, to.as_str()))
    }

    /// Back to the client, with what is wrong with its request.
    fn refused(&self, origin: &str, problem: &Problem) -> Result<Response<Body>, Problem> {
        self.back(origin, &[("error", problem.code()), ("error_description", &problem.sentence())])
    }
}

/// The page where a person allows a client to read for them
///
/// What is wrong with the request is told to the client, unless the client itself, or the address
/// that it wants to be answered at, is not known here.
#[utoipa::path(get, path = "/oauth/authorize", tag = "oauth", params(Wanted), responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
    (status = 302, description = "Sign in first"),
    (status = 303, description = "Back to the client, with what is wrong"),
    (status = 400, description = "The client is not known here", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn page(
    State(app): State<App>,
    visit: Visit,
    Caller(ctx): Caller,
    Query(wanted): Query<Wanted>,
) -> Result<Response<Body>, Problem> {
    ctx.principal().require_session()?;
    let (request, oauth) = (wanted.request(), app.engine().oauth());
    let client = oauth.client(&request).await.map_err(|error| Problem::from(error).for_people())?;
    if let Err(error) = oauth.check(&request, &visit.origin, &format!("{}{PATH}", visit.origin)) {
        return wanted.refused(&visit.origin, &error.into());
    }
    let me = app.engine().sign_in().me(&ctx).await?;
    let target = Url::parse(&wanted.redirect_uri).map_err(|_| Problem::internal())?;
    let host = target.host_str().unwrap_or_default();
    let body = html! {
        section.card {
            h1 { "Let an assistant read for you?" }
            p.lead { strong { (client.name) } " asks to read the data that " strong { (me.email) } " may read." }
            p { "That is the name it gave itself. Your answer is sent to " strong { (host) } "." }
            ul {
                li { "It may list the tables that you may read, and ask them in SQL." }
                li { "It may change nothing, and sees no other settings of yours." }
                li { "It may go on until it has not asked for 30 days. You can revoke it earlier, among your tokens." }
            }
            p { "Allow it only if you started this yourself, a moment ago." }
            form method="post" action="/oauth/authorize" {
                (hidden("csrf_token", visit.form_token()))
                (hidden("client_id", &wanted.client_id)) (hidden("redirect_uri", &wanted.redirect_uri))
                (hidden("response_type", &wanted.response_type)) (hidden("code_challenge", &wanted.code_challenge))
                (hidden("code_challenge_method", &wanted.code_challenge_method)) (hidden("state", &wanted.state))
                (hidden("resource", &wanted.resource)) (hidden("scope", &wanted.scope))
                button type="submit" name="decision" value="allow" { "Allow" }
                button.quiet type="submit" name="decision" value="refuse" { "No" }
            }
        }
    };
    // The form's answer leads there.
    let page = Page::new("Let an assistant read for you?", body).signed_in(&visit, &me);
    Ok(page.form_target(target.origin().ascii_serialization()).render(&app))
}

/// What a person decided.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Decided {
    #[serde(flatten)]
    wanted: Wanted,
    /// `allow`, or anything else.
    #[serde(default)]
    decision: String,
}

/// Allow a client to read, from the page, or refuse it
///
/// Leads back to the client: with a code that is good once, for 5 minutes, or with
/// `error=access_denied`.
#[utoipa::path(post, path = "/oauth/authorize", tag = "oauth",
    request_body(content = Decided, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 303, description = "Back to the client"),
    (status = 400, description = "The client is not known here, or asks for something else", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers, WithForm,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn decide(
    State(app): State<App>,
    Caller(ctx): Caller,
    Form(Decided { wanted, decision }, visit): Form<Decided>,
) -> Result<Response<Body>, Problem> {
    let (request, oauth) = (wanted.request(), app.engine().oauth());
    if decision != "allow" {
        oauth.refuse(&ctx, &request).await.map_err(|error| Problem::from(error).for_people())?;
        let told = [("error", "access_denied"), ("error_description", "the person did not allow it")];
        return wanted.back(&visit.origin, &told);
    }
    let resource = format!("{}{PATH}", visit.origin);
    let code = oauth.allow(&ctx, &request, &visit.origin, &resource).await;
    let code = code.map_err(|error| Problem::from(error).for_people())?;
    wanted.back(&visit.origin, &[("code", code.expose())])
}

/// What a client wants a token for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct GrantRequest {
    /// `authorization_code` or `refresh_token`.
    grant_type: String,
    /// The client.
    client_id: String,
    /// The code, once.
    code: String,
    /// As it was asked for the code.
    redirect_uri: String,
    /// PKCE: what `code_challenge` is made of, 43 to 128 characters.
    code_verifier: String,
    /// What renews the last token, once.
    refresh_token: String,
    /// What the client wants to use: this server.
    resource: String,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"access_token": "eyJ0...", "token_type": "Bearer", "expires_in": 28800,
    "refresh_token": "kV9x...", "scope": "mcp"}))]
pub(crate) struct GivenToken {
    /// Says who asks.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds that it is good for.
    expires_in: i64,
    /// Gets the next one, once, within 30 days.
    refresh_token: String,
    /// What it is for.
    scope: &'static str,
}

/// A form of a program: it proves itself by what it holds, and looks at no cookie.
pub(crate) struct Sent<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let Fields(sent) = Fields::<T>::from_request(request, app).await.map_err(|refused| {
            let status = refused.into_response_status();
            let problem = match status {
                StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::PAYLOAD_TOO_LARGE => Problem::of_status(status),
                _ => Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "the form cannot be read"),
            };
            problem.for_clients()
        })?;
        Ok(Self(sent))
    }
}

trait RefusedStatus {
    fn into_response_status(self) -> StatusCode;
}

impl<R: axum::response::IntoResponse> RefusedStatus for R {
    fn into_response_status(self) -> StatusCode {
        self.into_response().status()
    }
}

/// Get a token for a code, or the next one
///
/// A token is good for 8 hours. What renews it is good once, within 30 days; presented a second
/// time it ends the token, as somebody else may hold it.
#[utoipa::path(post, path = "/oauth/token", tag = "oauth",
    request_body(content = GrantRequest, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "The token", body = GivenToken),
    (status = 400, description = "The code or token is not good here, or the form is not valid", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The form is too large", body = ProblemShape, content_type = "application/problem+json"),
    (status = 415, description = "The body is not a form", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn token(
    State(app): State<App>,
    Origin(origin): Origin,
    Sender(client): Sender,
    Sent(asked): Sent<GrantRequest>,
) -> Result<Json<GivenToken>, Problem> {
    app.rates().count(Limited::Grant, client.ip()).map_err(Problem::for_clients)?;
    check_resource(&asked.resource, &origin, &format!("{origin}{PATH}")).map_err(for_clients)?;
    let oauth = app.engine().oauth();
    let GrantRequest { client_id, code, redirect_uri, code_verifier, refresh_token, .. } = &asked;
    let given = match asked.grant_type.as_str() {
        "authorization_code" => oauth.redeem(&client, client_id, code, redirect_uri, code_verifier).await,
        "refresh_token" => oauth.renew(&client, client_id, refresh_token).await,
        _ => Err(OAuthError::GrantType.into()),
    };
    let OAuthTokens { access_token, expires_in, refresh_token } = given.map_err(for_clients)?;
    Ok(Json(GivenToken {
        access_token: access_token.expose().to_owned(),
        token_type: "Bearer",
        expires_in,
        refresh_token: refresh_token.expose().to_owned(),
        scope: SCOPE,
    }))
}

/// What a client gives back.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RevokeRequest {
    /// A token, or what renews it.
    token: String,
    /// The client.
    #[serde(default)]
    client_id: String,
}

/// Give a token back
///
/// It ends at once, with what renews it. One that is not known is no error.
#[utoipa::path(post, path = "/oauth/revoke", tag = "oauth",
    request_body(content = RevokeRequest, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "It is worth nothing now"),
    (status = 400, description = "The form is not valid", body = ProblemShape, content_type = "application/problem+json"),
    (status = 413, description = "The form is too large", body = ProblemShape, content_type = "application/problem+json"),
    (status = 415, description = "The body is not a form", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Too many tries", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn revoke(
    State(app): State<App>,
    Sender(client): Sender,
    Sent(asked): Sent<RevokeRequest>,
) -> Result<StatusCode, Problem> {
    app.rates().count(Limited::Grant, client.ip()).map_err(Problem::for_clients)?;
    app.engine().oauth().revoke(&client, &asked.client_id, &asked.token).await.map_err(for_clients)?;
    Ok(StatusCode::OK)
}
