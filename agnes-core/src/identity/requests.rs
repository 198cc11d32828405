//! What people asked to be given, and the repository that keeps it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Coded, ErrorKind, Result};
use crate::rbac::{Grant, Member, ResourceType};

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStatus {
    /// Nobody decided yet.
    Pending,
    /// Granted.
    Approved,
    /// Refused.
    Denied,
    /// Taken back by who asked.
    Cancelled,
}

impl RequestStatus {
    /// The text in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Denied, Self::Cancelled].into_iter().find(|s| s.as_str() == text)
    }
}

/// Somebody asks for a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRequest {
    /// 32 hex digits.
    pub id: String,
    /// Who asks.
    pub user_id: String,
    /// For what kind of resource.
    pub resource_type: ResourceType,
    /// Which one; it may name nothing.
    pub resource_id: String,
    /// Why, at most 2,000 characters.
    pub reason: Option<String>,
    /// Where it stands.
    pub status: RequestStatus,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Who decided.
    pub reviewed_by: Option<String>,
    /// When.
    pub reviewed_at: Option<DateTime<Utc>>,
    /// With which words.
    pub review_note: Option<String>,
    /// The group that got the grant.
    pub group_id: Option<String>,
}

/// How a request ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Not [`RequestStatus::Pending`].
    pub status: RequestStatus,
    /// Who decided.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// With which words.
    pub note: Option<String>,
    /// Approved: the membership and the grant that it takes, as far as they are not there.
    pub gives: Option<(Member, Grant)>,
}

/// What an approval changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Whether who asked was made a member of the group.
    pub membership_added: bool,
    /// Whether the group got the grant.
    pub grant_added: bool,
}

/// Keeps access requests. Every method is one transaction.
#[async_trait]
pub trait AccessRequestRepository: Send + Sync {
    /// Keeps a new request. `already_pending` when the same person waits for the same
    /// resource, `too_many_requests_pending` when they wait for `limit` resources.
    async fn insert(&self, request: &AccessRequest, limit: usize) -> Result<()>;
    /// One request.
    async fn get(&self, id: &str) -> Result<Option<AccessRequest>>;
    /// Requests of one person or all, of one status or all, newest first.
    async fn list(&self, user_id: Option<&str>, status: Option<RequestStatus>) -> Result<Vec<AccessRequest>>;
    /// Ends a pending request, and gives what it says, all or nothing; bumps
    /// [`crate::store::Store::revision`] when it gave something. `request_not_found`,
    /// `not_pending`, `group_not_found`, `user_not_found`, `google_managed_readonly` when the
    /// group's members come from a directory and who asked is none.
    async fn end(&self, id: &str, review: &Review) -> Result<(AccessRequest, Given)>;
}

/// What can go wrong with access requests.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RequestError {
    #[error("access requests are switched off")]
    Off,
    #[error("there is no access request `{request}`")]
    NotFound { request: String },
    #[error("you asked for this already")]
    AlreadyPending,
    #[error("you have access to this already")]
    AlreadyGranted,
    #[error("at most {limit} requests of one person can wait for an answer")]
    TooManyPending { limit: usize },
    #[error("this request is {} already", status.as_str())]
    NotPending { status: RequestStatus },
    #[error("a reason has at most {limit} characters")]
    ReasonTooLong { limit: usize },
}

impl Coded for RequestError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Off | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyPending | Self::AlreadyGranted | Self::NotPending { .. } => ErrorKind::Conflict,
            Self::TooManyPending { .. } => ErrorKind::RateLimited,
            Self::ReasonTooLong { .. } => ErrorKind::InvalidInput,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Off => "access_requests_off",
            Self::NotFound { .. } => "request_not_found",
            Self::AlreadyPending => "already_pending",
            Self::AlreadyGranted => "already_granted",
            Self::TooManyPending { .. } => "too_many_requests_pending",
            Self::NotPending { .. } => "not_pending",
            Self::ReasonTooLong { .. } => "reason_too_long",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooManyPending { .. } => Some("wait for answers, or cancel a request".to_owned()),
            _ => None,
        }
    }
}
