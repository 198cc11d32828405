//! What the sources offer, and registering it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{RegisteredSource, RegisteredTable, RegistryError, Sources};
use crate::connector::{Cancel, Connector, DiscoveredTable, Progress, SourceContext};
use crate::context::CallContext;
use crate::error::{Error, Result};
use crate::ident::printable;

/// How long one source may take to list its tables.
const PATIENCE: Duration = Duration::from_secs(60);

/// A table that a source offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfferedTable {
    /// The source.
    pub source: String,
    /// Kind of the source.
    pub kind: String,
    /// The table as the source tells of it.
    #[serde(flatten)]
    pub table: DiscoveredTable,
    /// How the registry knows it.
    pub registered: Known,
}

/// How the registry knows a table that a source offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// Not at all.
    New,
    /// As this table.
    Match,
    /// Another table has its name.
    Drift,
}

/// What sources offer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// By source and name.
    pub tables: Vec<OfferedTable>,
    /// Kinds of the sources that were asked.
    pub kinds: Vec<String>,
    /// Sources that could not answer, one sentence each.
    pub errors: Vec<String>,
}

/// A dataset of a warehouse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OfferedDataset {
    /// Its name.
    pub dataset_id: String,
    /// Its name behind that of its project.
    pub full_id: String,
}

/// A table whose name another one has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drift {
    /// Its id.
    pub table_id: String,
    /// What the source says.
    pub discovery: Coordinates,
    /// What the registry says.
    pub registry: Coordinates,
}

/// Where a table is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Coordinates {
    /// The source.
    pub source: Option<String>,
    /// The container at the source.
    pub bucket: Option<String>,
    /// Its own name there.
    pub source_table: Option<String>,
}

/// What registering an offer did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OfferTaken {
    /// Ids of the new tables.
    pub tables: Vec<String>,
    /// Tables that were registered already.
    pub skipped: usize,
    /// Tables whose name another one has: left as they are.
    pub drift: Vec<Drift>,
    /// Tables that cannot be registered, one sentence each.
    pub invalid: Vec<String>,
    /// Sources that could not answer, one sentence each.
    pub errors: Vec<String>,
    /// Kinds of the sources that were asked.
    pub kinds: Vec<String>,
    /// Whether nothing was done.
    pub dry_run: bool,
}

/// The kind of these; `mixed` of several, `local` of none.
fn one_kind(kinds: &[String]) -> &str {
    match kinds {
        [] => "local",
        [only] => only,
        _ => "mixed",
    }
}

impl Offer {
    /// Kind of the sources that were asked; `mixed` of several kinds, `local` where none was.
    #[must_use]
    pub fn kind(&self) -> &str {
        one_kind(&self.kinds)
    }

    /// Why some source, or all, could not answer.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self.errors.as_slice() {
            [] => self.kinds.is_empty().then(|| "no source can list its tables".to_owned()),
            errors => Some(errors.join("; ")),
        }
    }
}

impl OfferTaken {
    /// As [`Offer::kind`].
    #[must_use]
    pub fn kind(&self) -> &str {
        one_kind(&self.kinds)
    }
}

