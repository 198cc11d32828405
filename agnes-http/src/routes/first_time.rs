//! The first steps of an installation: its first Admin, then its first data.

use agnes_core::CallContext;
use agnes_core::registry::SourceRow;
use agnes_core::sync::{SyncRequest, SyncRun};
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use maud::html;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::extract::Query;
use crate::openapi::{ForAdmins, ProblemShape, WithForm};
use crate::problem::Problem;
use crate::state::App;
use crate::web::{Form, Page, Visit, encoded, field, hidden, landing, message, redirect};

/// What the link of the start brings along.
#[derive(Debug, Deserialize)]
pub(crate) struct SetupQuery {
    token: Option<String>,
    /// What the last step came to.
    said: Option<String>,
}

/// The page that makes the first Admin, and brings the first data
///
/// The former as long as there is none, the latter for admins as long as there is no data.
#[utoipa::path(get, path = "/first-time-setup", tag = "pages",
    params(("token" = Option<String>, Query, description = "As the link of the start has it"),
           ("said" = Option<String>, Query, description = "What the last step came to: a number of tables, or `syncing`")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 302, description = "There is nothing left to set up, or not for the caller"),
    ))]
pub(crate) async fn page(
    State(app): State<App>,
    visit: Visit,
    caller: Result<Caller, Problem>,
    Query(query): Query<SetupQuery>,
) -> Result<Response<Body>, Problem> {
    if !app.engine().sign_in().bootstrap_open().await? {
        let steps = match &caller {
            Ok(Caller(ctx)) => steps(&app, &visit, ctx, query.said.as_deref()).await?,
            Err(_) => None,
        };
        return Ok(steps.unwrap_or_else(|| redirect(StatusCode::FOUND, &landing(&app, None))));
    }
    Ok(form(
        &app,
        &visit,
        &Typed { token: query.token.unwrap_or_default(), ..Typed::default() },
        false,
        None,
        StatusCode::OK,
    ))
}

/// What was typed so far; never a password.
#[derive(Debug, Default)]
pub(super) struct Typed {
    pub(super) email: String,
    pub(super) name: String,
    pub(super) token: String,
}

/// The form, with what was typed and what was wrong with it.
pub(super) fn form(
    app: &App,
    visit: &Visit,
    typed: &Typed,
    ask_token: bool,
    error: Option<&str>,
    status: StatusCode,
) -> Response<Body> {
    let ask_token = ask_token || typed.token.is_empty() && app.engine().sign_in().bootstrap_needs_token();
    let body = html! {
        section.card {
            h1 { "Set up " (app.engine().live_config().site.product) }
            p.lead { "Make the first Admin: the person who adds data, people and groups." }
            @if let Some(error) = error { (message(true, error)) }
            form method="post" action="/auth/bootstrap" {
                (hidden("csrf_token", visit.form_token()))
                (field("Your email", "email", "email", "username", &typed.email, None))
                (field("Your name", "name", "text", "name", &typed.name, Some("You can leave it empty.")))
                (field("Password", "password", "password", "new-password", "", Some("At least 8 characters. Long is better than strange.")))
                @if ask_token {
                    (field("Setup token", "token", "password", "off", "", Some("The value of AGNES_BOOTSTRAP_TOKEN, or what stands at the end of the link in the server's log.")))
                } @else {
                    (hidden("token", &typed.token))
                }
                button type="submit" { "Make me the first Admin" }
            }
        }
    };
    Page::new("Set up", body).with_forms(visit).status(status).render(app)
}

/// The sources, as long as the caller may bring data here and there is none.
pub(super) async fn without_data(app: &App, ctx: &CallContext) -> Option<Vec<SourceRow>> {
    let sources = app.engine().sources().list(ctx).await.ok()?;
    sources.iter().all(|source| source.published_tables == 0).then_some(sources)
}

