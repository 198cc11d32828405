//! Sessions: who they are of, when they end; the service's token.

use agnes_core::CallContext;
use agnes_core::rbac::{AuthMethod, ClientKind};
use agnes_core::secret::Secret;
use chrono::TimeDelta;

use crate::support::{SERVICE, Site, client, on_both_stores, owner, refused};

on_both_stores! { lifetime signing_out forged me a_deleted_user }

async fn lifetime(site: Site) {
    site.person("ann@acme.example").await;
    let session = site.session("ann@acme.example").await;
    let ctx = site.caller(&session.token).await.unwrap();
    assert_eq!(ctx.principal().auth(), AuthMethod::Session);
    assert_eq!(ctx.client_ip(), client().ip());
    site.later(TimeDelta::hours(24) - TimeDelta::seconds(1));
    site.caller(&session.token).await.unwrap();
    site.later(TimeDelta::seconds(1));
    refused(site.caller(&session.token).await, "token_invalid");
    let browser = client().from_browser();
    let session = site.session("ann@acme.example").await;
    let ctx = site.engine.sign_in().authenticate(&browser, session.token.expose()).await.unwrap();
    assert_eq!(ctx.principal().client(), ClientKind::Web);
}

async fn signing_out(site: Site) {
    site.person("ann@acme.example").await;
    let sign_in = site.engine.sign_in();
    let (a, b) = (site.session("ann@acme.example").await, site.session("ann@acme.example").await);
    let ctx = site.caller(&a.token).await.unwrap();
    sign_in.sign_out(&ctx).await.unwrap();
    refused(site.caller(&a.token).await, "session_revoked");
    let ctx = site.caller(&b.token).await.unwrap();
    sign_in.sign_out_everywhere(&ctx).await.unwrap();
    refused(site.caller(&b.token).await, "session_revoked");
    // In the same moment by the clock, and when the clock is set back.
    let c = site.session("ann@acme.example").await;
    site.caller(&c.token).await.unwrap();
    site.later(TimeDelta::hours(-2));
    let d = site.session("ann@acme.example").await;
    site.caller(&d.token).await.unwrap();
    refused(sign_in.sign_out_everywhere(&owner()).await, "session_required");
    assert_eq!(site.audit("logout").await.len(), 2);
    assert_eq!(site.audit("token_created").await.len(), 5);
}

async fn forged(site: Site) {
    site.person("ann@acme.example").await;
    let session = site.session("ann@acme.example").await;
    let other = Site::new(false).await;
    other.person("ann@acme.example").await;
    let foreign = other.session("ann@acme.example").await;
    refused(site.caller(&foreign.token).await, "token_invalid");
    let text = session.token.expose();
    let cut = &text[..text.len() - 3];
    for odd in [cut, "", "x", "a.b.c", &text.replace('.', ""), &SERVICE[1..], &format!("{SERVICE}x")] {
        refused(site.caller(&Secret::new(odd)).await, "token_invalid");
    }
}

async fn me(site: Site) {
    let ann = site.admin("ann@acme.example").await;
    let ctx = site.signed_in("ann@acme.example").await;
    let sign_in = site.engine.sign_in();
    let me = sign_in.me(&ctx).await.unwrap();
    assert_eq!((me.user_id.as_str(), me.email.as_str(), me.is_admin), (ann.id.as_str(), "ann@acme.example", true));
    assert_eq!(me.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["Admin", "Everyone"]);
    assert_eq!((me.auth.as_str(), me.onboarded, me.last_pull_at), ("session", false, None));
    assert!(me.expires_at.is_some() && me.token_id.is_some() && me.token_name.is_none());
    sign_in.set_onboarded(&ctx, true).await.unwrap();
    sign_in.pulled(&ctx);
    let me = sign_in.me(&ctx).await.unwrap();
    assert!(me.onboarded && me.last_pull_at.is_some());
    // A removed membership is gone from the next call on.
    site.admin("bob@acme.example").await;
    site.engine.identity().remove_member(&owner(), "Admin", "ann@acme.example").await.unwrap();
    assert!(!sign_in.me(&ctx).await.unwrap().is_admin);
}

async fn a_deleted_user(site: Site) {
    site.person("ann@acme.example").await;
    let session = site.session("ann@acme.example").await;
    let ctx: CallContext = site.caller(&session.token).await.unwrap();
    site.engine.identity().remove_user(&owner(), "ann@acme.example").await.unwrap();
    refused(site.caller(&session.token).await, "user_not_found");
    refused(site.engine.sign_in().me(&ctx).await, "inactive_user");
    // Who comes after them under the same address is somebody else.
    site.user("ann@acme.example").await;
    refused(site.caller(&session.token).await, "user_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_a_restart() {
    let site = Site::new(true).await;
    site.person("ann@acme.example").await;
    let (kept, ended) = (site.session("ann@acme.example").await, site.session("ann@acme.example").await);
    let ctx = site.caller(&ended.token).await.unwrap();
    site.engine.sign_in().sign_out(&ctx).await.unwrap();
    site.engine.close().await.unwrap();
    let Site { engine, clock, root } = site;
    drop(engine);
    let engine = agnes_core::Engine::builder(root.path()).clock(clock.clone()).open().await.unwrap();
    let site = Site { engine, clock, root };
    site.caller(&kept.token).await.unwrap();
    refused(site.caller(&ended.token).await, "session_revoked");
}
