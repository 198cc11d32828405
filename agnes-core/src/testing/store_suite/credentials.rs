//! Passwords, one-shot tokens and codes, ended sessions, tokens, access requests.

use chrono::TimeDelta;

use super::access::{grant, group, member, user};
use super::{at, refused};
use crate::identity::{
    AccessRequest, Account, CodePurpose, OAuthClient, OAuthCode, OneShotCode, PasswordChange, RefreshToken, Renewal,
    RequestStatus, Review, SCHEDULER_EMAIL, StoredToken, TakenCode, TokenKind, UserChange, UserToken,
};
use crate::rbac::{ADMIN_GROUP, DIRECTORY_SYNC, Group, MemberSource, ResourceType};
use crate::store::Store;

fn password(hash: &str) -> PasswordChange {
    PasswordChange { hash: hash.into(), must_change: false, name: None, end_sessions: None, keep_session: None }
}

async fn account(store: &dyn Store, id: &str) -> Account {
    store.credentials().snapshot().await.unwrap().accounts[id].clone()
}

pub(super) async fn run(store: &dyn Store) {
    store.access().seed_system_groups(at(0)).await.unwrap();
    store.users().insert(&user("u1", "ana@acme.example")).await.unwrap();
    store.users().insert(&user("u2", "bob@acme.example")).await.unwrap();
    passwords(store).await;
    one_shot(store).await;
    sessions(store).await;
    codes(store).await;
    tokens(store).await;
    oauth(store).await;
    requests(store).await;
    gone_with_the_user(store).await;
    service(store).await;
}

