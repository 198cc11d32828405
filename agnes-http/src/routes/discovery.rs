//! What sources offer, and taking it.

use agnes_core::registry::{OfferTaken, OfferedDataset, OfferedTable};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::caller::Caller;
use crate::extract::Query;
use crate::openapi::{ForAdmins, ProblemShape};
use crate::problem::Problem;
use crate::state::App;

/// Which tables of which source.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfferParams {
    /// Only of this dataset, bucket or folder at the source.
    dataset: Option<String>,
    /// Only of this source; of all that can list their tables without it.
    source: Option<String>,
    /// Tables also of warehouses without a `dataset`, which tell their datasets otherwise.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    tables: bool,
}

/// A table that a source offers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Offered {
    /// Its own name at the source, with that of the bucket it is in.
    id: String,
    /// The name it would be registered under.
    #[schema(example = "orders")]
    name: String,
    /// The bucket or dataset it is in, at a source that has such.
    bucket_id: Option<String>,
    /// What people call that bucket, where it is told apart from its id.
    bucket_name: Option<String>,
    /// Names of its columns, where the source lists them.
    columns: Vec<String>,
    /// Rows at the source, as it estimates them.
    row_count: Option<u64>,
    /// The source.
    source: String,
    /// Kind of the source.
    source_type: String,
    /// For people.
    description: Option<String>,
    /// How it would be brought up to date.
    sync_strategy: String,
    /// Column that names the part a row belongs to.
    partition_by: Option<String>,
    /// Columns that identify a row, when known.
    primary_key: Option<Vec<String>>,
    /// Bytes at the source, when known.
    size_bytes: Option<u64>,
    /// When it was changed last at the source, as the source writes it.
    last_change: Option<String>,
    /// When something was last written into it at the source, as the source writes it.
    last_import: Option<String>,
    /// `new`, `match` (registered already) or `drift` (another table has the name).
    registered: agnes_core::registry::Known,
}

impl From<OfferedTable> for Offered {
    fn from(offered: OfferedTable) -> Self {
        let OfferedTable { source, kind, table, registered } = offered;
        Self {
            id: table.id(),
            name: table.name.to_string(),
            columns: table.columns.into_iter().map(|(name, _)| name).collect(),
            row_count: table.rows,
            bucket_id: table.bucket,
            bucket_name: table.bucket_name,
            source,
            source_type: kind,
            description: table.description,
            sync_strategy: table.sync_strategy.as_str().to_owned(),
            partition_by: table.partition_by,
            primary_key: table.primary_key,
            size_bytes: table.size_bytes,
            last_change: table.last_change,
            last_import: table.last_import,
            registered,
        }
    }
}

/// What sources offer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Offers {
    /// By source and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    tables: Option<Vec<Offered>>,
    /// Instead of tables, where only warehouses were asked and no `dataset` was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    datasets: Option<Vec<OfferedDataset>>,
    /// How many.
    count: usize,
    /// Kind of the sources that were asked; `mixed` of several kinds, `local` where none was.
    source: String,
    /// Why some source, or all, could not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// As asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
}

/// The tables that sources offer
///
/// For admins. One source may take a minute to answer.
#[utoipa::path(get, path = "/api/admin/discover-tables", tag = "registry", params(OfferParams), responses(
    (status = 200, description = "The tables, registered or not, or the datasets of warehouses", body = Offers),
    ForAdmins,
    (status = 404, description = "There is no such source", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "The source failed", body = ProblemShape, content_type = "application/problem+json"),
    (status = 504, description = "The source took too long", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn discover(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<OfferParams>,
) -> Result<Json<Offers>, Problem> {
    let (sources, source) = (app.engine().sources(), params.source.as_deref());
    if params.dataset.is_none()
        && !params.tables
        && let Some((source, datasets)) = sources.datasets(&ctx, source).await?
    {
        let (count, datasets) = (datasets.len(), Some(datasets));
        return Ok(Json(Offers { tables: None, datasets, count, source, error: None, dataset: None }));
    }
    let offer = match &params.dataset {
        Some(dataset) => sources.offers_inside(&ctx, source, dataset).await?,
        None => sources.offers(&ctx, source).await?,
    };
    Ok(Json(Offers {
        count: offer.tables.len(),
        source: offer.kind().to_owned(),
        error: offer.error(),
        tables: Some(offer.tables.into_iter().map(Offered::from).collect()),
        datasets: None,
        dataset: params.dataset,
    }))
}

/// Which sources, and whether to do it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TakeParams {
    /// Only say what would be registered.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    dry_run: bool,
    /// Only of this source; of all that can list their tables without it.
    source: Option<String>,
    /// Only of sources of this kind.
    source_type: Option<String>,
}

/// What registering the offers of sources did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Taken {
    /// How many tables were registered.
    registered: usize,
    /// How many were registered already.
    skipped: usize,
    /// How many could not be registered, and how many sources could not answer.
    errors: usize,
    /// How many have the name of another table.
    drifted: usize,
    /// Ids of the new tables.
    tables: Vec<String>,
    /// Of each that has the name of another table: what the source says, what the registry says.
    drift: Vec<agnes_core::registry::Drift>,
    /// Why tables could not be registered, and sources not answer, one sentence each.
    invalid: Vec<String>,
    /// Kind of the sources that were asked; `mixed` of several kinds, `local` where none was.
    source: String,
    /// Whether nothing was done.
    dry_run: bool,
    /// With `dry_run`: how many would be registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_register: Option<usize>,
}

impl From<OfferTaken> for Taken {
    fn from(taken: OfferTaken) -> Self {
        let source = taken.kind().to_owned();
        let invalid: Vec<String> = taken.invalid.into_iter().chain(taken.errors).collect();
        Self {
            registered: if taken.dry_run { 0 } else { taken.tables.len() },
            skipped: taken.skipped,
            errors: invalid.len(),
            drifted: taken.drift.len(),
            would_register: taken.dry_run.then_some(taken.tables.len()),
            tables: taken.tables,
            drift: taken.drift,
            invalid,
            source,
            dry_run: taken.dry_run,
        }
    }
}

/// Register what sources offer
///
/// For admins. A table that is registered is never changed, not even when the source says
/// something else of its name.
#[utoipa::path(post, path = "/api/admin/discover-and-register", tag = "registry", params(TakeParams), responses(
    (status = 200, description = "What was registered", body = Taken),
    ForAdmins,
    (status = 404, description = "There is no such source", body = ProblemShape, content_type = "application/problem+json"),
    (status = 422, description = "A parameter is not valid", body = ProblemShape, content_type = "application/problem+json"),
    (status = 502, description = "The source failed", body = ProblemShape, content_type = "application/problem+json"),
    (status = 504, description = "The source took too long", body = ProblemShape, content_type = "application/problem+json"),
), security(("bearer" = []), ("session" = [])))]
pub(crate) async fn discover_and_register(
    State(app): State<App>,
    Caller(ctx): Caller,
    Query(params): Query<TakeParams>,
) -> Result<Json<Taken>, Problem> {
    let (source, kind) = (params.source.as_deref(), params.source_type.as_deref());
    Ok(Json(app.engine().sources().take_offers(&ctx, source, kind, params.dry_run).await?.into()))
}
