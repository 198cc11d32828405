//! One file a subject: read the request, make one call, write the answer.

mod access;
mod activity;
mod auth;
mod catalog;
mod data;
mod instance;
mod policies;
mod query;
mod sync;
mod tokens;

use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::health;
use crate::openapi::Base;
use crate::state::App;

/// Every route.
pub(crate) fn all() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::health))
        .routes(routes!(instance::version))
        .routes(routes!(instance::metrics))
        .routes(routes!(auth::token))
        .routes(routes!(auth::password_login))
        .routes(routes!(auth::setup))
        .routes(routes!(auth::bootstrap))
        .routes(routes!(auth::change_password))
        .routes(routes!(auth::me))
        .routes(routes!(auth::profile))
        .routes(routes!(auth::onboarded))
        .routes(routes!(auth::sign_out))
        .routes(routes!(auth::sign_out_everywhere))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::get, tokens::revoke))
        .routes(routes!(tokens::list_all))
        .routes(routes!(tokens::revoke_any))
        .routes(routes!(query::query))
        .routes(routes!(catalog::tables))
        .routes(routes!(catalog::catalog))
        .routes(routes!(catalog::schema))
        .routes(routes!(catalog::sample))
        .routes(routes!(catalog::profile))
        .routes(routes!(catalog::refresh_profile))
        .routes(routes!(data::manifest))
        .routes(routes!(data::check_access))
        .routes(routes!(data::download))
        .routes(routes!(sync::status))
        .routes(routes!(sync::trigger))
        .routes(routes!(sync::run))
        .routes(routes!(sync::settings, sync::set_settings))
        .routes(routes!(sync::settings_again, sync::set_settings_again))
        .routes(routes!(sync::subscriptions, sync::subscribe))
        .routes(routes!(sync::own_settings))
        .routes(routes!(sync::set_dataset))
        .routes(routes!(access::groups, access::create_group))
        .routes(routes!(access::group, access::delete_group))
        .routes(routes!(access::members, access::add_member))
        .routes(routes!(access::remove_member))
        .routes(routes!(access::grants, access::create_grant))
        .routes(routes!(access::delete_grant))
        .routes(routes!(access::effective_access))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(policies::validate))
        .routes(routes!(policies::dry_run))
        .routes(routes!(policies::get, policies::update, policies::remove))
        .routes(routes!(policies::history))
        .routes(routes!(activity::activity))
        .routes(routes!(instance::openapi))
}