/// On a store of its own: nobody may be there.
pub(super) async fn first_admin(store: &dyn Store) {
    let credentials = store.credentials();
    store.access().seed_system_groups(at(0)).await.unwrap();
    let admin = store.access().group_by_name(ADMIN_GROUP).await.unwrap().unwrap().id;
    assert!(credentials.bootstrap_open().await.unwrap());
    // The service and an Admin that Agnes seeded without a password do not close it.
    for (id, email) in [("svc", SCHEDULER_EMAIL), ("seed", "seed@acme.example")] {
        store.users().insert(&user(id, email)).await.unwrap();
        store.access().add_member(&member(&admin, id, MemberSource::SystemSeed)).await.unwrap();
    }
    assert!(credentials.bootstrap_open().await.unwrap());
    // An Admin who signs in elsewhere closes it, until they are no active Admin.
    store.users().insert(&user("sso", "sso@acme.example")).await.unwrap();
    store.access().add_member(&member(&admin, "sso", MemberSource::SystemSeed)).await.unwrap();
    assert!(credentials.bootstrap_open().await.unwrap());
    store.access().settle_seeded_admin("sso").await.unwrap();
    assert!(!credentials.bootstrap_open().await.unwrap());
    store.access().remove_member(&admin, "sso").await.unwrap();
    assert!(credentials.bootstrap_open().await.unwrap());
    // Two at once: one of them is the first.
    let (new, known) = (user("n", "new@acme.example"), user("other id", "SSO@acme.example"));
    let (a, b) = futures::join!(
        credentials.bootstrap(&new, Some("hash"), at(2)),
        credentials.bootstrap(&known, Some("hash"), at(2))
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    let found = a.xor(b).unwrap();
    assert!(found.active && ["n", "sso"].contains(&found.id.as_str()));
    assert!(!credentials.bootstrap_open().await.unwrap());
    assert!(account(store, &found.id).await.has_password());
    let members = store.access().members(&admin).await.unwrap();
    assert!(members.iter().any(|member| member.user_id == found.id && member.source == MemberSource::Admin));
    assert_eq!(credentials.bootstrap(&new, None, at(3)).await.unwrap(), None);
}

/// Who has this address, and the hash of their password.
async fn password_of(store: &dyn Store, email: &str) -> Option<(String, Option<String>)> {
    let known = store.credentials().snapshot().await.unwrap();
    let hash = |account: &Account| account.password_hash.as_ref().map(|hash| hash.expose().to_owned());
    known.account_of(email).map(|account| (account.id.clone(), hash(account)))
}

async fn passwords(store: &dyn Store) {
    let credentials = store.credentials();
    assert_eq!(password_of(store, "nobody@acme.example").await, None);
    assert_eq!(password_of(store, " ANA@acme.example ").await, Some(("u1".into(), None)));
    let before = account(store, "u1").await;
    assert!(!before.has_password() && !before.must_change_password && before.sessions_valid_after.is_none());
    assert_eq!((before.email.as_str(), before.active), ("ana@acme.example", true));
    let (access, revision) = (store.revision(), store.credential_revision());
    refused(credentials.set_password("nobody", &password("h"), at(1)).await, "user_not_found");
    credentials.set_password("u1", &password("h1"), at(1)).await.unwrap();
    assert!(store.credential_revision() > revision);
    assert_eq!(store.revision(), access, "no access depends on a password");
    assert_eq!(credentials.snapshot().await.unwrap().revision, store.credential_revision());
    assert_eq!(password_of(store, "ana@acme.example").await.unwrap().1.as_deref(), Some("h1"));
    // Only what is still the old hash becomes the stronger one.
    credentials.rehash("u1", "other", "h9").await.unwrap();
    credentials.rehash("u1", "h1", "h2").await.unwrap();
    assert_eq!(password_of(store, "ana@acme.example").await.unwrap().1.as_deref(), Some("h2"));
    let change = PasswordChange {
        must_change: true,
        name: Some("Ana".into()),
        end_sessions: Some(at(2)),
        keep_session: Some("s1".into()),
        ..password("h3")
    };
    credentials.set_password("u1", &change, at(2)).await.unwrap();
    let now = account(store, "u1").await;
    assert!(now.has_password() && now.must_change_password);
    assert_eq!((now.name.as_deref(), now.sessions_valid_after), (Some("Ana"), Some(at(2))));
    assert_eq!(now.kept_session.as_deref(), Some("s1"));
    // What is not said stays, but a session that was kept from an earlier end.
    credentials.set_password("u1", &password("h4"), at(3)).await.unwrap();
    let now = account(store, "u1").await;
    assert_eq!((now.name.as_deref(), now.sessions_valid_after), (Some("Ana"), Some(at(2))));
    assert!(!now.must_change_password);
    let named = UserChange { name: Some("Ana B".into()), onboarded: None };
    let named = store.users().update("u1", &named, at(4)).await.unwrap();
    assert_eq!((named.name.as_deref(), named.onboarded, named.updated_at), (Some("Ana B"), false, Some(at(4))));
    let done = UserChange { name: None, onboarded: Some(true) };
    assert_eq!(store.users().update("u1", &done, at(5)).await.unwrap().name.as_deref(), Some("Ana B"));
    assert!(account(store, "u1").await.onboarded);
    refused(store.users().update("nobody", &done, at(5)).await, "user_not_found");
}

async fn one_shot(store: &dyn Store) {
    let credentials = store.credentials();
    refused(credentials.set_user_token("nobody", UserToken::Reset, "t", at(10)).await, "user_not_found");
    for (kind, hash) in [(UserToken::Setup, "ts"), (UserToken::Reset, "tr"), (UserToken::Login, "tl")] {
        credentials.set_user_token("u1", kind, hash, at(10)).await.unwrap();
    }
    let owner = |email: &'static str, kind, hash: &'static str, after| {
        let credentials = store.credentials();
        async move { credentials.owner_of_user_token(email, kind, hash, at(after)).await.unwrap() }
    };
    assert_eq!(owner(" Ana@acme.example", UserToken::Reset, "tr", 9).await.as_deref(), Some("u1"));
    assert_eq!(owner("ana@acme.example", UserToken::Reset, "tr", 10).await, None, "too old");
    assert_eq!(owner("ana@acme.example", UserToken::Reset, "ts", 9).await, None, "another kind");
    assert_eq!(owner("bob@acme.example", UserToken::Reset, "tr", 9).await, None, "another's");
    let take = |kind, hash: &'static str, after, change: Option<PasswordChange>| {
        let credentials = store.credentials();
        async move { credentials.consume_user_token("u1", kind, hash, at(after), change.as_ref(), at(20)).await.unwrap() }
    };
    assert!(!take(UserToken::Login, "tl", 10, None).await);
    assert!(!take(UserToken::Login, "tr", 9, None).await);
    // Many at once: one of them gets it.
    let won = futures::future::join_all((0..8).map(|_| take(UserToken::Login, "tl", 9, None))).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    assert_eq!(owner("ana@acme.example", UserToken::Login, "tl", 9).await, None);
    // The others are still there, until the password changes.
    let won = futures::future::join_all((0..8).map(|_| take(UserToken::Reset, "tr", 9, Some(password("new"))))).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    assert_eq!(password_of(store, "ana@acme.example").await.unwrap().1.as_deref(), Some("new"));
    assert!(!take(UserToken::Setup, "ts", 9, None).await, "gone with the old password");
    // An inactive user takes nothing.
    credentials.set_user_token("u2", UserToken::Login, "t2", at(10)).await.unwrap();
    store.users().set_active("u2", false, "u1", at(11)).await.unwrap();
    assert!(!credentials.consume_user_token("u2", UserToken::Login, "t2", at(9), None, at(12)).await.unwrap());
    store.users().set_active("u2", true, "u1", at(11)).await.unwrap();
    assert!(credentials.consume_user_token("u2", UserToken::Login, "t2", at(9), None, at(12)).await.unwrap());
}

