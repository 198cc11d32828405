//! Coming in with what an identity provider says, and with groups of the directory.

use std::sync::Mutex;

use agnes_core::Result;
use agnes_core::config::Config;
use agnes_core::identity::{Directory, ExternalIdentity, Session};
use agnes_core::rbac::MemberSource;
use async_trait::async_trait;

use crate::support::{Site, client, owner, refused};

/// A directory that says what the test says; nothing is an error.
#[derive(Debug, Default)]
struct Fake(Mutex<Option<Vec<String>>>);

impl Fake {
    fn say(&self, groups: Option<&[&str]>) {
        *self.0.lock().unwrap() = groups.map(|groups| groups.iter().map(|group| (*group).to_owned()).collect());
    }
}

#[async_trait]
impl Directory for Fake {
    async fn groups_of(&self, _: &str) -> Result<Vec<String>> {
        let said = self.0.lock().unwrap().clone();
        said.ok_or_else(|| agnes_core::Error::internal("ask a directory", "out of reach"))
    }
}

fn who(email: &str) -> ExternalIdentity {
    ExternalIdentity {
        provider: "google",
        email: Some(email.into()),
        email_verified: true,
        name: Some(" Ann A. ".into()),
    }
}

async fn come(site: &Site, email: &str, directory: Option<&dyn Directory>) -> Result<Session> {
    site.engine.sign_in().with_provider(&client(), &who(email), directory).await
}

async fn site(embedded: bool, change: impl FnOnce(&mut Config)) -> Site {
    let mut config = Config::default();
    config.auth.allowed_domains = vec!["acme.example".into()];
    change(&mut config);
    Site::configured(embedded, &[], config).await
}

/// Names of somebody's groups, with how they got in, sorted.
async fn groups(site: &Site, email: &str) -> Vec<(String, MemberSource)> {
    let (identity, mut groups) = (site.engine.identity(), Vec::new());
    for row in identity.groups(&owner()).await.unwrap() {
        let members = identity.members(&owner(), &row.group.id).await.unwrap();
        groups
            .extend(members.into_iter().find(|member| member.email == email).map(|mine| (row.group.name, mine.source)));
    }
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    groups
}

