//! What a change of grants or policies would do, before it is made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::check::{check_rules, count, published};
use super::narrowed::{narrow, user_values};
use super::{Distribution, Narrowing, Policies, Policy, PolicyRules, effective};
use crate::context::CallContext;
use crate::error::Result;
use crate::orchestrator::{Generation, PublishedTable};
use crate::rbac::{AccessSnapshot, AuthMethod, ClientKind, Principal, ResourceType};

/// People whose change is shown one by one.
const SHOWN: usize = 200;
/// Different parts of a table whose rows are counted.
const COUNTED: usize = 20;

/// A change that may be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum AccessChange {
    /// [`Policies::create`].
    CreatePolicy {
        /// Id, name or unique prefix.
        group: String,
        /// Id or name.
        table: String,
        /// What it would say.
        rules: PolicyRules,
    },
    /// [`Policies::update`].
    UpdatePolicy {
        /// Id or unique prefix.
        policy: String,
        /// What it would say.
        rules: PolicyRules,
    },
    /// [`Policies::remove`].
    RemovePolicy {
        /// Id or unique prefix.
        policy: String,
    },
    /// A grant of a table.
    Grant {
        /// Id, name or unique prefix.
        group: String,
        /// Id or name.
        table: String,
    },
    /// An access request that is approved: a membership and a grant of a table.
    Approve {
        /// Id, name or unique prefix.
        group: String,
        /// Id or name.
        table: String,
        /// Who asked.
        user_id: String,
    },
    /// A grant that is taken back.
    Revoke {
        /// Id or unique prefix.
        grant: String,
    },
}

/// What a change would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessPreview {
    /// Name of the table in SQL.
    pub table: String,
    /// Rows of the whole table.
    pub rows: u64,
    /// Those who would see something else, by address; at most 200.
    pub changes: Vec<UserChange>,
    /// How many more there are.
    pub more: usize,
    /// Active users who would see the same.
    pub unchanged: usize,
}

/// What a change would do for one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserChange {
    /// Who.
    pub user_id: String,
    /// Their address.
    pub email: String,
    /// What they see now; none when they may not read the table.
    pub before: Option<SeenPart>,
    /// What they would see.
    pub after: Option<SeenPart>,
    /// Columns they would see that they do not.
    pub gained_columns: Vec<String>,
    /// Columns they would no longer see.
    pub lost_columns: Vec<String>,
}

/// What somebody sees of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeenPart {
    /// Rows; none when they were not counted or the policies fail on the data.
    pub rows: Option<u64>,
    /// Columns, in order.
    pub columns: Vec<String>,
    /// Columns that are masked, and how.
    pub masked: BTreeMap<String, String>,
    /// What leaves the server.
    pub distribution: Distribution,
}

/// What a person may read of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    allowed: bool,
    narrowing: Narrowing,
}

impl State {
    fn of(access: &AccessSnapshot, who: &Principal, table_id: &str) -> Self {
        let policies = access.policies.get(table_id).map(Vec::as_slice).unwrap_or_default();
        let mut narrowing = effective(policies, access, who, table_id);
        // Which policies count is no change by itself.
        narrowing.policies.clear();
        Self { allowed: access.decide(who, ResourceType::Table, table_id).allowed, narrowing }
    }
}