async fn sessions(store: &dyn Store) {
    let credentials = store.credentials();
    let revision = store.credential_revision();
    credentials.end_session("s1", at(30), at(20)).await.unwrap();
    credentials.end_session("s1", at(30), at(20)).await.unwrap();
    credentials.end_session("s2", at(90), at(20)).await.unwrap();
    assert!(store.credential_revision() > revision);
    let ended = credentials.snapshot().await.unwrap().ended;
    assert!(ended.contains("s1") && ended.contains("s2"));
    // What is over by itself is forgotten.
    credentials.end_session("s3", at(90), at(31)).await.unwrap();
    let ended = credentials.snapshot().await.unwrap().ended;
    assert_eq!(ended.iter().map(String::as_str).collect::<Vec<_>>(), ["s2", "s3"]);
    refused(credentials.end_sessions("nobody", None, at(40)).await, "user_not_found");
    credentials.end_sessions("u1", Some("s9"), at(40)).await.unwrap();
    let now = account(store, "u1").await;
    assert_eq!((now.sessions_valid_after, now.kept_session.as_deref()), (Some(at(40)), Some("s9")));
    credentials.end_sessions("u1", None, at(41)).await.unwrap();
    assert_eq!(account(store, "u1").await.kept_session, None);
}

async fn codes(store: &dyn Store) {
    let credentials = store.credentials();
    let code = |hash: &str, purpose, seconds| OneShotCode {
        code_hash: hash.into(),
        purpose,
        user_id: (purpose != CodePurpose::Bootstrap).then(|| "u1".to_owned()),
        created_at: at(seconds),
        expires_at: at(seconds) + TimeDelta::minutes(2),
    };
    let take = |hash: &'static str, purpose, seconds| {
        let credentials = store.credentials();
        async move { credentials.consume_code(hash, purpose, at(seconds)).await.unwrap() }
    };
    credentials.insert_code(&code("c1", CodePurpose::Desktop, 0)).await.unwrap();
    credentials.insert_code(&code("c2", CodePurpose::Cli, 0)).await.unwrap();
    assert_eq!(take("c1", CodePurpose::Cli, 1).await, None, "another purpose");
    assert_eq!(take("c1", CodePurpose::Desktop, 120).await, None, "too old");
    let won = futures::future::join_all((0..8).map(|_| take("c1", CodePurpose::Desktop, 119))).await;
    let won: Vec<OneShotCode> = won.into_iter().flatten().collect();
    assert_eq!(won, [code("c1", CodePurpose::Desktop, 0)]);
    // A new one sweeps what is too old, a bootstrap's replaces the earlier.
    credentials.insert_code(&code("b1", CodePurpose::Bootstrap, 200)).await.unwrap();
    assert_eq!(take("c2", CodePurpose::Cli, 1).await, None);
    credentials.insert_code(&code("b2", CodePurpose::Bootstrap, 201)).await.unwrap();
    assert_eq!(take("b1", CodePurpose::Bootstrap, 202).await, None);
    assert_eq!(take("b2", CodePurpose::Bootstrap, 202).await.map(|code| code.user_id), Some(None));
}