impl Sources<'_> {
    /// The tables that one source offers, or all that can list theirs. A source that cannot
    /// answer stops no other; when none can, its error is the answer.
    ///
    /// # Errors
    /// `source_not_found`, `unknown_connector`, `source_failed`, `discovery_timeout`,
    /// `admin_required`.
    pub async fn offers(&self, ctx: &CallContext, source: Option<&str>) -> Result<Offer> {
        self.admin(ctx).await?;
        let (offer, _) = self.ask(ctx, source, None).await?;
        Ok(offer)
    }

    /// [`Sources::offers`], of one dataset, bucket or folder at the source.
    ///
    /// # Errors
    /// Those of [`Sources::offers`].
    pub async fn offers_inside(&self, ctx: &CallContext, source: Option<&str>, dataset: &str) -> Result<Offer> {
        let mut offer = self.offers(ctx, source).await?;
        offer.tables.retain(|table| {
            let id = table.table.id();
            id.strip_prefix(dataset).is_some_and(|rest| rest.starts_with(['.', '/']))
        });
        Ok(offer)
    }

    /// The datasets of one source, or of all that can list their tables, and the kind of these; `None`
    /// where one of them is no warehouse, or there is none.
    ///
    /// # Errors
    /// Those of [`Sources::offers`], of the first that fails.
    pub async fn datasets(
        &self,
        ctx: &CallContext,
        source: Option<&str>,
    ) -> Result<Option<(String, Vec<OfferedDataset>)>> {
        self.admin(ctx).await?;
        let (mut asked, mut kinds) = (Vec::new(), Vec::new());
        for source in self.wanted(source).await? {
            let connector = super::sources::connector(self.engine, &source.kind)?;
            if !connector.capability().discover {
                continue;
            }
            if connector.warehouse().is_none() {
                return Ok(None);
            }
            kinds.push(source.kind.clone());
            asked.push((connector, source));
        }
        if asked.is_empty() {
            return Ok(None);
        }
        kinds.dedup();
        let mut found = Vec::new();
        for (connector, source) in &asked {
            let Some(warehouse) = connector.warehouse() else { continue };
            let context = super::sources::context(self.engine, source, Cancel::default(), Progress::default());
            let (_ends, context, left) = patient(ctx, context);
            let datasets = in_time(source, left, warehouse.datasets(&context)).await?;
            let home = warehouse.home(&context)?;
            let full = |dataset_id: String| OfferedDataset { full_id: format!("{home}.{dataset_id}"), dataset_id };
            found.extend(datasets.into_iter().map(full));
        }
        found.sort();
        Ok(Some((one_kind(&kinds).to_owned(), found)))
    }

    /// Registers the tables that one source offers, or all, or all of one kind, which are not registered
    /// yet.
    ///
    /// # Errors
    /// Those of [`Sources::offers`].
    pub async fn take_offers(
        &self,
        ctx: &CallContext,
        source: Option<&str>,
        kind: Option<&str>,
        dry_run: bool,
    ) -> Result<OfferTaken> {
        self.admin(ctx).await?;
        let done = self.take(ctx, source, kind, dry_run).await;
        if !dry_run {
            let resource =
                source.map_or_else(|| "all_sources".to_owned(), |name| format!("source:{}", printable(name, 64)));
            let params = done.as_ref().map_or(json!({}), |taken| json!({"tables": taken.tables}));
            let event = self.engine.audit().event(ctx, "table.discover").resource(resource);
            event.params(params).outcome(&done).record().await;
        }
        done
    }

    async fn take(
        &self,
        ctx: &CallContext,
        source: Option<&str>,
        kind: Option<&str>,
        dry_run: bool,
    ) -> Result<OfferTaken> {
        let (offer, sources) = self.ask(ctx, source, kind).await?;
        let mut taken = OfferTaken { errors: offer.errors, kinds: offer.kinds, dry_run, ..OfferTaken::default() };
        for offered in offer.tables {
            let id = offered.table.name.as_str().to_lowercase();
            match offered.registered {
                Known::Match => taken.skipped += 1,
                Known::Drift => {
                    let Some(row) = self.engine.store().tables().find(&id).await? else { continue };
                    taken.drift.push(Drift {
                        table_id: id,
                        discovery: Coordinates {
                            source: Some(offered.source),
                            bucket: offered.table.bucket,
                            source_table: Some(offered.table.source_table),
                        },
                        registry: Coordinates {
                            source: row.source,
                            bucket: row.bucket,
                            source_table: row.source_table,
                        },
                    });
                }
                Known::New if dry_run => taken.tables.push(id),
                Known::New => {
                    let Some(source) = sources.iter().find(|source| source.name.as_str() == offered.source) else {
                        continue;
                    };
                    let by = ctx.principal().user_id();
                    let (added, refused) = self.engine.register_discovered(source, vec![offered.table], by).await?;
                    taken.tables.extend(added.into_iter().map(|row| row.id));
                    taken.invalid.extend(refused);
                }
            }
        }
        Ok(taken)
    }

    async fn ask(
        &self,
        ctx: &CallContext,
        wanted: Option<&str>,
        kind: Option<&str>,
    ) -> Result<(Offer, Vec<RegisteredSource>)> {
        let mut sources = self.wanted(wanted).await?;
        sources.retain(|source| kind.is_none_or(|kind| source.kind == kind));
        let mut offer = Offer::default();
        let mut first = None;
        let mut answered = false;
        for source in &sources {
            match self.ask_one(ctx, source).await {
                // One that cannot list its tables offers none.
                Ok(None) => continue,
                Ok(Some(found)) => {
                    answered = true;
                    for table in found {
                        let registered = self.known(source, &table).await?;
                        let (name, kind) = (source.name.as_str().to_owned(), source.kind.clone());
                        offer.tables.push(OfferedTable { source: name, kind, table, registered });
                    }
                }
                Err(error) => {
                    offer.errors.push(error.to_string());
                    first.get_or_insert(error);
                }
            }
            if !offer.kinds.contains(&source.kind) {
                offer.kinds.push(source.kind.clone());
            }
        }
        match first {
            Some(error) if !answered => Err(error),
            _ => Ok((offer, sources)),
        }
    }

    /// The source of this name, or all.
    async fn wanted(&self, name: Option<&str>) -> Result<Vec<RegisteredSource>> {
        match name {
            Some(name) => Ok(vec![self.get(name).await?]),
            None => self.engine.store().sources().list().await,
        }
    }

    async fn ask_one(&self, ctx: &CallContext, source: &RegisteredSource) -> Result<Option<Vec<DiscoveredTable>>> {
        let connector = super::sources::connector(self.engine, &source.kind)?;
        if !connector.capability().discover {
            return Ok(None);
        }
        let context = super::sources::context(self.engine, source, Cancel::default(), Progress::default());
        discover(ctx, connector.as_ref(), source, context).await.map(Some)
    }

    async fn known(&self, source: &RegisteredSource, table: &DiscoveredTable) -> Result<Known> {
        let row: Option<RegisteredTable> = self.engine.store().tables().find(table.name.as_str()).await?;
        Ok(match row {
            None => Known::New,
            Some(row) => {
                let here = row.source.as_deref() == Some(source.name.as_str())
                    && ((row.source_table.as_deref() == Some(table.source_table.as_str())
                        && row.bucket == table.bucket)
                        || crate::uploads::is_upload(&row));
                if here { Known::Match } else { Known::Drift }
            }
        })
    }
}

