//! Groups that the company's directory knows.

use agnes_core::identity::GroupPreview;
use agnes_core::rbac::DirectoryChange;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::{Caller, Sender};
use crate::openapi::{ForUsers, ProblemShape};
use crate::problem::Problem;
use crate::state::App;

/// What a sync of groups changed: names of groups, sorted.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"added": ["analysts"], "removed": [], "ignored": []}))]
pub(crate) struct GroupsAnswer {
    /// The caller belongs there now.
    #[schema(example = json!(["analysts@acme.example"]))]
    added: Vec<String>,
    /// They no longer do.
    removed: Vec<String>,
    /// Left alone: an admin made a group of that name here.
    ignored: Vec<String>,
}

impl From<DirectoryChange> for GroupsAnswer {
    fn from(change: DirectoryChange) -> Self {
        Self { added: change.added, removed: change.removed, ignored: change.ignored }
    }
}

/// Bring the caller's groups up to date with the directory
///
/// As signing in elsewhere does it; at most once a minute. A directory that cannot be asked
/// changes nothing.
#[utoipa::path(post, path = "/auth/refresh-groups", tag = "sign-in", responses(
    (status = 200, description = "What changed", body = GroupsAnswer),
    (status = 404, description = "Groups come from no directory here", body = ProblemShape, content_type = "application/problem+json"),
    (status = 409, description = "No Admin would be left", body = ProblemShape, content_type = "application/problem+json"),
    (status = 429, description = "Less than a minute ago", body = ProblemShape, content_type = "application/problem+json"),
    (status = 503, description = "The directory cannot be asked", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn refresh_groups(
    State(app): State<App>,
    Sender(client): Sender,
    Caller(ctx): Caller,
) -> Result<Json<GroupsAnswer>, Problem> {
    Ok(Json(app.engine().sign_in().refresh_groups(&ctx, &client, app.directory()).await?.into()))
}

/// What a sync of the caller's groups would do.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"soft_failed": false, "prefix": "agnes-", "fetched": ["agnes-analysts@example.com", "all@example.com"],
    "fetched_relevant": ["agnes-analysts@example.com"], "current_names": [], "current_external_ids": [],
    "would_add": ["analysts"], "would_remove": [], "applied": false}))]
pub(crate) struct GroupsPreview {
    /// Whether the directory could not be asked.
    soft_failed: bool,
    /// Beginning of the addresses that count.
    prefix: Option<String>,
    /// Addresses as the directory says them.
    fetched: Vec<String>,
    /// Those that count.
    fetched_relevant: Vec<String>,
    /// Names of the groups that came from the directory.
    current_names: Vec<String>,
    /// Addresses of those groups.
    current_external_ids: Vec<String>,
    /// Groups the caller would be put in.
    would_add: Vec<String>,
    /// Groups they would be taken out of.
    would_remove: Vec<String>,
    /// Always false: nothing was changed.
    applied: bool,
}

impl From<GroupPreview> for GroupsPreview {
    fn from(preview: GroupPreview) -> Self {
        Self {
            soft_failed: preview.soft_failed,
            prefix: preview.prefix,
            fetched: preview.fetched,
            fetched_relevant: preview.fetched_relevant,
            current_names: preview.current_names,
            current_external_ids: preview.current_external_ids,
            would_add: preview.would_add,
            would_remove: preview.would_remove,
            applied: false,
        }
    }
}

/// What a sync of the caller's groups would do
///
/// For whoever sets the directory up; only there with `AGNES_DEBUG_AUTH=1`. Changes nothing.
#[utoipa::path(post, path = "/me/profile/refetch-groups", tag = "sign-in", responses(
    (status = 200, description = "What it would do", body = GroupsPreview),
    (status = 404, description = "Switched off, or groups come from no directory here", body = ProblemShape, content_type = "application/problem+json"),
    ForUsers,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn refetch_groups(
    State(app): State<App>,
    caller: Result<Caller, Problem>,
) -> Result<Json<GroupsPreview>, Problem> {
    if !app.limits().debug_auth {
        return Err(Problem::not_found());
    }
    let Caller(ctx) = caller?;
    Ok(Json(app.engine().sign_in().preview_groups(&ctx, app.directory()).await?.into()))
}