fn token(id: &str, user: &str, seconds: i64) -> StoredToken {
    StoredToken {
        id: id.into(),
        user_id: user.into(),
        name: "laptop".into(),
        prefix: id.chars().take(8).collect(),
        token_hash: format!("hash of {id}"),
        scope: "general".into(),
        created_at: Some(at(seconds)),
        expires_at: Some(at(seconds + 99)),
        last_used_at: None,
        last_used_ip: None,
        revoked_at: None,
        revoked_by: None,
    }
}

async fn tokens(store: &dyn Store) {
    use TokenKind::{Desktop, Personal};
    let tokens = store.tokens();
    refused(tokens.insert(Personal, &token("t0", "nobody", 0)).await, "user_not_found");
    let revision = store.credential_revision();
    tokens.insert(Personal, &token("t1", "u1", 1)).await.unwrap();
    assert!(store.credential_revision() > revision);
    tokens.insert(Personal, &token("t2", "u1", 2)).await.unwrap();
    tokens.insert(Personal, &token("t3", "u2", 3)).await.unwrap();
    tokens.insert(Desktop, &token("d1", "u1", 4)).await.unwrap();
    let ids = |rows: Vec<StoredToken>| rows.into_iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!(tokens.list(Personal, Some("u1")).await.unwrap(), [token("t2", "u1", 2), token("t1", "u1", 1)]);
    assert_eq!(ids(tokens.list(Personal, None).await.unwrap()), ["t3", "t2", "t1"]);
    assert_eq!(ids(tokens.list(Desktop, None).await.unwrap()), ["d1"]);
    let snapshot = store.credentials().snapshot().await.unwrap();
    assert_eq!(snapshot.tokens.len(), 4);
    assert_eq!(snapshot.tokens[&(Personal, "t1".into())], token("t1", "u1", 1));
    // Uses move no revision and tell of the one before.
    let revision = store.credential_revision();
    assert_eq!(tokens.touch(Personal, "none", Some("1.2.3.4"), at(9)).await.unwrap(), None);
    assert_eq!(tokens.touch(Personal, "t1", Some("1.2.3.4"), at(9)).await.unwrap(), None);
    assert_eq!(tokens.touch(Personal, "t1", None, at(10)).await.unwrap(), Some(Some("1.2.3.4".into())));
    assert_eq!(tokens.touch(Personal, "t1", Some("::1"), at(11)).await.unwrap(), Some(Some("1.2.3.4".into())));
    assert_eq!(store.credential_revision(), revision);
    let used = tokens.list(Personal, Some("u1")).await.unwrap().pop().unwrap();
    assert_eq!((used.last_used_at, used.last_used_ip.as_deref()), (Some(at(11)), Some("::1")));
    // Revoking: once, and it stays so.
    assert!(!tokens.revoke(Personal, "d1", "u1", at(12)).await.unwrap(), "another kind");
    assert!(tokens.revoke(Personal, "t1", "u1", at(12)).await.unwrap());
    assert!(tokens.revoke(Personal, "t1", "u2", at(13)).await.unwrap());
    assert!(store.credential_revision() > revision);
    let revoked = store.credentials().snapshot().await.unwrap().tokens[&(Personal, "t1".into())].clone();
    assert_eq!((revoked.revoked_at, revoked.revoked_by.as_deref()), (Some(at(12)), Some("u1")));
}