/// Ends the work when nobody waits for it any more.
struct EndsWith(Cancel);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The tables of a source, within the time that somebody waits for them.
pub(super) async fn discover(
    ctx: &CallContext,
    connector: &dyn Connector,
    source: &RegisteredSource,
    context: SourceContext,
) -> Result<Vec<DiscoveredTable>> {
    let (_ends, context, left) = patient(ctx, context);
    in_time(source, left, connector.discover(&context)).await
}

/// What a source is asked with, and for how long.
fn patient(ctx: &CallContext, mut context: SourceContext) -> (EndsWith, SourceContext, Duration) {
    let cancel = EndsWith(Cancel::default());
    context.cancel = cancel.0.clone();
    let left = ctx.deadline().map_or(PATIENCE, |at| at.saturating_duration_since(Instant::now()).min(PATIENCE));
    (cancel, context, left)
}

async fn in_time<T>(
    source: &RegisteredSource,
    left: Duration,
    asked: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    match tokio::time::timeout(left, asked).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) => Err(failed(source, &error).into()),
        Err(_) => {
            let source_name = source.name.to_string();
            Err(RegistryError::DiscoveryTimeout { source_name, seconds: left.as_secs() }.into())
        }
    }
}

fn failed(source: &RegisteredSource, error: &Error) -> RegistryError {
    RegistryError::SourceFailed {
        source_name: source.name.to_string(),
        reason: error.to_string(),
        cause: error.code().to_owned(),
        advice: error.hint(),
    }
}
