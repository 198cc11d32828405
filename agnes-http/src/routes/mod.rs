//! One file a subject: read the request, make one call, write the answer.

mod access;
mod activity;
pub(crate) mod auth;
mod catalog;
mod cli;
mod columns;
mod data;
mod directory;
mod discovery;
mod distribution;
mod docs;
mod first_time;
mod health;
mod initial;
mod instance;
mod maintenance;
pub(crate) mod mcp;
mod me;
mod memberships;
mod metadata;
pub(crate) mod oauth;
mod observability;
mod pages;
mod permissions;
mod policies;
mod query;
mod registry;
mod requests;
mod resources;
mod scan;
mod settings;
mod sources;
mod sync;
mod texts;
mod tokens;
mod uploads;
mod users;
mod warehouse;
mod warmup;
mod webhooks;

use axum::http::Method;
pub(crate) use docs::Unpacked;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::health as probe;
use crate::openapi::Base;
use crate::state::App;

/// Shapes of answers that tools for assistants share.
pub(crate) mod shapes {
    pub(crate) use super::catalog::{ProfileAnswer, SampleAnswer, Schema};
    pub(crate) use super::scan::EstimateAnswer;
}

/// Operations that read although they take a body.
pub(crate) const READING: [&str; 4] = ["/api/query", "/api/query/replay", "/api/v2/scan", "/api/v2/scan/estimate"];

/// Whether an operation can be asked for in the place of somebody else: those that read.
pub(crate) fn is_reading(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) || (*method == Method::POST && READING.contains(&path))
}