async fn oauth(store: &dyn Store) {
    let oauth = store.oauth();
    let client = |id: &str, seconds| OAuthClient {
        id: id.into(),
        name: "an \"assistant\"".into(),
        redirect_uris: vec!["https://a.example/cb".into(), "http://localhost/x?y='z'".into()],
        created_at: at(seconds),
        last_used_at: None,
    };
    let code = |hash: &str, user: &str, seconds| OAuthCode {
        code_hash: hash.into(),
        client_id: "c1".into(),
        user_id: user.into(),
        redirect_uri: "https://a.example/cb".into(),
        challenge: "challenge".into(),
        created_at: at(seconds),
        expires_at: at(seconds + 300),
    };
    oauth.insert_client(&client("c1", 0), at(-9)).await.unwrap();
    oauth.insert_client(&client("c2", 5), at(0)).await.unwrap();
    assert_eq!(oauth.client("c1").await.unwrap(), Some(client("c1", 0)));
    assert_eq!(oauth.client("none").await.unwrap(), None);
    // A code: once, and whoever comes later learns what it was for.
    oauth.insert_code(&code("o1", "u1", 10)).await.unwrap();
    assert_eq!(oauth.client("c1").await.unwrap().and_then(|client| client.last_used_at), Some(at(10)));
    assert_eq!(oauth.take_code("none", "t9", at(11)).await.unwrap(), TakenCode::Unknown);
    assert_eq!(oauth.take_code("o1", "t9", at(310)).await.unwrap(), TakenCode::Unknown, "too old");
    let taken = futures::future::join_all((0..8).map(|n| {
        let oauth = oauth.clone();
        async move { oauth.take_code("o1", &format!("t{n}"), at(309)).await.unwrap() }
    }))
    .await;
    let fresh: Vec<&TakenCode> = taken.iter().filter(|taken| matches!(taken, TakenCode::Fresh(_))).collect();
    assert_eq!(fresh, [&TakenCode::Fresh(code("o1", "u1", 10))]);
    assert_eq!(taken.iter().filter(|taken| matches!(taken, TakenCode::Used(_))).count(), 7);
    // Renewals: each once, of several at a time one.
    store.tokens().insert(TokenKind::Personal, &token("ot", "u1", 20)).await.unwrap();
    let refresh = |hash: &str, seconds| RefreshToken {
        hash: hash.into(),
        token_id: "ot".into(),
        client_id: "c1".into(),
        created_at: at(seconds),
        expires_at: at(seconds + 1000),
    };
    oauth.insert_refresh(&refresh("r1", 20)).await.unwrap();
    assert_eq!(oauth.refresh("r1").await.unwrap(), Some(refresh("r1", 20)));
    let other = RefreshToken { client_id: "c2".into(), ..refresh("r2", 21) };
    assert_eq!(oauth.renew("r1", &other, "h").await.unwrap(), Renewal::Unknown, "another client");
    assert_eq!(oauth.renew("none", &refresh("r2", 21), "h").await.unwrap(), Renewal::Unknown);
    assert_eq!(oauth.renew("r1", &refresh("r2", 1020), "h").await.unwrap(), Renewal::Unknown, "too old");
    let revision = store.credential_revision();
    let (new, again) = (refresh("r2", 30), refresh("r3", 30));
    let (a, b) = futures::join!(oauth.renew("r1", &new, "h2"), oauth.renew("r1", &again, "h3"));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!((a, b) == (Renewal::Done, Renewal::Reused) || (b, a) == (Renewal::Done, Renewal::Reused), "{a:?} {b:?}");
    assert!(store.credential_revision() > revision);
    let (won, hash) = if a == Renewal::Done { ("r2", "h2") } else { ("r3", "h3") };
    let renewed = store.credentials().snapshot().await.unwrap().tokens[&(TokenKind::Personal, "ot".into())].clone();
    assert_eq!((renewed.token_hash.as_str(), renewed.expires_at), (hash, Some(at(1030))));
    assert_eq!(oauth.client("c1").await.unwrap().and_then(|client| client.last_used_at), Some(at(30)));
    // What was revoked is not renewed.
    store.tokens().revoke(TokenKind::Personal, "ot", "u1", at(31)).await.unwrap();
    assert_eq!(oauth.renew(won, &refresh("r4", 32), "h4").await.unwrap(), Renewal::Unknown);
    // A new client sweeps those that nobody used.
    oauth.insert_client(&client("c3", 40), at(20)).await.unwrap();
    assert_eq!(oauth.client("c2").await.unwrap(), None);
    assert!(oauth.client("c1").await.unwrap().is_some());
    oauth.insert_code(&code("o2", "u2", 50)).await.unwrap();
}