async fn names(site: &Site, email: &str) -> Vec<String> {
    groups(site, email).await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_come_in() {
    for embedded in [true, false] {
        let site = site(embedded, |_| {}).await;
        let session = come(&site, " Ann@ACME.example", None).await.unwrap();
        let me = site.caller(&session.token).await.unwrap();
        let me = site.engine.sign_in().me(&me).await.unwrap();
        assert_eq!((me.email.as_str(), me.name.as_deref(), me.is_admin), ("ann@acme.example", Some("Ann A."), false));
        assert_eq!(me.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["Everyone"]);
        assert_eq!(site.audit("user_created_oauth").await.len(), 1);
        // Once more, otherwise written: the same account.
        assert_eq!(come(&site, "ANN@acme.example ", None).await.unwrap().user_id, session.user_id);
        assert_eq!(site.audit("user_created_oauth").await.len(), 1);
        let none = ExternalIdentity { email: None, ..who("") };
        let unverified = ExternalIdentity { email_verified: false, ..who("ann@acme.example") };
        for (identity, code) in [
            (none, "no_email"),
            (unverified, "no_email"),
            (who("no address"), "no_email"),
            (who("ann@evil.example"), "domain_not_allowed"),
            (who("ann@sub.acme.example"), "domain_not_allowed"),
            (who("acme.example@evil.example"), "domain_not_allowed"),
            (who("scheduler@system.local"), "domain_not_allowed"),
        ] {
            refused(site.engine.sign_in().with_provider(&client(), &identity, None).await, code);
        }
        // Somebody an admin made, of another domain, is not of an allowed one either.
        site.user("guest@other.example").await;
        refused(come(&site, "guest@other.example", None).await, "domain_not_allowed");
        site.user("bob@acme.example").await;
        come(&site, "bob@acme.example", None).await.unwrap();
        site.engine.identity().set_active(&owner(), "bob@acme.example", false).await.unwrap();
        refused(come(&site, "bob@acme.example", None).await, "account_deactivated");
        let failed = site.audit("login_failed").await;
        assert!(failed.iter().any(|event| event.result.as_deref() == Some("domain_not_allowed")), "{failed:?}");
        // Two at once: one account.
        let (a, b) = tokio::join!(come(&site, "twin@acme.example", None), come(&site, "twin@acme.example", None));
        assert_eq!(a.unwrap().user_id, b.unwrap().user_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_domain_is_named_only_known_people_come_in() {
    let site = site(false, |config| config.auth.allowed_domains.clear()).await;
    refused(come(&site, "ann@acme.example", None).await, "domain_not_allowed");
    site.user("ann@acme.example").await;
    come(&site, "ann@acme.example", None).await.unwrap();
    let open = self::site(false, |config| config.auth.allowed_domains = vec!["*".into()]).await;
    come(&open, "anybody@anywhere.example", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_who_signs_in_elsewhere_closes_the_bootstrap() {
    for embedded in [true, false] {
        let site = Site::configured(embedded, &[("SEED_ADMIN_EMAIL", "boss@acme.example")], {
            let mut config = Config::default();
            config.auth.allowed_domains = vec!["acme.example".into()];
            config
        })
        .await;
        site.engine.sign_in().start().await.unwrap();
        assert!(site.engine.sign_in().bootstrap_open().await.unwrap(), "nobody was here yet");
        let session = come(&site, "boss@acme.example", None).await.unwrap();
        assert!(session.is_admin);
        assert!(!site.engine.sign_in().bootstrap_open().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_the_directory_replace_those_it_said_before() {
    for embedded in [true, false] {
        let site = site(embedded, |config| {
            config.directory.subject = Some("it@acme.example".into());
            config.directory.admin = Some("admins@acme.example".into());
            config.directory.everyone = Some("all@acme.example".into());
        })
        .await;
        let fake = Fake::default();
        site.admin("owner@acme.example").await;
        site.engine.identity().create_group(&owner(), "by hand", None).await.unwrap();
        site.user("ann@acme.example").await;
        site.engine.identity().add_member(&owner(), "by hand", "ann@acme.example").await.unwrap();
        // Out of reach: without a gate she comes in, and nothing changes.
        come(&site, "ann@acme.example", Some(&fake)).await.unwrap();
        assert_eq!(names(&site, "ann@acme.example").await, ["Everyone", "by hand"]);
        fake.say(Some(&["Eng@acme.example", "ALL@acme.example", "admins@acme.example", "not an address"]));
        assert!(come(&site, "ann@acme.example", Some(&fake)).await.unwrap().is_admin);
        let (seed, sync, hand) = (MemberSource::SystemSeed, MemberSource::GoogleSync, MemberSource::Admin);
        let all = [("Admin", sync), ("Everyone", seed), ("by hand", hand), ("eng@acme.example", sync)];
        assert_eq!(groups(&site, "ann@acme.example").await, all.map(|(name, source)| (name.to_owned(), source)));
        let diff = site.audit("group_sync").await.remove(0).params;
        assert_eq!(diff.unwrap()["added"], serde_json::json!(["Admin", "eng@acme.example"]));
        // No information, then no groups: only the second takes some away.
        fake.say(None);
        come(&site, "ann@acme.example", Some(&fake)).await.unwrap();
        assert_eq!(names(&site, "ann@acme.example").await.len(), 4);
        fake.say(Some(&[]));
        assert!(!come(&site, "ann@acme.example", Some(&fake)).await.unwrap().is_admin);
        assert_eq!(names(&site, "ann@acme.example").await, ["Everyone", "by hand"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_groups_of_the_prefix_open_the_gate() {
    let site = site(true, |config| {
        config.directory.subject = Some("it@acme.example".into());
        config.directory.prefix = Some("agnes-".into());
    })
    .await;
    let fake = Fake::default();
    refused(come(&site, "ann@acme.example", Some(&fake)).await, "group_check_unavailable");
    fake.say(Some(&["eng@acme.example", "x-agnes-@acme.example"]));
    refused(come(&site, "ann@acme.example", Some(&fake)).await, "not_in_allowed_group");
    fake.say(Some(&[]));
    refused(come(&site, "ann@acme.example", Some(&fake)).await, "not_in_allowed_group");
    let users = site.engine.identity().users(&owner()).await.unwrap();
    assert!(users.iter().all(|user| user.email != "ann@acme.example"), "no account was made");
    fake.say(Some(&["Agnes-People@acme.example", "eng@acme.example"]));
    come(&site, "ann@acme.example", Some(&fake)).await.unwrap();
    assert_eq!(names(&site, "ann@acme.example").await, ["Everyone", "agnes-people@acme.example"]);
    // Known from before: a directory out of reach keeps nobody out who was in.
    fake.say(None);
    come(&site, "ann@acme.example", Some(&fake)).await.unwrap();
    fake.say(Some(&["eng@acme.example"]));
    refused(come(&site, "ann@acme.example", Some(&fake)).await, "not_in_allowed_group");
    assert_eq!(names(&site, "ann@acme.example").await, ["Everyone"], "tokens must not keep what the group opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_cannot_be_synced_away() {
    let site = site(true, |config| {
        config.directory.subject = Some("it@acme.example".into());
        config.directory.admin = Some("admins@acme.example".into());
    })
    .await;
    let fake = Fake::default();
    fake.say(Some(&["admins@acme.example"]));
    assert!(come(&site, "boss@acme.example", Some(&fake)).await.unwrap().is_admin);
    fake.say(Some(&["eng@acme.example"]));
    // They sign in all the same, as what they were.
    let session = come(&site, "boss@acme.example", Some(&fake)).await.unwrap();
    assert!(session.is_admin);
    let ctx = site.caller(&session.token).await.unwrap();
    let sign_in = site.engine.sign_in();
    refused(sign_in.refresh_groups(&ctx, &client(), Some(&fake)).await, "last_admin");
    assert_eq!(names(&site, "boss@acme.example").await, ["Admin", "Everyone"]);
    assert!(
        site.audit("group_sync")
            .await
            .iter()
            .any(|event| event.result.as_deref().is_some_and(|result| result.starts_with("error")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn people_bring_their_groups_up_to_date() {
    let site = site(true, |config| {
        config.directory.subject = Some("it@acme.example".into());
        config.directory.everyone = Some("all@acme.example".into());
    })
    .await;
    let fake = Fake::default();
    site.person("ann@acme.example").await;
    let ctx = site.signed_in("ann@acme.example").await;
    let sign_in = site.engine.sign_in();
    let preview = sign_in.preview_groups(&ctx, Some(&fake)).await.unwrap();
    assert!(preview.soft_failed && preview.fetched.is_empty() && preview.would_remove.is_empty());
    refused(sign_in.refresh_groups(&ctx, &client(), Some(&fake)).await, "group_check_unavailable");
    refused(sign_in.refresh_groups(&ctx, &client(), Some(&fake)).await, "rate_limited");
    fake.say(Some(&["a@acme.example", "all@acme.example"]));
    let preview = sign_in.preview_groups(&ctx, Some(&fake)).await.unwrap();
    assert_eq!((preview.would_add.as_slice(), preview.soft_failed), (["a@acme.example".to_owned()].as_slice(), false));
    assert_eq!(names(&site, "ann@acme.example").await, ["Everyone"], "a preview changes nothing");
    site.person("bob@acme.example").await;
    let bob = site.signed_in("bob@acme.example").await;
    let change = sign_in.refresh_groups(&bob, &client(), Some(&fake)).await.unwrap();
    assert_eq!(change.added, ["a@acme.example"]);
    fake.say(Some(&["b@acme.example"]));
    let preview = sign_in.preview_groups(&bob, Some(&fake)).await.unwrap();
    assert_eq!(
        (preview.would_add, preview.would_remove),
        (vec!["b@acme.example".to_owned()], vec!["a@acme.example".to_owned()])
    );
    assert_eq!(preview.current_external_ids, ["a@acme.example"]);
    // Where there is no directory there is nothing to ask.
    let none = self::site(false, |_| {}).await;
    none.person("ann@acme.example").await;
    let ctx = none.signed_in("ann@acme.example").await;
    refused(none.engine.sign_in().refresh_groups(&ctx, &client(), None).await, "group_sync_off");
    refused(none.engine.sign_in().preview_groups(&ctx, None).await, "group_sync_off");
}
