//! One file a subject: read the request, make one call, write the answer.

mod instance;

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
        .routes(routes!(instance::sync_status))
}