fn request(id: &str, user: &str, table: &str, seconds: i64) -> AccessRequest {
    AccessRequest {
        id: id.into(),
        user_id: user.into(),
        resource_type: ResourceType::Table,
        resource_id: table.into(),
        reason: Some("for the \"report\"".into()),
        status: RequestStatus::Pending,
        created_at: at(seconds),
        reviewed_by: None,
        reviewed_at: None,
        review_note: None,
        group_id: None,
    }
}

async fn requests(store: &dyn Store) {
    let requests = store.access_requests();
    requests.insert(&request("r1", "u2", "Orders", 1), 3).await.unwrap();
    refused(requests.insert(&request("r9", "u2", "oRDERS", 1), 3).await, "already_pending");
    requests.insert(&request("r2", "u2", "tickets", 2), 3).await.unwrap();
    requests.insert(&request("r3", "u2", "visits", 3), 3).await.unwrap();
    refused(requests.insert(&request("r9", "u2", "more", 4), 3).await, "too_many_requests_pending");
    requests.insert(&request("r4", "u1", "orders", 5), 3).await.unwrap();
    assert_eq!(requests.get("r1").await.unwrap(), Some(request("r1", "u2", "Orders", 1)));
    assert_eq!(requests.get("none").await.unwrap(), None);
    let ids = |rows: Vec<AccessRequest>| rows.into_iter().map(|request| request.id).collect::<Vec<_>>();
    assert_eq!(ids(requests.list(Some("u2"), None).await.unwrap()), ["r3", "r2", "r1"]);

    store.access().insert_group(&group("fin", "Finance")).await.unwrap();
    let dir = Group { created_by: Some(DIRECTORY_SYNC.into()), ..group("dir", "dir@acme.example") };
    store.access().insert_group(&dir).await.unwrap();
    let review = |group: &str, id: &str| Review {
        status: RequestStatus::Approved,
        by: "u1".into(),
        at: at(9),
        note: Some("ok".into()),
        gives: Some((member(group, "u2", MemberSource::Admin), grant(id, group, ResourceType::Table, "orders"))),
    };
    refused(requests.end("none", &review("fin", "g1")).await, "request_not_found");
    refused(requests.end("r1", &review("none", "g1")).await, "group_not_found");
    refused(requests.end("r1", &review("dir", "g1")).await, "google_managed_readonly");
    assert!(store.access().grants(None).await.unwrap().is_empty(), "all or nothing");
    let revision = store.revision();
    let (done, given) = requests.end("r1", &review("fin", "g1")).await.unwrap();
    assert!(given.membership_added && given.grant_added && store.revision() > revision);
    assert_eq!((done.status, done.group_id.as_deref()), (RequestStatus::Approved, Some("fin")));
    assert_eq!((done.reviewed_at, done.review_note.as_deref()), (Some(at(9)), Some("ok")));
    assert_eq!(requests.get("r1").await.unwrap(), Some(done));
    refused(requests.end("r1", &review("fin", "g2")).await, "not_pending");
    // What is there already is not added again.
    let (_, given) = requests.end("r4", &review("fin", "g2")).await.unwrap();
    assert!(!given.membership_added && !given.grant_added);
    let deny = Review { status: RequestStatus::Denied, gives: None, note: None, ..review("fin", "") };
    let (denied, given) = requests.end("r2", &deny).await.unwrap();
    assert!(denied.status == RequestStatus::Denied && !given.grant_added);
    // Asked again after a no; two answers at once: one counts.
    requests.insert(&request("r5", "u2", "tickets", 6), 3).await.unwrap();
    let cancel = Review { status: RequestStatus::Cancelled, ..deny.clone() };
    let (a, b) = futures::join!(requests.end("r5", &deny), requests.end("r5", &cancel));
    assert!(a.is_ok() != b.is_ok());
    assert_eq!(ids(requests.list(None, Some(RequestStatus::Pending)).await.unwrap()), ["r3"]);
}