/// The steps after the first Admin; each shows what is done of it, so that it can be gone on with
/// at any time.
async fn steps(
    app: &App,
    visit: &Visit,
    ctx: &CallContext,
    said: Option<&str>,
) -> Result<Option<Response<Body>>, Problem> {
    let Some(sources) = without_data(app, ctx).await else { return Ok(None) };
    let me = app.engine().sign_in().me(ctx).await?;
    let last: Option<SyncRun> = app.engine().sync().runs(ctx, 1).await?.into_iter().next();
    let tables: usize = sources.iter().map(|source| source.registered_tables).sum();
    let said = match said {
        Some("syncing") => Some("The data is on its way.".to_owned()),
        Some(count) => count.parse::<usize>().ok().map(|count| format!("{count} new tables are registered.")),
        None => None,
    };
    let step = |name: &str, label: &str| {
        html! {
            form method="post" action="/first-time-setup" {
                (hidden("csrf_token", visit.form_token())) (hidden("step", name))
                button type="submit" { (label) }
            }
        }
    };
    let body = html! {
        section.card.wide {
            h1 { "Bring the first data" }
            p.lead { "There is an Admin now, and no data yet. You can leave this page and come back at any time." }
            @if let Some(said) = &said { (message(false, said)) }
            h2 { "1. Where the data is" }
            @if sources.is_empty() {
                p { "Add a source on the machine of this server:" }
                pre { "agnes source add shop --path ./files" }
                p { "Or send a file, which becomes a table at once:" }
                pre { "curl " (visit.origin) "/api/upload/data -H \"Authorization: Bearer $AGNES_TOKEN\" -F file=@orders.csv" }
                p { a.button.second href="/first-time-setup" { "Look again" } }
            } @else {
                ul { @for source in &sources { li { strong { (source.name) } " (" (source.kind) "), " (source.registered_tables) " tables" } } }
                h2 { "2. Which tables" }
                p { (tables) " tables are registered. Sources can be asked what else they offer." }
                (step("register", "Register what the sources offer"))
                h2 { "3. The first sync" }
                @if let Some(run) = &last {
                    p { "The last one: " strong { (run.state.as_str()) } "." }
                    ul { @for table in run.outcome.iter().flat_map(|outcome| &outcome.tables) {
                        li { (table.table) ": " (table.status.as_str()) @if let Some(reason) = &table.reason { ", " (reason) } }
                    } }
                    p { a.button.second href="/first-time-setup" { "Look again" } }
                }
                (step("sync", "Bring the data here"))
            }
            p.below { a href={ (landing(app, None)) } { "Go on without data" } }
        }
    };
    Ok(Some(Page::new("Bring the first data", body).signed_in(visit, &me).render(app)))
}

/// One step of setting up.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct StepForm {
    /// Which one.
    step: Step,
}

/// What a step does.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Registers what sources offer.
    Register,
    /// Begins a sync of everything.
    Sync,
}

/// Go on setting up
///
/// For admins.
#[utoipa::path(post, path = "/first-time-setup", tag = "pages",
    request_body(content = StepForm, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 303, description = "Back to the page, which says what came of it"),
    ForAdmins, WithForm,
    (status = 409, description = "A sync runs", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "No source can answer", body = ProblemShape, content_type = "application/problem+json"),
    (status = 504, description = "No source answered in time", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn go_on(
    State(app): State<App>,
    Caller(ctx): Caller,
    Form(form, _): Form<StepForm>,
) -> Result<Response<Body>, Problem> {
    let said = match form.step {
        Step::Register => app.engine().sources().take_offers(&ctx, None, None, false).await?.tables.len().to_string(),
        Step::Sync => {
            app.engine()
                .sync()
                .trigger(&ctx, SyncRequest::default())
                .await
                .map_err(|e| Problem::from(e).for_people())?;
            "syncing".to_owned()
        }
    };
    Ok(redirect(StatusCode::SEE_OTHER, &format!("/first-time-setup?said={}", encoded(&said))))
}