/// Every route.
pub(crate) fn all() -> OpenApiRouter<App> {
    crate::providers::routes(OpenApiRouter::with_openapi(Base::openapi()))
        .routes(routes!(crate::providers::list))
        .routes(routes!(pages::start))
        .routes(routes!(pages::login))
        .routes(routes!(pages::dashboard))
        .routes(routes!(pages::home))
        .routes(routes!(pages::setup))
        .routes(routes!(pages::install))
        .routes(routes!(first_time::page, first_time::go_on))
        .routes(routes!(cli::page, cli::start))
        .routes(routes!(cli::exchange))
        .routes(routes!(distribution::latest))
        .routes(routes!(texts::welcome))
        .routes(routes!(texts::prompt, texts::set_prompt, texts::reset_prompt))
        .routes(routes!(texts::preview_prompt))
        .routes(routes!(texts::guide, texts::set_guide, texts::reset_guide))
        .routes(routes!(texts::preview_guide))
        .routes(routes!(initial::view, initial::register, initial::remove))
        .routes(routes!(initial::sync))
        .routes(routes!(initial::offer))
        .routes(routes!(initial::archive))
        .routes(routes!(initial::applied))
        .routes(routes!(distribution::download))
        .routes(routes!(distribution::artifact))
        .routes(routes!(distribution::installer))
        .routes(routes!(crate::web::assets::static_file))
        .routes(routes!(crate::web::assets::favicon))
        .routes(routes!(crate::web::assets::robots))
        .routes(routes!(probe::alive))
        .routes(routes!(probe::ready))
        .routes(routes!(probe::health))
        .routes(routes!(health::detailed))
        .routes(routes!(instance::version))
        .routes(routes!(instance::metrics))
        .routes(routes!(instance::throw))
        .routes(routes!(auth::token))
        .routes(routes!(auth::password_login))
        .routes(routes!(auth::bootstrap))
        .routes(routes!(auth::change_password))
        .routes(routes!(auth::me))
        .routes(routes!(auth::profile))
        .routes(routes!(auth::onboarded))
        .routes(routes!(auth::sign_out))
        .routes(routes!(auth::sign_out_everywhere))
        .routes(routes!(directory::refresh_groups))
        .routes(routes!(directory::refetch_groups))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::get, tokens::revoke))
        .routes(routes!(tokens::list_all))
        .routes(routes!(tokens::revoke_any))
        .routes(routes!(query::query))
        .routes(routes!(query::replay))
        .routes(routes!(warehouse::hybrid))
        .routes(routes!(warehouse::test_connection))
        .routes(routes!(metadata::refresh_all))
        .routes(routes!(metadata::refresh))
        .routes(routes!(metadata::status))
        .routes(routes!(warmup::run))
        .routes(routes!(warmup::status))
        .routes(routes!(warmup::watch))
        .routes(routes!(mcp::call))
        .routes(routes!(oauth::resource))
        .routes(routes!(oauth::resource_by_path))
        .routes(routes!(oauth::server))
        .routes(routes!(oauth::server_by_path))
        .routes(routes!(oauth::openid))
        .routes(routes!(oauth::openid_by_path))
        .routes(routes!(oauth::register))
        .routes(routes!(oauth::page, oauth::decide))
        .routes(routes!(oauth::token))
        .routes(routes!(oauth::revoke))
        .routes(routes!(scan::scan))
        .routes(routes!(scan::estimate))
        .routes(routes!(catalog::tables))
        .routes(routes!(catalog::catalog))
        .routes(routes!(catalog::schema))
        .routes(routes!(catalog::sample))
        .routes(routes!(catalog::profile))
        .routes(routes!(catalog::refresh_profile))
        .routes(routes!(data::manifest))
        .routes(routes!(data::check_access))
        .routes(routes!(data::download))
        .routes(routes!(data::asset))
        .routes(routes!(sync::status))
        .routes(routes!(sync::trigger))
        .routes(routes!(sync::runs))
        .routes(routes!(sync::run))
        .routes(routes!(sync::cancel))
        .routes(routes!(sync::settings, sync::set_settings))
        .routes(routes!(sync::settings_again, sync::set_settings_again))
        .routes(routes!(sync::subscriptions, sync::subscribe))
        .routes(routes!(sync::own_settings))
        .routes(routes!(sync::set_dataset))
        .routes(routes!(access::groups, access::create_group))
        .routes(routes!(access::group, access::update_group, access::delete_group))
        .routes(routes!(access::members, access::add_member))
        .routes(routes!(access::remove_member))
        .routes(routes!(access::grants, access::create_grant))
        .routes(routes!(access::delete_grant))
        .routes(routes!(resources::types))
        .routes(routes!(resources::overview))
        .routes(routes!(memberships::list, memberships::add))
        .routes(routes!(memberships::remove))
        .routes(routes!(memberships::effective_access))
        .routes(routes!(memberships::my_access))
        .routes(routes!(permissions::list, permissions::create))
        .routes(routes!(permissions::delete))
        .routes(routes!(permissions::check))
        .routes(routes!(requests::ask, requests::mine))
        .routes(routes!(requests::pending))
        .routes(routes!(requests::cancel))
        .routes(routes!(requests::preview))
        .routes(routes!(requests::approve))
        .routes(routes!(requests::deny))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::get, users::update, users::delete))
        .routes(routes!(users::activate))
        .routes(routes!(users::deactivate))
        .routes(routes!(users::invite))
        .routes(routes!(users::reset_password))
        .routes(routes!(users::set_password))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(policies::validate))
        .routes(routes!(policies::dry_run))
        .routes(routes!(policies::get, policies::update, policies::remove))
        .routes(routes!(policies::history))
        .routes(routes!(registry::list))
        .routes(routes!(registry::register))
        .routes(routes!(registry::precheck))
        .routes(routes!(registry::rebuild))
        .routes(routes!(registry::update, registry::remove))
        .routes(routes!(sources::list, sources::add))
        .routes(routes!(sources::remove))
        .routes(routes!(sources::check))
        .routes(routes!(sources::rebuild))
        .routes(routes!(maintenance::doctor))
        .routes(routes!(maintenance::gc))
        .routes(routes!(discovery::discover))
        .routes(routes!(discovery::discover_and_register))
        .routes(routes!(columns::metadata, columns::describe))
        .routes(routes!(columns::push))
        .routes(routes!(uploads::session))
        .routes(routes!(uploads::own_session))
        .routes(routes!(uploads::artifact))
        .routes(routes!(uploads::notes))
        .routes(routes!(uploads::table))
        .routes(routes!(webhooks::jira))
        .routes(routes!(webhooks::jira_again))
        .routes(routes!(webhooks::jira_health))
        .routes(routes!(webhooks::poll_levels))
        .routes(routes!(webhooks::check_consistency))
        .routes(routes!(webhooks::attachment))
        .routes(routes!(activity::activity))
        .routes(routes!(activity::of_user))
        .routes(routes!(activity::syncs))
        .routes(routes!(activity::health))
        .routes(routes!(observability::facets))
        .routes(routes!(observability::kpis))
        .routes(routes!(observability::views, observability::save_view))
        .routes(routes!(observability::delete_view))
        .routes(routes!(me::queries))
        .routes(routes!(me::syncs))
        .routes(routes!(settings::view, settings::update))
        .routes(routes!(settings::configure))
        .routes(routes!(instance::openapi))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file))
}
