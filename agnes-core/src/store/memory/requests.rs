//! Access requests.

use async_trait::async_trait;

use super::MemoryStore;
use crate::error::Result;
use crate::ident::printable;
use crate::identity::{AccessRequest, AccessRequestRepository, Given, RequestError, RequestStatus, Review};
use crate::rbac::{AccessError, fold_resource_id};

#[async_trait]
impl AccessRequestRepository for MemoryStore {
    async fn insert(&self, request: &AccessRequest, limit: usize) -> Result<()> {
        let mut state = self.state();
        let of = |r: &AccessRequest| (r.resource_type, fold_resource_id(r.resource_type, &r.resource_id));
        let waiting: Vec<&AccessRequest> = state
            .requests
            .iter()
            .filter(|r| r.user_id == request.user_id && r.status == RequestStatus::Pending)
            .collect();
        if waiting.iter().any(|r| of(r) == of(request)) {
            return Err(RequestError::AlreadyPending.into());
        }
        if waiting.len() >= limit {
            return Err(RequestError::TooManyPending { limit }.into());
        }
        state.requests.push(request.clone());
        Ok(())
    }

    async fn get(&self, id: &str) -> Result<Option<AccessRequest>> {
        Ok(self.state().requests.iter().find(|request| request.id == id).cloned())
    }

    async fn list(&self, user_id: Option<&str>, status: Option<RequestStatus>) -> Result<Vec<AccessRequest>> {
        let state = self.state();
        let mut found: Vec<AccessRequest> = state
            .requests
            .iter()
            .filter(|r| user_id.is_none_or(|id| r.user_id == id) && status.is_none_or(|status| r.status == status))
            .cloned()
            .collect();
        found.sort_by(|a, b| (b.created_at, &a.id).cmp(&(a.created_at, &b.id)));
        Ok(found)
    }

    async fn end(&self, id: &str, review: &Review) -> Result<(AccessRequest, Given)> {
        let mut state = self.state();
        let Some(at) = state.requests.iter().position(|request| request.id == id) else {
            return Err(RequestError::NotFound { request: printable(id, 80) }.into());
        };
        let found = state.requests.get(at).map_or(RequestStatus::Cancelled, |request| request.status);
        if found != RequestStatus::Pending {
            return Err(RequestError::NotPending { status: found }.into());
        }
        let mut given = Given { membership_added: false, grant_added: false };
        if let Some((member, grant)) = &review.gives {
            let Some(group) = state.groups.get(&member.group_id) else {
                return Err(AccessError::GroupNotFound { group: member.group_id.clone() }.into());
            };
            if group.is_from_directory() && !state.is_member(&member.group_id, &member.user_id) {
                return Err(AccessError::GoogleManaged { group: group.name.clone() }.into());
            }
            // The only step that can fail comes first.
            given.membership_added = state.add_member(member)?;
            given.grant_added = state.insert_grant(grant).is_ok();
        }
        let group_id = review.gives.as_ref().map(|(member, _)| member.group_id.clone());
        let Some(request) = state.requests.get_mut(at) else {
            return Err(RequestError::NotFound { request: printable(id, 80) }.into());
        };
        request.status = review.status;
        request.reviewed_by = Some(review.by.clone());
        request.reviewed_at = Some(review.at);
        request.review_note.clone_from(&review.note);
        request.group_id = group_id;
        Ok((request.clone(), given))
    }
}
