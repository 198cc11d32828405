//! Personal access tokens.

use agnes_core::identity::TokenLife;
use agnes_core::rbac::{AuthMethod, ClientKind, ResourceType, Scope};
use chrono::TimeDelta;

use crate::support::{Site, client_at, on_both_stores, owner, refused};

on_both_stores! { making lives_and_scopes revoking uses narrow_scopes }

async fn making(site: Site) {
    site.person("ann@acme.example").await;
    let ctx = site.signed_in("ann@acme.example").await;
    let tokens = site.engine.tokens();
    let made = tokens.create(&ctx, " laptop ", TokenLife::Days(90), "general").await.unwrap();
    assert_eq!((made.row.name.as_str(), made.row.prefix.len()), ("laptop", 8));
    assert!(made.row.id.starts_with(&made.row.prefix));
    let caller = site.caller(&made.token).await.unwrap();
    assert_eq!((caller.principal().auth(), caller.principal().scope()), (AuthMethod::Pat, Scope::General));
    assert_eq!(caller.principal().user_id(), ctx.principal().user_id());
    let me = site.engine.sign_in().me(&caller).await.unwrap();
    assert_eq!((me.auth.as_str(), me.token_name.as_deref()), ("pat", Some("laptop")));
    // A token makes no token, neither does the owner of the files in somebody's name.
    refused(tokens.create(&caller, "x", TokenLife::Days(1), "general").await, "session_required");
    refused(site.engine.sign_in().sign_out_everywhere(&caller).await, "session_required");
    let local = site.engine.identity().principal_of(&owner(), "ann@acme.example", ClientKind::Cli).await.unwrap();
    let local = agnes_core::CallContext::new(local);
    refused(tokens.create(&local, "x", TokenLife::Days(1), "general").await, "session_required");
    refused(tokens.create(&owner(), "x", TokenLife::Days(1), "general").await, "session_required");
    // Only its hash is kept; it is shown once.
    let bytes = site.state_bytes();
    assert!(!bytes.windows(made.token.expose().len()).any(|window| window == made.token.expose().as_bytes()));
    assert!(!format!("{made:?} {:?}", site.audit("token").await).contains(made.token.expose()));
    // It outlives the sessions of its user.
    site.engine.sign_in().sign_out_everywhere(&ctx).await.unwrap();
    site.caller(&made.token).await.unwrap();
}

async fn lives_and_scopes(site: Site) {
    site.person("ann@acme.example").await;
    let ctx = site.signed_in("ann@acme.example").await;
    let tokens = site.engine.tokens();
    for life in [TokenLife::Days(0), TokenLife::Days(3651), TokenLife::Days(-1), TokenLife::Seconds(0)] {
        refused(tokens.create(&ctx, "x", life, "general").await, "bad_expiry");
    }
    refused(tokens.create(&ctx, "x", TokenLife::Seconds(315_360_001), "general").await, "bad_expiry");
    for name in ["", "  ", &"x".repeat(201)] {
        refused(tokens.create(&ctx, name, TokenLife::Days(1), "general").await, "name_required");
    }
    for scope in ["", "admin", "desktop", "General"] {
        refused(tokens.create(&ctx, "x", TokenLife::Days(1), scope).await, "unknown_scope");
    }
    let short = tokens.create(&ctx, "short", TokenLife::Seconds(60), "general").await.unwrap();
    let forever = tokens.create(&ctx, "forever", TokenLife::Unlimited, "general").await.unwrap();
    let narrow = tokens.create(&ctx, "narrow", TokenLife::Days(90), "bootstrap-analyst").await.unwrap();
    assert_eq!(forever.row.expires_at, None);
    site.later(TimeDelta::seconds(59));
    site.caller(&short.token).await.unwrap();
    site.later(TimeDelta::seconds(1));
    refused(site.caller(&short.token).await, "token_expired");
    site.later(TimeDelta::minutes(58));
    site.caller(&narrow.token).await.unwrap();
    site.later(TimeDelta::minutes(1));
    refused(site.caller(&narrow.token).await, "token_expired");
    site.later(TimeDelta::days(5000));
    site.caller(&forever.token).await.unwrap();
}

