//! Asking for access, and answering.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::service::new_id;
use super::{AccessRequest, Given, RequestError, RequestStatus, Review, ViaGroup};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::ident::printable;
use crate::policy::{AccessChange, AccessPreview};
use crate::rbac::{
    Ability, AccessError, AccessSnapshot, Accessible, AuthMethod, ClientKind, Grant, Group, Member, MemberSource,
    Principal, ResourceType, fold_resource_id,
};

/// Requests of one person that may wait for an answer.
const MAX_PENDING: usize = 20;
/// Longest reason and longest note, characters.
const MAX_REASON: usize = 2000;
/// Longest id of a resource, characters.
const MAX_RESOURCE: usize = 256;

/// What people ask to be given.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequests<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// What people ask to be given, and the answers.
    #[must_use]
    pub fn access_requests(&self) -> AccessRequests<'_> {
        AccessRequests { engine: self }
    }
}

/// A request with what a reviewer wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRequest {
    /// The request.
    #[serde(flatten)]
    pub request: AccessRequest,
    /// Address of who asks.
    pub user_email: String,
    /// Their name.
    pub user_name: Option<String>,
    /// Their groups.
    pub user_groups: Vec<ViaGroup>,
    /// Groups that have the resource.
    pub groups_with_grant: Vec<GroupWithGrant>,
    /// Whether it names anything.
    pub resource_exists: bool,
}

/// A group that has a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupWithGrant {
    /// 32 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How many active people are in it.
    pub member_count: usize,
}

/// What an approval would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What is added.
    #[serde(flatten)]
    pub given: Given,
    /// Active people who can use the resource by it and could not before.
    pub people_gaining_access: usize,
    /// Ids of other tables that come to who asked with the membership.
    pub other_tables: Vec<String>,
}

/// What an approval would do, with who would see what of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalPreview {
    /// What it would do.
    #[serde(flatten)]
    pub approval: Approval,
    /// Who would see which part of the table; none for resources that are no tables, or
    /// that are not there.
    pub preview: Option<AccessPreview>,
}

/// A membership and a grant that are not made yet.
struct Planned {
    group: Group,
    resource_id: String,
    approval: Approval,
}

