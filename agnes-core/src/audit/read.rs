//! Reading the log: page by page with names, counted, and one's own rows.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Audit, AuditEvent, AuditFigures, AuditFilter, FacetValue};
use crate::context::CallContext;
use crate::error::Result;
use crate::rbac::Ability;
use crate::sync::SyncHistory;

/// Values of each facet, the most frequent first.
const FACET_VALUES: usize = 50;

/// One row with the name of who did it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedEvent {
    /// The row.
    #[serde(flatten)]
    pub event: AuditEvent,
    /// Their address, while they are a user.
    pub user_email: Option<String>,
    /// Their name.
    pub user_name: Option<String>,
}

/// Some rows, newest first, and where the next page begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The rows.
    pub rows: Vec<NamedEvent>,
    /// For [`AuditFilter::before`]; none on the last page.
    pub next: Option<(DateTime<Utc>, String)>,
}

/// What values the rows of a time have, with how often.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditFacets {
    /// Who: id, address and name where they are known.
    pub users: Vec<(FacetValue, Option<String>)>,
    /// What.
    pub actions: Vec<FacetValue>,
    /// How it ended.
    pub results: Vec<FacetValue>,
    /// On what.
    pub resources: Vec<FacetValue>,
    /// Through which frontend.
    pub sources: Vec<FacetValue>,
}

/// Which of the caller's own rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MyRows {
    /// What they asked.
    Queries,
    /// What they fetched: manifests, files.
    Sync,
}

/// One sync of one table, as people who look after it want to see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastSync {
    /// What happened.
    #[serde(flatten)]
    pub past: SyncHistory,
    /// Id of the table; its name where it is not registered any more.
    pub registry_id: String,
    /// Bytes of Parquet; known of the last good sync alone.
    pub size_bytes: Option<i64>,
}

impl Audit<'_> {
    /// A page of the log with names, newest first. For admins and the service.
    ///
    /// # Errors
    /// `admin_required`, `inactive_user`.
    pub async fn page(&self, ctx: &CallContext, filter: &AuditFilter) -> Result<AuditPage> {
        // One more says whether there is another page.
        let wanted = AuditFilter { limit: filter.limit.saturating_add(1), ..filter.clone() };
        let rows = self.list(ctx, &wanted).await?;
        self.named(rows, filter.limit).await
    }

    /// The caller's own rows, newest first.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`, `service_forbidden`.
    pub async fn mine(
        &self,
        ctx: &CallContext,
        which: MyRows,
        limit: usize,
        before: Option<(DateTime<Utc>, String)>,
    ) -> Result<AuditPage> {
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require_person()?;
        ctx.principal().require(Ability::Everything)?;
        self.engine.audit_log().flush().await;
        let actions: &[&str] = match which {
            MyRows::Queries => &["query."],
            MyRows::Sync => &["manifest.fetch", "data."],
        };
        let filter = AuditFilter {
            user_id: Some(ctx.principal().user_id().to_owned()),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            limit: limit.saturating_add(1),
            before,
            ..AuditFilter::default()
        };
        let rows = self.engine.store().audit().list(&filter).await?;
        self.named(rows, limit).await
    }

    async fn named(&self, mut rows: Vec<AuditEvent>, limit: usize) -> Result<AuditPage> {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| (last.timestamp, last.id.clone()));
        let known = self.engine.sign_in().credentials().await?;
        let named = |event: AuditEvent| {
            let account = event.user_id.as_ref().and_then(|id| known.accounts.get(id));
            NamedEvent {
                user_email: account.map(|account| account.email.clone()),
                user_name: account.and_then(|account| account.name.clone()),
                event,
            }
        };
        Ok(AuditPage { rows: rows.into_iter().map(named).collect(), next })
    }

    /// What values the rows since then have, 50 of each. For admins and the service.
    ///
    /// # Errors
    /// `admin_required`, `inactive_user`.
    pub async fn facets(&self, ctx: &CallContext, since: DateTime<Utc>) -> Result<AuditFacets> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        self.engine.audit_log().flush().await;
        let [users, actions, results, resources, sources] =
            self.engine.store().audit().facets(since, FACET_VALUES).await?;
        let known = self.engine.sign_in().credentials().await?;
        let labelled = |user: FacetValue| {
            let label = known.accounts.get(&user.value).map(|account| account.email.clone());
            (user, label)
        };
        let users = users.into_iter().map(labelled).collect();
        Ok(AuditFacets { users, actions, results, resources, sources })
    }

    /// Rows that fit, counted; limit and cursor do not matter. For admins and the service.
    ///
    /// # Errors
    /// `admin_required`, `inactive_user`.
    pub async fn figures(&self, ctx: &CallContext, filter: &AuditFilter) -> Result<AuditFigures> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        self.engine.audit_log().flush().await;
        self.engine.store().audit().figures(filter).await
    }

    /// Syncs of every table in the last `minutes`, newest first. For admins and the service.
    ///
    /// # Errors
    /// `admin_required`, `inactive_user`.
    pub async fn syncs(&self, ctx: &CallContext, minutes: i64, limit: usize) -> Result<Vec<PastSync>> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let since = self.engine.clock().now() - TimeDelta::minutes(minutes);
        let (sync, index) = (self.engine.store().sync(), self.engine.table_index().await?);
        let states = sync.all().await?;
        let rows = sync.recent(since, limit, None).await?;
        Ok(rows
            .into_iter()
            .map(|past| PastSync {
                registry_id: index.by_name(&past.table_id).map_or_else(|| past.table_id.clone(), |row| row.id.clone()),
                size_bytes: states
                    .iter()
                    .find(|state| state.table_id == past.table_id && state.last_sync == Some(past.synced_at))
                    .and_then(|state| state.file_size_bytes),
                past,
            })
            .collect())
    }
}
