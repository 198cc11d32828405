//! Policies.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::error::Result;
use crate::ident::printable;
use crate::policy::{Policy, PolicyError, PolicyRepository, PolicyVersion};
use crate::rbac::AccessError;

fn missing(id: &str) -> PolicyError {
    PolicyError::NotFound { policy: printable(id, 80) }
}

#[async_trait]
impl PolicyRepository for MemoryStore {
    async fn list(&self) -> Result<Vec<Policy>> {
        let mut all: Vec<Policy> = self.state().policies.values().cloned().collect();
        all.sort_by(|a, b| (&a.table_id, &a.group_id).cmp(&(&b.table_id, &b.group_id)));
        Ok(all)
    }

    async fn get(&self, id: &str) -> Result<Option<Policy>> {
        Ok(self.state().policies.get(id).cloned())
    }

    async fn insert(&self, policy: &Policy) -> Result<()> {
        let mut state = self.state();
        let policy = Policy { table_id: policy.table_id.to_lowercase(), ..policy.clone() };
        let Some(group) = state.groups.get(&policy.group_id) else {
            return Err(AccessError::GroupNotFound { group: printable(&policy.group_id, 80) }.into());
        };
        if state.policies.values().any(|p| p.group_id == policy.group_id && p.table_id == policy.table_id) {
            return Err(PolicyError::Exists { group: group.name.clone() }.into());
        }
        state.policy_versions.push(PolicyVersion {
            policy_id: policy.id.clone(),
            version: policy.version,
            rules: Some(policy.rules.clone()),
            changed_at: policy.created_at,
            changed_by: policy.created_by.clone(),
        });
        state.policies.insert(policy.id.clone(), policy);
        state.revision += 1;
        Ok(())
    }

    async fn update(&self, policy: &Policy) -> Result<()> {
        let mut state = self.state();
        let kept = state.policies.get_mut(&policy.id).ok_or_else(|| missing(&policy.id))?;
        if kept.version.checked_add(1) != Some(policy.version) {
            return Err(PolicyError::Changed.into());
        }
        kept.rules = policy.rules.clone();
        kept.version = policy.version;
        kept.updated_at = policy.updated_at;
        kept.updated_by.clone_from(&policy.updated_by);
        state.policy_versions.push(PolicyVersion {
            policy_id: policy.id.clone(),
            version: policy.version,
            rules: Some(policy.rules.clone()),
            changed_at: policy.updated_at,
            changed_by: policy.updated_by.clone(),
        });
        state.revision += 1;
        Ok(())
    }

    async fn delete(&self, id: &str, now: DateTime<Utc>, by: &str) -> Result<Policy> {
        let mut state = self.state();
        let policy = state.policies.remove(id).ok_or_else(|| missing(id))?;
        state.policy_versions.push(PolicyVersion {
            policy_id: policy.id.clone(),
            version: policy.version.saturating_add(1),
            rules: None,
            changed_at: Some(now),
            changed_by: Some(by.to_owned()),
        });
        state.revision += 1;
        Ok(policy)
    }

    async fn history(&self, id: &str) -> Result<Vec<PolicyVersion>> {
        Ok(self.state().policy_versions.iter().rev().filter(|version| version.policy_id == id).cloned().collect())
    }
}
