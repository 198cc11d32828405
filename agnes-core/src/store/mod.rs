//! Where state lives: [`Store`] hands out the repositories of every domain.
//!
//! Implementations: [`duckdb`] (the embedded default, `state/system.duckdb`) and
//! [`memory`]. One contract suite runs against each.

pub mod duckdb;
pub mod memory;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::audit::{AuditRepository, ViewRepository};
use crate::error::Result;
use crate::identity::{
    AccessRequestRepository, CredentialRepository, OAuthRepository, TokenRepository, UserRepository,
};
use crate::policy::PolicyRepository;
use crate::rbac::AccessRepository;
use crate::registry::{OwnershipRepository, SourceRepository, TableRepository};
use crate::scan::UsageRepository;
use crate::sync::{JobRepository, PreferenceRepository, ProfileRepository, SyncRepository};
use crate::templates::TemplateRepository;
use crate::warehouse::MetadataRepository;

/// Newest version of the state schema this build writes.
pub const STATE_SCHEMA_VERSION: i32 = 56;

/// Hands out the repositories.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// People.
    fn users(&self) -> Arc<dyn UserRepository>;
    /// Passwords, one-shot tokens and codes, ended sessions.
    fn credentials(&self) -> Arc<dyn CredentialRepository>;
    /// Personal access tokens and tokens of desktop applications.
    fn tokens(&self) -> Arc<dyn TokenRepository>;
    /// Clients of assistants, and what they were allowed.
    fn oauth(&self) -> Arc<dyn OAuthRepository>;
    /// What people asked to be given.
    fn access_requests(&self) -> Arc<dyn AccessRequestRepository>;
    /// Groups, members, grants.
    fn access(&self) -> Arc<dyn AccessRepository>;
    /// Policies.
    fn policies(&self) -> Arc<dyn PolicyRepository>;
    /// Registered tables.
    fn tables(&self) -> Arc<dyn TableRepository>;
    /// Configured sources.
    fn sources(&self) -> Arc<dyn SourceRepository>;
    /// View ownership.
    fn ownership(&self) -> Arc<dyn OwnershipRepository>;
    /// Sync state and history.
    fn sync(&self) -> Arc<dyn SyncRepository>;
    /// Profiles.
    fn profiles(&self) -> Arc<dyn ProfileRepository>;
    /// What people want to pull.
    fn preferences(&self) -> Arc<dyn PreferenceRepository>;
    /// How much was scanned.
    fn usage(&self) -> Arc<dyn UsageRepository>;
    /// What warehouses told of tables.
    fn metadata(&self) -> Arc<dyn MetadataRepository>;
    /// Durable jobs.
    fn jobs(&self) -> Arc<dyn JobRepository>;
    /// Saved filters of the audit log.
    fn views(&self) -> Arc<dyn ViewRepository>;
    /// Texts that admins edit.
    fn templates(&self) -> Arc<dyn TemplateRepository>;
    /// The audit log.
    fn audit(&self) -> Arc<dyn AuditRepository>;

    /// Counter in memory that every transaction moves which changed what an access
    /// decision depends on: users, groups, members, grants, policies.
    fn revision(&self) -> u64;
    /// Counter in memory that moves with [`Store::revision`], and with every transaction
    /// that changed what a credential is worth: tokens, ended sessions, passwords.
    fn credential_revision(&self) -> u64;
    /// Counter in memory that moves with every transaction that changed the state of a table's
    /// syncs, or what somebody wants of them.
    fn sync_revision(&self) -> u64;
    /// Rows of one internal table (`agnes_sessions`, `agnes_telemetry`, `agnes_audit`) as
    /// Arrow, JSON columns as text: all of them, or those of one user. The fallback to
    /// the local part of the address is used only when it is unique among users.
    async fn internal_rows(&self, table: &str, only: Option<InternalScope>) -> Result<Vec<RecordBatch>>;
    /// Schema version of the state, and whether this process may write it.
    async fn schema(&self) -> Result<SchemaInfo>;
    /// Writes everything to the main file, so that a copy of it is complete.
    async fn checkpoint(&self) -> Result<()>;
    /// A consistent copy of the state into `folder` (made when missing), for backups: opened
    /// and read before it counts, else `state_copy_broken`.
    async fn backup_to(&self, folder: &std::path::Path) -> Result<()>;
    /// Checkpoints and closes; later calls fail.
    async fn close(&self) -> Result<()>;
}

/// Whose rows of an internal table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalScope {
    /// The caller.
    pub user_id: String,
    /// Their address, when they are a user.
    pub email: Option<String>,
}

/// Version of a state schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SchemaInfo {
    /// The version in the file.
    pub version: i32,
    /// Whether it may be written by this build.
    pub writable: bool,
}