async fn revoking(site: Site) {
    site.admin("root@acme.example").await;
    site.person("ann@acme.example").await;
    site.person("bob@acme.example").await;
    let (ann, bob) = (site.signed_in("ann@acme.example").await, site.signed_in("bob@acme.example").await);
    let admin = site.signed_in("root@acme.example").await;
    let tokens = site.engine.tokens();
    let make = |name: &'static str| {
        let ann = ann.clone();
        async move { tokens.create(&ann, name, TokenLife::Days(1), "general").await.unwrap() }
    };
    let (a, b, c) = (make("a").await, make("b").await, make("c").await);
    // Somebody else's does not exist.
    refused(tokens.revoke(&bob, &a.row.id).await, "token_not_found");
    refused(tokens.get(&bob, &a.row.id).await, "token_not_found");
    assert!(tokens.list(&bob).await.unwrap().is_empty());
    refused(tokens.list_all(&bob, 10, 0).await, "admin_required");
    refused(tokens.revoke_any(&bob, &a.row.id).await, "admin_required");
    tokens.revoke(&ann, &a.row.id).await.unwrap();
    refused(site.caller(&a.token).await, "token_revoked");
    // Itself.
    let by_b = site.caller(&b.token).await.unwrap();
    tokens.revoke(&by_b, &b.row.id).await.unwrap();
    refused(site.caller(&b.token).await, "token_revoked");
    // An admin's.
    tokens.revoke_any(&admin, &c.row.id).await.unwrap();
    refused(site.caller(&c.token).await, "token_revoked");
    refused(tokens.revoke_any(&admin, "none").await, "token_not_found");
    let all = tokens.list_all(&admin, 10, 0).await.unwrap();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|token| token.user_email == "ann@acme.example" && token.revoked_at.is_some()));
    assert_eq!(tokens.list_all(&admin, 1, 2).await.unwrap().len(), 1);
    let told = site.audit("token.").await;
    assert_eq!(told.iter().filter(|event| event.action == "token.revoke").count(), 2);
    assert_eq!(told.iter().filter(|event| event.action == "token.admin_revoke").count(), 1);
    // Deactivation refuses them all, deletion takes them along.
    let d = make("d").await;
    site.engine.identity().set_active(&admin, "ann@acme.example", false).await.unwrap();
    refused(site.caller(&d.token).await, "account_deactivated");
    site.engine.identity().set_active(&admin, "ann@acme.example", true).await.unwrap();
    site.caller(&d.token).await.unwrap();
    site.engine.identity().remove_user(&admin, "ann@acme.example").await.unwrap();
    refused(site.caller(&d.token).await, "user_not_found");
    assert!(tokens.list_all(&admin, 10, 0).await.unwrap().is_empty());
}

async fn uses(site: Site) {
    site.person("ann@acme.example").await;
    let ctx = site.signed_in("ann@acme.example").await;
    let tokens = site.engine.tokens();
    let made = tokens.create(&ctx, "laptop", TokenLife::Days(90), "general").await.unwrap();
    let used_from = |ip: &'static str| {
        let (engine, token) = (site.engine.clone(), made.token.clone());
        async move {
            let client = client_at(ip).with_user_agent("agnes/1.0");
            let ctx = engine.sign_in().authenticate(&client, token.expose()).await.unwrap();
            assert_eq!(ctx.principal().client(), ClientKind::Cli);
            engine.sign_in().settle().await;
        }
    };
    let row = || async { tokens.get(&ctx, &made.row.id).await.unwrap() };
    used_from("10.0.0.1").await;
    let first = row().await;
    assert_eq!(first.last_used_ip.as_deref(), Some("10.0.0.1"));
    // Within a minute nothing is written, unless the address is new.
    site.later(TimeDelta::seconds(30));
    used_from("10.0.0.1").await;
    assert_eq!(row().await.last_used_at, first.last_used_at);
    assert!(site.audit("token.first_use").await.is_empty());
    used_from("10.0.0.2").await;
    assert_eq!(row().await.last_used_ip.as_deref(), Some("10.0.0.2"));
    let told = site.audit("token.first_use").await;
    assert_eq!(told.len(), 1);
    let params = told[0].params.clone().unwrap();
    assert_eq!((&params["ip"], &params["previous_ip"]), (&"10.0.0.2".into(), &"10.0.0.1".into()));
    assert_eq!(told[0].resource, Some(format!("token:{}", made.row.id)));
    assert_eq!(told[0].client_ip.as_deref(), Some("10.0.0.2"));
    // Once for each address.
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.1"] {
        site.later(TimeDelta::minutes(2));
        used_from(ip).await;
    }
    assert_eq!(site.audit("token.first_use").await.len(), 1);
    used_from("::1").await;
    assert_eq!(site.audit("token.first_use").await.len(), 2);
}

async fn narrow_scopes(site: Site) {
    site.admin("ann@acme.example").await;
    let ctx = site.signed_in("ann@acme.example").await;
    let tokens = site.engine.tokens();
    let made = tokens.create(&ctx, "init", TokenLife::Days(1), "bootstrap-analyst").await.unwrap();
    let narrow = site.caller(&made.token).await.unwrap();
    let engine = &site.engine;
    engine.sign_in().me(&narrow).await.unwrap();
    engine.sign_in().set_onboarded(&narrow, true).await.unwrap();
    engine.catalog().manifest(&narrow).await.unwrap();
    engine.catalog().tables(&narrow).await.unwrap();
    refused(engine.query(&narrow, agnes_core::query::Query::new("SELECT 1")).await, "scope_denied");
    refused(engine.identity().users(&narrow).await, "scope_denied");
    refused(engine.identity().grant(&narrow, "Everyone", ResourceType::Table, "x").await, "scope_denied");
    refused(tokens.list(&narrow).await, "scope_denied");
    refused(tokens.create(&narrow, "x", TokenLife::Days(1), "general").await, "session_required");
    tokens.revoke(&narrow, &made.row.id).await.unwrap();
    refused(site.caller(&made.token).await, "token_revoked");
}
