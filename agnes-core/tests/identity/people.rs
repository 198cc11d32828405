//! Accounts as admins make, see, change and end them; whom the directory keeps; and how many
//! questions to the state a list takes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agnes_core::audit::{AuditRepository, ViewRepository};
use agnes_core::config::Config;
use agnes_core::ident::{SourceName, TableName};
use agnes_core::identity::{
    AccessRequestRepository, CredentialRepository, NewUser, OAuthRepository, PeopleFilter, TokenRepository,
    UserRepository,
};
use agnes_core::policy::PolicyRepository;
use agnes_core::rbac::{AccessRepository, Grant, Member, MemberSource, ResourceType};
use agnes_core::registry::{OwnershipRepository, SourceRepository, TableRepository};
use agnes_core::scan::UsageRepository;
use agnes_core::secret::Secret;
use agnes_core::store::memory::MemoryStore;
use agnes_core::store::{InternalScope, SchemaInfo, Store};
use agnes_core::sync::{JobRepository, PreferenceRepository, ProfileRepository, SyncRepository};
use agnes_core::templates::TemplateRepository;
use agnes_core::warehouse::MetadataRepository;
use agnes_core::{CallContext, Engine, Result};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::support::{Site, on_both_stores, owner, refused, start};

on_both_stores! { made_and_seen last_seen }

async fn made_and_seen(site: Site) {
    let identity = site.engine.identity();
    identity.create_group(&owner(), "fin", None).await.unwrap();
    let new = |email: &str, groups: &[&str], invite| NewUser {
        email: email.to_owned(),
        name: Some("  ".to_owned()),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        invite,
    };
    let (ann, letter) = identity.create_user(&owner(), &new("Ann@acme.example", &["fin"], true)).await.unwrap();
    assert_eq!((ann.email.as_str(), ann.name.as_deref()), ("ann@acme.example", None));
    let letter = letter.unwrap();
    assert_eq!(letter.expires_at, start() + chrono::TimeDelta::days(7));
    refused(identity.create_user(&owner(), &new("bob@acme.example", &["none"], false)).await, "group_not_found");
    refused(identity.person(&owner(), "bob@acme.example").await, "user_not_found");
    let added = site.audit("user_group.member_added").await;
    assert_eq!(added.iter().map(|event| event.resource.as_deref()).collect::<Vec<_>>(), [Some("group:fin")]);
    let endless = NewUser { name: Some("x".repeat(5000)), ..new("long@acme.example", &[], false) };
    let (endless, _) = identity.create_user(&owner(), &endless).await.unwrap();
    assert_eq!(endless.name.map(|name| name.len()), Some(200));
    identity.remove_user(&owner(), &endless.id).await.unwrap();
    refused(identity.create_user(&owner(), &new("x@system.local", &[], false)).await, "service_account");
    let person = identity.person(&owner(), &ann.id).await.unwrap();
    let groups: Vec<&str> = person.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!((groups, person.has_password, person.is_admin), (vec!["Everyone", "fin"], false, false));
    let (sign_in, client) = (site.engine.sign_in(), crate::support::client());
    let password = Secret::new(crate::support::PASSWORD);
    sign_in.set_up_password(&client, &ann.email, letter.token.expose(), &password, None).await.unwrap();
    assert!(identity.person(&owner(), " ANN@acme.example ").await.unwrap().has_password);
    let changed = identity.update_user(&owner(), &ann.id, Some("Ann"), Some(false)).await.unwrap();
    assert!(changed.name.as_deref() == Some("Ann") && !changed.active);
    let found = async |filter: PeopleFilter| identity.people(&owner(), &filter).await.unwrap().len();
    assert_eq!(found(PeopleFilter::default()).await, 1);
    assert_eq!(found(PeopleFilter { active: Some(true), ..PeopleFilter::default() }).await, 0);
    assert_eq!(found(PeopleFilter { text: Some("ANN".into()), ..PeopleFilter::default() }).await, 1);
    assert_eq!(found(PeopleFilter { offset: 1, ..PeopleFilter::default() }).await, 0);
}

async fn last_seen(site: Site) {
    site.admin("ann@acme.example").await;
    let ann = site.signed_in("ann@acme.example").await;
    let seen = async || site.engine.identity().person(&owner(), "ann@acme.example").await.unwrap().last_seen_at;
    assert_eq!(seen().await, Some(start()));
    site.later(chrono::TimeDelta::hours(1));
    assert!(site.sign_in("ann@acme.example", "wrong password").await.is_err());
    site.audit("login").await;
    assert_eq!(seen().await, Some(start()), "somebody else may have tried");
    site.engine.identity().create_group(&ann, "fin", None).await.unwrap();
    assert_eq!(seen().await, Some(start() + chrono::TimeDelta::hours(1)));
}

/// A store that counts the questions it is asked.
#[derive(Debug)]
struct Counted {
    store: MemoryStore,
    questions: AtomicUsize,
}

impl Counted {
    fn asked(&self) -> &MemoryStore {
        self.questions.fetch_add(1, Ordering::SeqCst);
        &self.store
    }
}

macro_rules! count {
    ($($name:ident: $repository:ident)*) => {
        $(fn $name(&self) -> Arc<dyn $repository> {
            self.asked().$name()
        })*
    };
}