async fn gone_with_the_user(store: &dyn Store) {
    let code = OneShotCode {
        code_hash: "of u2".into(),
        purpose: CodePurpose::Cli,
        user_id: Some("u2".into()),
        created_at: at(0),
        expires_at: at(60),
    };
    store.credentials().insert_code(&code).await.unwrap();
    store.tokens().insert(TokenKind::Desktop, &token("d2", "u2", 4)).await.unwrap();
    store.users().delete("u2").await.unwrap();
    let snapshot = store.credentials().snapshot().await.unwrap();
    assert!(!snapshot.accounts.contains_key("u2"));
    assert!(!snapshot.tokens.values().any(|token| token.user_id == "u2"));
    assert!(store.access_requests().list(Some("u2"), None).await.unwrap().is_empty());
    assert_eq!(store.credentials().consume_code("of u2", CodePurpose::Cli, at(1)).await.unwrap(), None);
    assert_eq!(store.oauth().take_code("o2", "t9", at(51)).await.unwrap(), TakenCode::Unknown);
    // Somebody else with the same address begins without a password.
    store.users().insert(&user("u3", "bob@acme.example")).await.unwrap();
    assert_eq!(password_of(store, "bob@acme.example").await, Some(("u3".into(), None)));
}

/// The service's user stays what it is.
async fn service(store: &dyn Store) {
    let admin = store.access().group_by_name(ADMIN_GROUP).await.unwrap().unwrap().id;
    store.users().insert(&user("svc", SCHEDULER_EMAIL)).await.unwrap();
    store.access().add_member(&member(&admin, "svc", MemberSource::SystemSeed)).await.unwrap();
    store.access().add_member(&member(&admin, "u1", MemberSource::Admin)).await.unwrap();
    store.access().add_member(&member(&admin, "u3", MemberSource::Admin)).await.unwrap();
    refused(store.users().delete("svc").await, "service_account");
    refused(store.users().set_active("svc", false, "u1", at(1)).await, "service_account");
    refused(store.access().remove_member(&admin, "svc").await, "service_account");
    // It is no person who could remain as the last Admin.
    store.access().remove_member(&admin, "u3").await.unwrap();
    refused(store.access().remove_member(&admin, "u1").await, "last_admin");
    refused(store.users().set_active("u1", false, "u3", at(1)).await, "last_admin");
    refused(store.users().delete("u1").await, "last_admin");
}
