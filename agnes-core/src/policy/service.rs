//! What admins do with policies.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::check::{Checked, check_rules};
use super::{Policy, PolicyError, PolicyRules, PolicyVersion};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::identity::resolve;
use crate::rbac::{AccessSnapshot, Group, ResourceType};

/// Policies of an engine. Everything here is for admins; a policy is named by its id or a
/// unique prefix of it.
#[derive(Debug, Clone, Copy)]
pub struct Policies<'a> {
    pub(super) engine: &'a Engine,
}

impl Engine {
    /// Row filters, masks and hidden columns.
    #[must_use]
    pub fn policies(&self) -> Policies<'_> {
        Policies { engine: self }
    }
}

/// A policy with the names behind its ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyRow {
    /// The policy.
    #[serde(flatten)]
    pub policy: Policy,
    /// Name of its group.
    pub group_name: String,
    /// Name of its table in SQL.
    pub table: String,
    /// Whether that table is published.
    pub published: bool,
    /// Whether the group has a grant for the table: without one, only a restrictive filter
    /// of it counts.
    pub granted: bool,
}

/// Whether a policy fits the data as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyCheck {
    /// Which policy.
    pub policy_id: String,
    /// Name of its group.
    pub group_name: String,
    /// Name of its table in SQL.
    pub table: String,
    /// Whether it works.
    pub ok: bool,
    /// Rows of the table.
    pub rows: Option<u64>,
    /// Rows that its filter lets through for the caller of the check.
    pub rows_left: Option<u64>,
    /// What is wrong, in words.
    pub problem: Option<String>,
}

fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Policies<'_> {
    pub(super) async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())
    }

    async fn manager(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())
    }

    pub(super) async fn find(&self, reference: &str) -> Result<Policy> {
        let all = self.engine.store().policies().list().await?;
        resolve(reference, &all, |p| &p.id, |p| &p.id)?
            .ok_or_else(|| PolicyError::NotFound { policy: crate::ident::printable(reference, 80) }.into())
    }

    async fn row(&self, policy: Policy, access: &AccessSnapshot) -> Result<PolicyRow> {
        let index = self.engine.table_index().await?;
        let table = index.find(&policy.table_id).map_or_else(|| policy.table_id.clone(), |row| row.name.clone());
        let grants = access.grants.get(&(ResourceType::Table, policy.table_id.clone()));
        Ok(PolicyRow {
            group_name: access.groups.get(&policy.group_id).map(|g| g.name.clone()).unwrap_or_default(),
            published: self.engine.generation().table(&table).is_some(),
            granted: grants.into_iter().flatten().any(|(group, _)| *group == policy.group_id),
            table,
            policy,
        })
    }

    /// Makes a policy, once it is shown to work on the data as it is now.
    ///
    /// # Errors
    /// `policy_empty`, `policy_invalid`, `policy_table_not_found`, `policy_on_remote_table`,
    /// `policy_on_internal_table`, `policy_exists`, `group_not_found`, `admin_required`,
    /// `service_forbidden`.
    pub async fn create(&self, ctx: &CallContext, group: &str, table: &str, rules: PolicyRules) -> Result<PolicyRow> {
        self.manager(ctx).await?;
        let group = self.engine.identity().find_group(group).await?;
        let done = self.create_checked(ctx, &group, table, rules).await;
        let params = match &done {
            Ok(row) => json!({"id": row.policy.id, "group": group.name, "version": 1, "rules": row.policy.rules}),
            Err(_) => json!({"group": group.name}),
        };
        self.engine
            .audit()
            .event(ctx, "policy.created")
            .resource(format!("table:{}", crate::ident::printable(table, 80)))
            .params(params)
            .outcome(&done)
            .record()
            .await;
        done
    }

    async fn create_checked(
        &self,
        ctx: &CallContext,
        group: &Group,
        table: &str,
        rules: PolicyRules,
    ) -> Result<PolicyRow> {
        let Checked { table_id, rules, .. } = check_rules(self.engine, ctx.principal(), table, rules).await?;
        let policy = Policy {
            id: new_id(),
            group_id: group.id.clone(),
            table_id,
            rules,
            version: 1,
            created_at: Some(self.engine.clock().now()),
            created_by: Some(ctx.principal().user_id().to_owned()),
            updated_at: None,
            updated_by: None,
        };
        self.engine.store().policies().insert(&policy).await?;
        self.row(policy, &*self.engine.access().await?).await
    }

    /// All policies, or those of one table or group.
    ///
    /// # Errors
    /// `group_not_found`, `admin_required`.
    pub async fn list(&self, ctx: &CallContext, table: Option<&str>, group: Option<&str>) -> Result<Vec<PolicyRow>> {
        self.admin(ctx).await?;
        let group = match group {
            Some(reference) => Some(self.engine.identity().find_group(reference).await?.id),
            None => None,
        };
        self.rows(table, group.as_deref()).await
    }

    /// The policies of one table, or of the group with exactly this id; none where there is no
    /// such group.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn of(&self, ctx: &CallContext, table: Option<&str>, group_id: Option<&str>) -> Result<Vec<PolicyRow>> {
        self.admin(ctx).await?;
        self.rows(table, group_id).await
    }

    async fn rows(&self, table: Option<&str>, group_id: Option<&str>) -> Result<Vec<PolicyRow>> {
        let index = self.engine.table_index().await?;
        let table = table.map(|t| index.find(t).map_or_else(|| t.to_lowercase(), |row| row.id.to_lowercase()));
        let access = self.engine.access().await?;
        let mut rows = Vec::new();
        for policy in self.engine.store().policies().list().await? {
            let wanted =
                table.as_ref().is_none_or(|t| *t == policy.table_id) && group_id.is_none_or(|id| id == policy.group_id);
            if wanted {
                rows.push(self.row(policy, &access).await?);
            }
        }
        Ok(rows)
    }

    /// One policy.
    ///
    /// # Errors
    /// `policy_not_found`, `ambiguous_reference`, `admin_required`.
    pub async fn get(&self, ctx: &CallContext, policy: &str) -> Result<PolicyRow> {
        self.admin(ctx).await?;
        self.row(self.find(policy).await?, &*self.engine.access().await?).await
    }

    /// The policy with exactly this id, for programs: they mean no other one.
    ///
    /// # Errors
    /// `policy_not_found`, `admin_required`.
    pub async fn exact(&self, ctx: &CallContext, id: &str) -> Result<PolicyRow> {
        self.admin(ctx).await?;
        self.row(self.with_id(id).await?, &*self.engine.access().await?).await
    }

    /// As [`Policies::exact`], for whoever means to change it: who may not is told so, whether
    /// or not it is there.
    ///
    /// # Errors
    /// `policy_not_found`, `admin_required`, `service_forbidden`.
    pub async fn exact_to_change(&self, ctx: &CallContext, id: &str) -> Result<PolicyRow> {
        self.manager(ctx).await?;
        self.row(self.with_id(id).await?, &*self.engine.access().await?).await
    }

    async fn with_id(&self, id: &str) -> Result<Policy> {
        let found = self.engine.store().policies().get(id).await?;
        found.ok_or_else(|| PolicyError::NotFound { policy: crate::ident::printable(id, 80) }.into())
    }

    /// What a policy said, newest first; of a removed one by its whole id.
    ///
    /// # Errors
    /// `policy_not_found`, `admin_required`,
    /// `service_forbidden`.
    pub async fn history(&self, ctx: &CallContext, policy: &str) -> Result<Vec<PolicyVersion>> {
        self.admin(ctx).await?;
        let id = match self.find(policy).await {
            Ok(found) => found.id,
            Err(_) => policy.to_owned(),
        };
        let versions = self.engine.store().policies().history(&id).await?;
        if versions.is_empty() {
            return Err(PolicyError::NotFound { policy: crate::ident::printable(policy, 80) }.into());
        }
        Ok(versions)
    }

    /// Gives a policy other rules, once they are shown to work. `expected` is the version
    /// that the change was made from, where the caller knows it.
    ///
    /// # Errors
    /// Those of [`Policies::create`]; `policy_not_found`, `policy_changed`.
    pub async fn update(
        &self,
        ctx: &CallContext,
        policy: &str,
        rules: PolicyRules,
        expected: Option<u32>,
    ) -> Result<PolicyRow> {
        self.manager(ctx).await?;
        let before = self.find(policy).await?;
        let work = async {
            if expected.is_some_and(|version| version != before.version) {
                return Err(PolicyError::Changed.into());
            }
            let Checked { rules, .. } = check_rules(self.engine, ctx.principal(), &before.table_id, rules).await?;
            let after = Policy {
                rules,
                version: before.version.saturating_add(1),
                updated_at: Some(self.engine.clock().now()),
                updated_by: Some(ctx.principal().user_id().to_owned()),
                ..before.clone()
            };
            self.engine.store().policies().update(&after).await?;
            self.row(after, &*self.engine.access().await?).await
        };
        let done = work.await;
        let after = done.as_ref().ok().map(|row| json!({"version": row.policy.version, "rules": row.policy.rules}));
        self.engine
            .audit()
            .event(ctx, "policy.updated")
            .resource(format!("table:{}", before.table_id))
            .before(json!({"id": before.id, "version": before.version, "rules": before.rules}))
            .params(json!({"id": before.id, "after": after}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Removes a policy: from the next call on its group reads what its grant opens.
    ///
    /// # Errors
    /// `policy_not_found`, `ambiguous_reference`, `admin_required`,
    /// `service_forbidden`.
    pub async fn remove(&self, ctx: &CallContext, policy: &str) -> Result<Policy> {
        self.manager(ctx).await?;
        let found = self.find(policy).await?;
        let (now, who) = (self.engine.clock().now(), ctx.principal().user_id());
        let done = self.engine.store().policies().delete(&found.id, now, who).await;
        self.engine
            .audit()
            .event(ctx, "policy.removed")
            .resource(format!("table:{}", found.table_id))
            .before(json!({"id": found.id, "group_id": found.group_id, "version": found.version, "rules": found.rules}))
            .outcome(&done)
            .record()
            .await;
        done
    }

    /// Tries policies on the data as it is now: one, or all.
    ///
    /// # Errors
    /// `policy_not_found`, `ambiguous_reference`, `admin_required`.
    pub async fn check(&self, ctx: &CallContext, policy: Option<&str>) -> Result<Vec<PolicyCheck>> {
        self.admin(ctx).await?;
        let policies = match policy {
            Some(reference) => vec![self.find(reference).await?],
            None => self.engine.store().policies().list().await?,
        };
        let access = self.engine.access().await?;
        let mut checks = Vec::new();
        for policy in policies {
            let row = self.row(policy, &access).await?;
            let rules = row.policy.rules.clone();
            let done = check_rules(self.engine, ctx.principal(), &row.policy.table_id, rules).await;
            checks.push(PolicyCheck {
                policy_id: row.policy.id,
                group_name: row.group_name,
                table: row.table,
                ok: done.is_ok(),
                rows: done.as_ref().ok().map(|checked| checked.rows),
                rows_left: done.as_ref().ok().map(|checked| checked.rows_left),
                problem: done.err().map(|error| error.to_string()),
            });
        }
        Ok(checks)
    }
}