impl AccessRequests<'_> {
    fn require_on(&self) -> Result<()> {
        if self.engine.live_config().access_requests.enabled { Ok(()) } else { Err(RequestError::Off.into()) }
    }

    /// The caller, who acts for themselves.
    async fn person(&self, ctx: &CallContext) -> Result<std::sync::Arc<AccessSnapshot>> {
        self.require_on()?;
        let access = self.engine.access().await?;
        access.require_active(ctx.principal())?;
        ctx.principal().require_person()?;
        ctx.principal().require(Ability::Everything)?;
        ctx.principal().require_own()?;
        Ok(access)
    }

    /// Asks for a resource. Whether it exists is not told: what names nothing is kept, and
    /// shown to reviewers as unknown.
    ///
    /// # Errors
    /// `already_granted`, `already_pending`, `too_many_requests_pending` above 20,
    /// `resource_id_required`, `reason_too_long`, `access_requests_off`, `inactive_user`,
    /// `scope_denied`, `service_forbidden`, `read_only_view`.
    pub async fn ask(
        &self,
        ctx: &CallContext,
        resource_type: ResourceType,
        resource_id: &str,
        reason: Option<&str>,
    ) -> Result<AccessRequest> {
        let access = self.person(ctx).await?;
        let resource_id = resource_id.trim();
        if resource_id.is_empty() || resource_id.chars().count() > MAX_RESOURCE {
            return Err(AccessError::ResourceIdRequired.into());
        }
        let reason = note(reason)?;
        let real = self.resolve(resource_type, resource_id).await?.0;
        if access.decide(ctx.principal(), resource_type, &real).allowed {
            return Err(RequestError::AlreadyGranted.into());
        }
        let request = AccessRequest {
            id: new_id(),
            user_id: ctx.principal().user_id().to_owned(),
            resource_type,
            // As it was written: the id behind a name would tell that there is one.
            resource_id: resource_id.to_owned(),
            reason,
            status: RequestStatus::Pending,
            created_at: self.engine.clock().now(),
            reviewed_by: None,
            reviewed_at: None,
            review_note: None,
            group_id: None,
        };
        let done = self.engine.store().access_requests().insert(&request, MAX_PENDING).await;
        self.tell(ctx, "access_request.created", &request, json!({}), &done).await;
        done.map(|()| request)
    }

    /// The caller's requests, newest first.
    ///
    /// # Errors
    /// `access_requests_off`, `inactive_user`, `scope_denied`, `service_forbidden`.
    pub async fn mine(
        &self,
        ctx: &CallContext,
        status: Option<RequestStatus>,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<AccessRequest>> {
        self.require_on()?;
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require_person()?;
        ctx.principal().require(Ability::Everything)?;
        let found = self.engine.store().access_requests().list(Some(ctx.principal().user_id()), status).await?;
        Ok(found.into_iter().skip(offset).take(limit).collect())
    }

    /// Takes a request back. Somebody else's does not exist for the caller.
    ///
    /// # Errors
    /// `request_not_found`, `not_pending`, and those of [`AccessRequests::mine`].
    pub async fn cancel(&self, ctx: &CallContext, id: &str) -> Result<AccessRequest> {
        self.person(ctx).await?;
        let found = self.find(id).await?;
        if found.user_id != ctx.principal().user_id() {
            return Err(missing(id));
        }
        self.end(ctx, &found, RequestStatus::Cancelled, None, "access_request.cancelled").await
    }

    /// Requests that wait for an answer, newest first, and how many there are. For admins.
    ///
    /// # Errors
    /// `access_requests_off`, `admin_required`, `service_forbidden`.
    pub async fn pending(
        &self,
        ctx: &CallContext,
        limit: usize,
        offset: usize,
    ) -> Result<(Vec<PendingRequest>, usize)> {
        self.require_on()?;
        let access = self.engine.access().await?;
        access.require_access_admin(ctx.principal())?;
        let all = self.engine.store().access_requests().list(None, Some(RequestStatus::Pending)).await?;
        let known = super::SignIn { engine: self.engine }.credentials().await?;
        let (total, mut rows) = (all.len(), Vec::new());
        for request in all.into_iter().skip(offset).take(limit) {
            let (real, resource_exists) = self.resolve(request.resource_type, &request.resource_id).await?;
            let key = (request.resource_type, fold_resource_id(request.resource_type, &real));
            let having =
                access.grants.get(&key).into_iter().flatten().filter_map(|(group, _)| access.groups.get(group));
            let groups_with_grant = having.map(|group| GroupWithGrant {
                id: group.id.clone(),
                name: group.name.clone(),
                member_count: access.active_members(&group.id),
            });
            let mine = access.groups_of.get(&request.user_id).into_iter().flatten();
            let user_groups = mine.filter_map(|id| access.groups.get(id));
            let account = known.accounts.get(&request.user_id);
            rows.push(PendingRequest {
                user_email: account.map(|account| account.email.clone()).unwrap_or_default(),
                user_name: account.and_then(|account| account.name.clone()),
                user_groups: user_groups
                    .map(|group| ViaGroup { group_id: group.id.clone(), group_name: group.name.clone() })
                    .collect(),
                groups_with_grant: groups_with_grant.collect(),
                resource_exists,
                request,
            });
        }
        Ok((rows, total))
    }

    /// A request that waits for an answer, by its id or a unique prefix of it. For admins.
    ///
    /// # Errors
    /// `request_not_found`, `ambiguous_reference`, `access_requests_off`, `admin_required`,
    /// `service_forbidden`.
    pub async fn find_waiting(&self, ctx: &CallContext, reference: &str) -> Result<AccessRequest> {
        self.reviewer(ctx).await?;
        let all = self.engine.store().access_requests().list(None, Some(RequestStatus::Pending)).await?;
        super::resolve(reference, &all, |request| &request.id, |request| &request.id)?.ok_or_else(|| missing(reference))
    }

    /// What approving this request with this group would do; nothing is changed. For admins.
    ///
    /// # Errors
    /// `request_not_found`, `not_pending`, `group_not_found`, `google_managed_readonly`,
    /// `access_requests_off`, `admin_required`, `service_forbidden`.
    pub async fn preview(&self, ctx: &CallContext, id: &str, group: &str) -> Result<ApprovalPreview> {
        self.reviewer(ctx).await?;
        let request = self.find_pending(id).await?;
        let planned = self.plan(&request, group).await?;
        let exists = self.resolve(request.resource_type, &request.resource_id).await?.1;
        let preview = if exists {
            let change =
                AccessChange::Approve { group: planned.group.id, table: planned.resource_id, user_id: request.user_id };
            Some(self.engine.policies().preview(ctx, change).await?)
        } else {
            None
        };
        Ok(ApprovalPreview { approval: planned.approval, preview })
    }

    /// Approves a request: who asked becomes a member of the group, the group gets the grant,
    /// as far as either is missing; all in one transaction. For admins.
    ///
    /// # Errors
    /// `request_not_found`, `not_pending`, `group_not_found`, `user_not_found`,
    /// `google_managed_readonly` when who asked is no member of a group of the directory,
    /// `reason_too_long`, `access_requests_off`, `admin_required`, `service_forbidden`.
    pub async fn approve(
        &self,
        ctx: &CallContext,
        id: &str,
        group: &str,
        words: Option<&str>,
    ) -> Result<(AccessRequest, Approval)> {
        self.reviewer(ctx).await?;
        let words = note(words)?;
        let request = self.find_pending(id).await?;
        let planned = self.plan(&request, group).await?;
        let (now, by) = (self.engine.clock().now(), ctx.principal().user_id().to_owned());
        let member = Member {
            group_id: planned.group.id.clone(),
            user_id: request.user_id.clone(),
            source: MemberSource::Admin,
            added_at: Some(now),
            added_by: Some(by.clone()),
        };
        let grant = Grant {
            id: new_id(),
            group_id: planned.group.id.clone(),
            resource_type: request.resource_type,
            resource_id: planned.resource_id,
            assigned_at: Some(now),
            assigned_by: Some(by.clone()),
        };
        let review = Review { status: RequestStatus::Approved, by, at: now, note: words, gives: Some((member, grant)) };
        let done = self.engine.store().access_requests().end(&request.id, &review).await;
        let given = done.as_ref().ok().map(|(_, given)| *given);
        let facts = json!({"group_id": planned.group.id, "group": planned.group.name, "given": given});
        self.tell(ctx, "access_request.approved", &request, facts, &done).await;
        if let Ok((request, _)) = &done {
            self.mail(request).await;
        }
        done.map(|(request, given)| (request, Approval { given, ..planned.approval }))
    }

    /// Refuses a request. For admins.
    ///
    /// # Errors
    /// `request_not_found`, `not_pending`, `reason_too_long`, `access_requests_off`,
    /// `admin_required`, `service_forbidden`.
    pub async fn deny(&self, ctx: &CallContext, id: &str, words: Option<&str>) -> Result<AccessRequest> {
        self.reviewer(ctx).await?;
        let (words, found) = (note(words)?, self.find(id).await?);
        let done = self.end(ctx, &found, RequestStatus::Denied, words, "access_request.denied").await;
        if let Ok(request) = &done {
            self.mail(request).await;
        }
        done
    }

    /// Mails who asked how it ended, where there is a way to.
    async fn mail(&self, request: &AccessRequest) {
        let Ok(known) = super::SignIn { engine: self.engine }.credentials().await else { return };
        if let Some(account) = known.accounts.get(&request.user_id).filter(|account| account.active) {
            self.engine.mails().answer_later(request, account);
        }
    }

    async fn reviewer(&self, ctx: &CallContext) -> Result<()> {
        self.require_on()?;
        self.engine.access().await?.require_access_admin(ctx.principal())
    }

    async fn find(&self, id: &str) -> Result<AccessRequest> {
        self.engine.store().access_requests().get(id).await?.ok_or_else(|| missing(id))
    }

    async fn find_pending(&self, id: &str) -> Result<AccessRequest> {
        let found = self.find(id).await?;
        match found.status {
            RequestStatus::Pending => Ok(found),
            status => Err(RequestError::NotPending { status }.into()),
        }
    }

    async fn end(
        &self,
        ctx: &CallContext,
        request: &AccessRequest,
        status: RequestStatus,
        note: Option<String>,
        action: &'static str,
    ) -> Result<AccessRequest> {
        let (by, at) = (ctx.principal().user_id().to_owned(), self.engine.clock().now());
        let review = Review { status, by, at, note, gives: None };
        let done = self.engine.store().access_requests().end(&request.id, &review).await;
        self.tell(ctx, action, request, json!({}), &done).await;
        done.map(|(request, _)| request)
    }

    async fn tell<T>(
        &self,
        ctx: &CallContext,
        action: &'static str,
        request: &AccessRequest,
        mut facts: serde_json::Value,
        done: &Result<T>,
    ) {
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("id".to_owned(), request.id.clone().into());
            facts.insert("user_id".to_owned(), request.user_id.clone().into());
        }
        let resource = format!("{}:{}", request.resource_type.as_str(), printable(&request.resource_id, 200));
        self.engine.audit().event(ctx, action).resource(resource).params(facts).outcome(done).record().await;
    }

    /// The id that grants use for what was asked, and whether there is such a thing.
    async fn resolve(&self, resource_type: ResourceType, asked: &str) -> Result<(String, bool)> {
        if resource_type != ResourceType::Table {
            return Ok((asked.to_owned(), false));
        }
        let found = self.engine.table_index().await?.find(asked).map(|table| table.id.clone());
        let published = || self.engine.generation().table(&asked.to_lowercase()).is_some();
        Ok(match found {
            Some(id) => (id, true),
            None => (asked.to_owned(), published()),
        })
    }

    /// What a membership and a grant would add.
    async fn plan(&self, request: &AccessRequest, group: &str) -> Result<Planned> {
        let group = self.engine.identity().find_group(group).await?;
        let before = self.engine.access().await?;
        let resource_id = self.resolve(request.resource_type, &request.resource_id).await?.0;
        let member = before.groups_of.get(&request.user_id).is_some_and(|groups| groups.contains(&group.id));
        if group.is_from_directory() && !member {
            return Err(AccessError::GoogleManaged { group: group.name }.into());
        }
        let key = (request.resource_type, fold_resource_id(request.resource_type, &resource_id));
        let granted = before.grants.get(&key).is_some_and(|grants| grants.iter().any(|(id, _)| *id == group.id));
        let mut after = (*before).clone();
        after.give(&group.id, &request.user_id, key.0, &key.1);
        let may = |access: &AccessSnapshot, user: &str| {
            let who = Principal::user(user, AuthMethod::Local, ClientKind::Api);
            access.decide(&who, key.0, &key.1).allowed
        };
        let gaining = before.active_users.keys().filter(|user| !may(&before, user) && may(&after, user));
        let asks = Principal::user(request.user_id.as_str(), AuthMethod::Local, ClientKind::Api);
        let tables = |access: &AccessSnapshot| access.accessible(&asks, ResourceType::Table);
        let other_tables = match (tables(&before), tables(&after)) {
            (Accessible::Only(before), Accessible::Only(after)) => {
                after.difference(&before).filter(|id| **id != key.1).cloned().collect()
            }
            _ => Vec::new(),
        };
        let approval = Approval {
            given: Given { membership_added: !member, grant_added: !granted },
            people_gaining_access: gaining.count(),
            other_tables,
        };
        Ok(Planned { group, resource_id, approval })
    }
}

/// Words of a person, as they are kept.
fn note(words: Option<&str>) -> Result<Option<String>> {
    let words = words.map(str::trim).filter(|words| !words.is_empty());
    if words.is_some_and(|words| words.chars().count() > MAX_REASON) {
        return Err(RequestError::ReasonTooLong { limit: MAX_REASON }.into());
    }
    Ok(words.map(str::to_owned))
}

fn missing(id: &str) -> crate::error::Error {
    RequestError::NotFound { request: printable(id, 80) }.into()
}