#[async_trait]
impl Store for Counted {
    count! {
        users: UserRepository
        credentials: CredentialRepository
        tokens: TokenRepository
        oauth: OAuthRepository
        access_requests: AccessRequestRepository
        access: AccessRepository
        policies: PolicyRepository
        tables: TableRepository
        sources: SourceRepository
        ownership: OwnershipRepository
        sync: SyncRepository
        profiles: ProfileRepository
        preferences: PreferenceRepository
        jobs: JobRepository
        usage: UsageRepository
        metadata: MetadataRepository
        views: ViewRepository
        templates: TemplateRepository
        audit: AuditRepository
    }
    fn revision(&self) -> u64 {
        self.store.revision()
    }
    fn credential_revision(&self) -> u64 {
        self.store.credential_revision()
    }
    fn sync_revision(&self) -> u64 {
        self.store.sync_revision()
    }
    async fn internal_rows(&self, table: &str, only: Option<InternalScope>) -> Result<Vec<RecordBatch>> {
        self.asked().internal_rows(table, only).await
    }
    async fn schema(&self) -> Result<SchemaInfo> {
        self.store.schema().await
    }
    async fn checkpoint(&self) -> Result<()> {
        self.store.checkpoint().await
    }
    async fn backup_to(&self, folder: &Path) -> Result<()> {
        self.store.backup_to(folder).await
    }
    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}

/// How many questions each of these calls asks with so many tables, grants and people.
async fn questions(tables: usize) -> Vec<usize> {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Counted { store: MemoryStore::new(), questions: AtomicUsize::new(0) });
    let engine = Engine::builder(root.path()).store(store.clone()).open().await.unwrap();
    let group = engine.identity().create_group(&owner(), "fin", None).await.unwrap();
    let ann = engine.identity().add_user(&owner(), "ann@acme.example", None).await.unwrap();
    engine.identity().add_member(&owner(), "fin", &ann.id).await.unwrap();
    for n in 0..tables {
        let name = TableName::parse(&format!("t{n}")).unwrap();
        let row = agnes_core::registry::RegisteredTable::new(&name, "files", &SourceName::parse("shop").unwrap());
        store.store.tables().upsert(&row).await.unwrap();
        let grant = Grant {
            id: format!("g{n}"),
            group_id: group.id.clone(),
            resource_type: ResourceType::Table,
            resource_id: row.id,
            assigned_at: None,
            assigned_by: None,
        };
        store.store.access().insert_grant(&grant).await.unwrap();
    }
    let by = CallContext::new(
        engine.identity().principal_of(&owner(), &ann.id, agnes_core::rbac::ClientKind::Api).await.unwrap(),
    );
    let mut counts = Vec::new();
    let mut count = |what: usize| {
        let so_far = store.questions.swap(0, Ordering::SeqCst);
        counts.push(so_far);
        assert!(so_far < 20, "call {what} asks {so_far} questions");
    };
    let identity = engine.identity();
    store.questions.store(0, Ordering::SeqCst);
    assert_eq!(identity.grants(&owner(), None).await.unwrap().len(), tables);
    count(1);
    assert_eq!(identity.access_overview(&owner()).await.unwrap().grants.len(), tables);
    count(2);
    assert_eq!(identity.my_access(&by).await.unwrap().items.len(), tables);
    count(3);
    assert_eq!(identity.permissions(&owner(), None, Some(&ann.id), None).await.unwrap().len(), tables);
    count(4);
    assert!(engine.catalog().tables(&by).await.unwrap().len() >= tables);
    count(5);
    identity.people(&owner(), &PeopleFilter::default()).await.unwrap();
    count(6);
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tables_take_as_many_questions_as_ten() {
    assert_eq!(questions(10_000).await, questions(10).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_keeps_its_people() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let mut config = Config::default();
    config.auth.directory_lifecycle = true;
    let engine = Engine::builder(root.path()).store(store.clone()).config(config).open().await.unwrap();
    let identity = engine.identity();
    let [ann, bob] = ["ann@acme.example", "bob@acme.example"];
    let user = identity.add_user(&owner(), ann, None).await.unwrap();
    identity.add_user(&owner(), bob, None).await.unwrap();
    let group = identity.create_group(&owner(), "eng@acme.example", None).await.unwrap();
    let source = MemberSource::GoogleSync;
    let member =
        Member { group_id: group.id.clone(), user_id: user.id.clone(), source, added_at: None, added_by: None };
    store.access().add_member(&member).await.unwrap();
    assert!(identity.person(&owner(), ann).await.unwrap().is_sso_user);
    assert!(!identity.person(&owner(), bob).await.unwrap().is_sso_user);
    let password = Secret::new(crate::support::PASSWORD);
    refused(identity.set_active(&owner(), ann, false).await, "sso_managed");
    refused(identity.update_user(&owner(), ann, None, Some(false)).await, "sso_managed");
    refused(identity.remove_user(&owner(), ann).await, "sso_managed");
    refused(identity.reset_link(&owner(), ann).await, "sso_managed");
    refused(identity.set_password(&owner(), ann, &password, true).await, "sso_managed");
    refused(identity.remove_member(&owner(), &group.id, ann).await, "no_removable_membership");
    identity.update_user(&owner(), ann, Some("Ann"), None).await.unwrap();
    identity.set_password(&owner(), bob, &password, true).await.unwrap();
    identity.set_active(&owner(), bob, false).await.unwrap();
}
