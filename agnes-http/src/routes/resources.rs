//! What can be granted, and everything that a page of access shows. For admins.

use agnes_core::identity::{AccessOverview, ResourceBlock, ResourceItem, ResourceKind};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{GrantAnswer, GroupAnswer};
use crate::caller::Caller;
use crate::openapi::ForAdmins;
use crate::problem::Problem;
use crate::state::App;

/// A kind of resource.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResourceTypeAnswer {
    /// What grants say.
    #[schema(example = "table")]
    key: &'static str,
    /// For people.
    display_name: String,
    /// For people.
    description: String,
    /// How its ids are written.
    #[schema(example = "<table_id>")]
    id_format: String,
}

impl From<ResourceKind> for ResourceTypeAnswer {
    fn from(kind: ResourceKind) -> Self {
        let ResourceKind { key, display_name, description, id_format } = kind;
        Self { key: key.as_str(), display_name, description, id_format }
    }
}

/// The kinds of resource that can be granted
#[utoipa::path(get, path = "/api/admin/resource-types", tag = "access", responses(
    (status = 200, description = "The kinds", body = Vec<ResourceTypeAnswer>),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn types(
    State(app): State<App>,
    Caller(ctx): Caller,
) -> Result<Json<Vec<ResourceTypeAnswer>>, Problem> {
    let kinds = app.engine().identity().resource_kinds(&ctx).await?;
    Ok(Json(kinds.into_iter().map(ResourceTypeAnswer::from).collect()))
}

/// One resource.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Item {
    /// What grants name.
    resource_id: String,
    /// For people.
    name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Of a table: the kind of its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type: Option<String>,
    /// Of a table: `local`, `remote` or `materialized`.
    #[serde(skip_serializing_if = "Option::is_none")]
    query_mode: Option<String>,
}

/// Resources that belong together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Block {
    /// Unique among the blocks of its kind.
    id: String,
    /// For people.
    name: String,
    /// By name.
    items: Vec<Item>,
}

impl From<ResourceBlock> for Block {
    fn from(block: ResourceBlock) -> Self {
        let item = |item: ResourceItem| {
            let ResourceItem { resource_id, name, description, source_type, query_mode } = item;
            Item { resource_id, name, description, source_type, query_mode }
        };
        Self { id: block.id, name: block.name, items: block.items.into_iter().map(item).collect() }
    }
}

/// What there is of one kind.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Resources {
    /// The kind.
    #[schema(example = "table")]
    type_key: &'static str,
    /// For people.
    type_display: String,
    /// What there is of it.
    blocks: Vec<Block>,
}

/// Groups, grants, and what can be granted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// System groups first, then by name.
    groups: Vec<GroupAnswer>,
    /// By group, kind and id.
    grants: Vec<GrantAnswer>,
    /// What can be granted.
    resources: Vec<Resources>,
}

/// Groups, grants, and what can be granted, at once
#[utoipa::path(get, path = "/api/admin/access-overview", tag = "access", responses(
    (status = 200, description = "All of it", body = Overview),
    ForAdmins,
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn overview(State(app): State<App>, Caller(ctx): Caller) -> Result<Json<Overview>, Problem> {
    let AccessOverview { groups, grants, resources } = app.engine().identity().access_overview(&ctx).await?;
    let resources = resources.into_iter().map(|(kind, blocks)| Resources {
        type_key: kind.key.as_str(),
        type_display: kind.display_name,
        blocks: blocks.into_iter().map(Block::from).collect(),
    });
    Ok(Json(Overview {
        groups: groups.into_iter().map(GroupAnswer::from).collect(),
        grants: grants.into_iter().map(GrantAnswer::from).collect(),
        resources: resources.collect(),
    }))
}