impl Policies<'_> {
    /// Who would gain or lose what by a change, which is not made.
    ///
    /// # Errors
    /// Those of the change itself.
    pub async fn preview(&self, ctx: &CallContext, change: AccessChange) -> Result<AccessPreview> {
        self.admin(ctx).await?;
        let generation = self.engine.generation();
        let before = self.engine.access().await?;
        let mut after = (*before).clone();
        let table_id = self.apply(ctx, &mut after, &generation, change).await?;
        let index = self.engine.table_index().await?;
        let name = index.find(&table_id).map_or_else(|| table_id.clone(), |row| row.name.clone());
        let table = generation.table(&name).cloned();
        let mut preview = AccessPreview {
            table: name,
            rows: table.as_ref().map_or(0, |table| table.rows),
            changes: Vec::new(),
            more: 0,
            unchanged: 0,
        };
        let mut counts = HashMap::new();
        let mut people: Vec<(&String, &String)> = before.active_users.iter().collect();
        people.sort_by_key(|(_, email)| *email);
        for (user_id, email) in people {
            let who = Principal::user(user_id.clone(), AuthMethod::Local, ClientKind::Api);
            let (old, new) = (State::of(&before, &who, &table_id), State::of(&after, &who, &table_id));
            if old == new || !old.allowed && !new.allowed {
                preview.unchanged += 1;
                continue;
            }
            if preview.changes.len() == SHOWN {
                preview.more += 1;
                continue;
            }
            let mut seen = Vec::new();
            for (access, state) in [(&*before, &old), (&after, &new)] {
                seen.push(match (&table, state.allowed) {
                    (Some(table), true) => Some(self.seen(access, &who, &generation, table, state, &mut counts).await?),
                    (None, true) => Some(SeenPart {
                        rows: None,
                        columns: Vec::new(),
                        masked: BTreeMap::new(),
                        distribution: state.narrowing.distribution,
                    }),
                    (_, false) => None,
                });
            }
            let (after, before) = (seen.pop().flatten(), seen.pop().flatten());
            let columns = |part: &Option<SeenPart>| part.as_ref().map(|p| p.columns.clone()).unwrap_or_default();
            let (had, has) = (columns(&before), columns(&after));
            preview.changes.push(UserChange {
                user_id: user_id.clone(),
                email: email.clone(),
                gained_columns: has.iter().filter(|c| !had.contains(c)).cloned().collect(),
                lost_columns: had.iter().filter(|c| !has.contains(c)).cloned().collect(),
                before,
                after,
            });
        }
        Ok(preview)
    }

    /// The id that grants use for a table that is registered or published.
    async fn table_id(&self, generation: &Generation, table: &str) -> Result<String> {
        match self.engine.table_index().await?.find(table) {
            Some(row) => Ok(row.id.to_lowercase()),
            None => Ok(published(self.engine, generation, table).await?.0),
        }
    }

    /// Makes the change in a copy of the decisions; the id of the table it is about.
    async fn apply(
        &self,
        ctx: &CallContext,
        access: &mut AccessSnapshot,
        generation: &Generation,
        change: AccessChange,
    ) -> Result<String> {
        match change {
            AccessChange::CreatePolicy { group, table, rules } => {
                let group = self.engine.identity().find_group(&group).await?;
                let checked = check_rules(self.engine, ctx.principal(), &table, rules).await?;
                let of_table = access.policies.entry(checked.table_id.clone()).or_default();
                if of_table.iter().any(|policy| policy.group_id == group.id) {
                    return Err(super::PolicyError::Exists { group: group.name }.into());
                }
                of_table.push(Policy {
                    id: "preview".to_owned(),
                    group_id: group.id,
                    table_id: checked.table_id.clone(),
                    rules: checked.rules,
                    version: 1,
                    created_at: None,
                    created_by: None,
                    updated_at: None,
                    updated_by: None,
                });
                Ok(checked.table_id)
            }
            AccessChange::UpdatePolicy { policy, rules } => {
                let found = self.find(&policy).await?;
                let checked = check_rules(self.engine, ctx.principal(), &found.table_id, rules).await?;
                let of_table = access.policies.entry(found.table_id.clone()).or_default();
                of_table.iter_mut().filter(|p| p.id == found.id).for_each(|p| p.rules = checked.rules.clone());
                Ok(found.table_id)
            }
            AccessChange::RemovePolicy { policy } => {
                let found = self.find(&policy).await?;
                access.policies.entry(found.table_id.clone()).or_default().retain(|p| p.id != found.id);
                Ok(found.table_id)
            }
            AccessChange::Grant { group, table } => {
                let group = self.engine.identity().find_group(&group).await?;
                let id = self.table_id(generation, &table).await?;
                access.granted_to.entry((group.id.clone(), ResourceType::Table)).or_default().insert(id.clone());
                let grants = access.grants.entry((ResourceType::Table, id.clone())).or_default();
                grants.push((group.id, "preview".to_owned()));
                Ok(id)
            }
            AccessChange::Approve { group, table, user_id } => {
                let group = self.engine.identity().find_group(&group).await?;
                let id = self.table_id(generation, &table).await?;
                access.give(&group.id, &user_id, ResourceType::Table, &id);
                Ok(id)
            }
            AccessChange::Revoke { grant } => {
                let found = self.engine.identity().find_grant(&grant).await?;
                let id = found.resource_id.to_lowercase();
                if found.resource_type != ResourceType::Table {
                    return Err(super::PolicyError::NoTable { table: crate::ident::printable(&id, 80) }.into());
                }
                if let Some(of_group) = access.granted_to.get_mut(&(found.group_id.clone(), ResourceType::Table)) {
                    of_group.remove(&id);
                }
                if let Some(grants) = access.grants.get_mut(&(ResourceType::Table, id.clone())) {
                    grants.retain(|(_, grant)| *grant != found.id);
                }
                Ok(id)
            }
        }
    }

    async fn seen(
        &self,
        access: &AccessSnapshot,
        who: &Principal,
        generation: &Generation,
        table: &PublishedTable,
        state: &State,
        counts: &mut HashMap<String, Option<u64>>,
    ) -> Result<SeenPart> {
        let narrowing = &state.narrowing;
        let rows = if narrowing.filters_rows() {
            let (gate, key) = (self.engine.queries().gate().await?, self.engine.instance_key().await?);
            match narrow(gate, generation, table, narrowing, &user_values(access, who), key).await {
                Ok(narrowed) => match counts.get(&narrowed.key) {
                    Some(known) => *known,
                    None if counts.len() < COUNTED => {
                        let id = narrowed.key.clone();
                        let counted = count(self.engine, Arc::new(narrowed), false).await.ok();
                        counts.insert(id, counted);
                        counted
                    }
                    None => None,
                },
                Err(_) => None,
            }
        } else {
            Some(table.rows)
        };
        let columns = table.columns.iter().map(|column| &column.name).filter(|name| narrowing.shows(name));
        let masked = columns.clone().filter_map(|name| {
            let rule = narrowing.rule(name)?;
            Some((name.clone(), rule.as_str().to_owned()))
        });
        Ok(SeenPart {
            rows,
            masked: masked.collect(),
            columns: columns.cloned().collect(),
            distribution: narrowing.distribution,
        })
    }
}
