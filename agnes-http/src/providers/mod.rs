//! Ways to sign in. Adding one is one implementation of [`Provider`] and one line in [`ALL`].

mod desktop;
mod elsewhere;
mod email;
mod password;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use crate::state::App;

/// What the sign-in page shows of a provider.
#[derive(Debug, Clone)]
pub(crate) struct Button {
    /// Its words.
    pub(crate) label: String,
    /// Where it leads; gets `next` as a parameter.
    pub(crate) path: &'static str,
}

/// A way to sign in.
pub(crate) trait Provider: Sync {
    /// Its name, as in `auth.disabled_providers`.
    fn name(&self) -> &'static str;
    /// Its place on the sign-in page, from 1.
    fn order(&self) -> u8;
    /// Whether it is set up; whether it is switched off is not its business.
    fn is_available(&self, app: &App) -> bool;
    /// Its button; without one it is not for pages.
    fn login_button(&self, app: &App) -> Option<Button>;
    /// Adds its routes. They exist whether or not it is available, and refuse when it is
    /// not.
    fn routes(&self, to: OpenApiRouter<App>) -> OpenApiRouter<App>;
}

/// Every provider.
pub(crate) const ALL: &[&dyn Provider] =
    &[&elsewhere::Google, &elsewhere::Company, &password::Password, &email::Email, &desktop::Desktop];

/// The providers that are set up and switched on, in their order.
pub(crate) fn offered(app: &App) -> Vec<&'static dyn Provider> {
    let auth = &app.engine().config().auth;
    let on = |provider: &&dyn Provider| provider.is_available(app) && auth.offers(provider.name());
    let mut offered: Vec<_> = ALL.iter().copied().filter(on).collect();
    offered.sort_by_key(|provider| provider.order());
    offered
}

/// Adds the routes of every provider.
pub(crate) fn routes(to: OpenApiRouter<App>) -> OpenApiRouter<App> {
    ALL.iter().fold(to, |to, provider| provider.routes(to))
}

/// A way to sign in.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderAnswer {
    /// Its name.
    #[schema(example = "password")]
    name: &'static str,
    /// For people.
    #[schema(example = "Sign in with your password")]
    label: String,
    /// Where to begin.
    #[schema(example = "/login/password")]
    login_url: Option<&'static str>,
    /// Whether the sign-in page shows it.
    visible: bool,
}

/// Ways to sign in.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProvidersAnswer {
    /// In the order of the sign-in page.
    providers: Vec<ProviderAnswer>,
    /// Domains whose people may sign in elsewhere or by mail; empty or `*` for all.
    #[schema(example = json!(["example.com"]))]
    allowed_domains: Vec<String>,
}

/// Ways to sign in
#[utoipa::path(get, path = "/auth/providers", tag = "sign-in", responses(
    (status = 200, description = "Those that are set up and switched on", body = ProvidersAnswer),
))]
pub(crate) async fn list(State(app): State<App>) -> Json<ProvidersAnswer> {
    let answer = |provider: &dyn Provider| {
        let button = provider.login_button(&app);
        ProviderAnswer {
            name: provider.name(),
            label: button.as_ref().map_or_else(|| provider.name().to_owned(), |button| button.label.clone()),
            login_url: button.as_ref().map(|button| button.path),
            visible: button.is_some(),
        }
    };
    Json(ProvidersAnswer {
        providers: offered(&app).into_iter().map(answer).collect(),
        allowed_domains: app.engine().config().auth.allowed_domains.clone(),
    })
}
