//! State in memory: for tests, and for embedders who keep state elsewhere.
//!
//! Every call takes one lock and checks before it changes anything, so each is atomic.

mod audit;
mod credentials;
mod identity;
mod jobs;
mod metadata;
mod oauth;
mod policies;
mod preferences;
mod registry;
mod requests;
mod sync;
mod templates;
mod tokens;
mod usage;
mod views;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{InternalScope, STATE_SCHEMA_VERSION, SchemaInfo, Store};
use crate::audit::{AuditEvent, AuditRepository, SavedView, ViewRepository};
use crate::error::{Coded, ErrorKind, Result};
use crate::identity::{
    AccessRequest, AccessRequestRepository, CredentialRepository, OAuthClient, OAuthCode, OAuthRepository, OneShotCode,
    RefreshToken, StoredToken, TokenKind, TokenRepository, User, UserRepository,
};
use crate::policy::{Policy, PolicyRepository, PolicyVersion};
use crate::rbac::{AccessRepository, Grant, Group, INTERNAL_TABLES, Member};
use crate::registry::{
    ColumnMetadata, OwnershipRepository, RegisteredSource, RegisteredTable, SourceRepository, TableRepository,
};
use crate::sync::{
    Job, JobRepository, PreferenceRepository, ProfileRepository, StoredProfile, SyncHistory, SyncPreferences,
    SyncRepository, SyncState,
};

/// State in memory; gone with its last clone. Closing it loses nothing.
#[derive(Debug, Clone)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    revision: u64,
    /// Moves beside `revision`, for changes of what credentials are worth.
    credential_revision: u64,
    /// Moves with the state of syncs, and with what people want of them.
    sync_revision: u64,
    users: BTreeMap<String, User>,
    /// By user id.
    secrets: BTreeMap<String, credentials::Secrets>,
    tokens: BTreeMap<(TokenKind, String), StoredToken>,
    /// Ends of sessions that were ended early, by session id.
    ended: BTreeMap<String, DateTime<Utc>>,
    /// By hash.
    codes: BTreeMap<String, OneShotCode>,
    /// By id.
    oauth_clients: BTreeMap<String, OAuthClient>,
    /// By hash, with the token that each was taken for.
    oauth_codes: BTreeMap<String, (OAuthCode, Option<String>)>,
    /// By hash, with when each was replaced.
    oauth_tokens: BTreeMap<String, (RefreshToken, Option<DateTime<Utc>>)>,
    /// In the order of their arrival.
    requests: Vec<AccessRequest>,
    groups: BTreeMap<String, Group>,
    members: Vec<Member>,
    grants: BTreeMap<String, Grant>,
    policies: BTreeMap<String, Policy>,
    policy_versions: Vec<PolicyVersion>,
    tables: BTreeMap<String, RegisteredTable>,
    columns: BTreeMap<(String, String), ColumnMetadata>,
    sources: BTreeMap<String, RegisteredSource>,
    owners: BTreeMap<String, String>,
    states: BTreeMap<String, SyncState>,
    history: Vec<SyncHistory>,
    profiles: BTreeMap<String, StoredProfile>,
    preferences: BTreeMap<String, SyncPreferences>,
    /// By id of the table.
    metadata: BTreeMap<String, crate::warehouse::TableMetadata>,
    /// Bytes by user id and day.
    scanned: BTreeMap<(String, chrono::NaiveDate), u64>,
    /// In the order of their arrival.
    jobs: Vec<Job>,
    audit: Vec<AuditEvent>,
    /// By user id.
    views: BTreeMap<String, Vec<SavedView>>,
    /// By key.
    templates: BTreeMap<String, crate::templates::StoredTemplate>,
}

/// What a store in memory cannot do.
#[derive(Debug, thiserror::Error)]
#[error("state in memory has no file to back up")]
struct NoFile;

impl Coded for NoFile {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unsupported
    }
    fn code(&self) -> &str {
        "no_state_file"
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// A store with the rows of every fresh installation.
    #[must_use]
    pub fn new() -> Self {
        let mut state = State { revision: 1, ..State::default() };
        for id in INTERNAL_TABLES {
            state.tables.insert(id.to_owned(), RegisteredTable::internal(id));
        }
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn users(&self) -> Arc<dyn UserRepository> {
        Arc::new(self.clone())
    }
    fn credentials(&self) -> Arc<dyn CredentialRepository> {
        Arc::new(self.clone())
    }
    fn tokens(&self) -> Arc<dyn TokenRepository> {
        Arc::new(self.clone())
    }
    fn oauth(&self) -> Arc<dyn OAuthRepository> {
        Arc::new(self.clone())
    }
    fn access_requests(&self) -> Arc<dyn AccessRequestRepository> {
        Arc::new(self.clone())
    }
    fn access(&self) -> Arc<dyn AccessRepository> {
        Arc::new(self.clone())
    }
    fn policies(&self) -> Arc<dyn PolicyRepository> {
        Arc::new(self.clone())
    }
    fn tables(&self) -> Arc<dyn TableRepository> {
        Arc::new(self.clone())
    }
    fn sources(&self) -> Arc<dyn SourceRepository> {
        Arc::new(self.clone())
    }
    fn ownership(&self) -> Arc<dyn OwnershipRepository> {
        Arc::new(self.clone())
    }
    fn sync(&self) -> Arc<dyn SyncRepository> {
        Arc::new(self.clone())
    }
    fn profiles(&self) -> Arc<dyn ProfileRepository> {
        Arc::new(self.clone())
    }
    fn preferences(&self) -> Arc<dyn PreferenceRepository> {
        Arc::new(self.clone())
    }
    fn jobs(&self) -> Arc<dyn JobRepository> {
        Arc::new(self.clone())
    }
    fn metadata(&self) -> Arc<dyn crate::warehouse::MetadataRepository> {
        Arc::new(self.clone())
    }
    fn usage(&self) -> Arc<dyn crate::scan::UsageRepository> {
        Arc::new(self.clone())
    }
    fn views(&self) -> Arc<dyn ViewRepository> {
        Arc::new(self.clone())
    }
    fn templates(&self) -> Arc<dyn crate::templates::TemplateRepository> {
        Arc::new(self.clone())
    }
    fn audit(&self) -> Arc<dyn AuditRepository> {
        Arc::new(self.clone())
    }

    fn revision(&self) -> u64 {
        self.state().revision
    }

    fn credential_revision(&self) -> u64 {
        let state = self.state();
        state.revision + state.credential_revision
    }

    fn sync_revision(&self) -> u64 {
        self.state().sync_revision
    }

    async fn internal_rows(&self, table: &str, only: Option<InternalScope>) -> Result<Vec<RecordBatch>> {
        audit::internal_rows(&self.state(), table, only.as_ref())
    }

    async fn schema(&self) -> Result<SchemaInfo> {
        Ok(SchemaInfo { version: STATE_SCHEMA_VERSION, writable: true })
    }

    async fn checkpoint(&self) -> Result<()> {
        Ok(())
    }

    async fn backup_to(&self, _folder: &Path) -> Result<()> {
        Err(NoFile.into())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
