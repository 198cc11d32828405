//! The first Admin, the service, and what the owner of the files does when no Admin is left.

use agnes_core::CallContext;
use agnes_core::identity::{FirstAdmin, SCHEDULER_EMAIL};
use agnes_core::rbac::{AuthMethod, ClientKind, MemberSource, ResourceType};
use agnes_core::secret::Secret;
use chrono::TimeDelta;

use crate::support::{PASSWORD, SERVICE, Site, client, on_both_stores, owner, refused};

on_both_stores! { by_link closed_by_an_admin_without_a_password the_service break_glass }

fn first(email: &str, token: Option<&Secret>) -> FirstAdmin {
    FirstAdmin {
        email: email.into(),
        name: Some("Root".into()),
        password: Some(Secret::new(PASSWORD)),
        token: token.cloned(),
        host: None,
    }
}

async fn by_link(site: Site) {
    let sign_in = site.engine.sign_in();
    let old = sign_in.start().await.unwrap().bootstrap.unwrap();
    let link = sign_in.start().await.unwrap().bootstrap.unwrap();
    refused(sign_in.bootstrap(&client(), &first("no address", Some(&link))).await, "invalid_email");
    refused(sign_in.bootstrap(&client(), &first(SCHEDULER_EMAIL, Some(&link))).await, "service_account");
    let short = FirstAdmin { password: Some(Secret::new("short")), ..first("root@acme.example", Some(&link)) };
    refused(sign_in.bootstrap(&client(), &short).await, "password_too_short");
    refused(sign_in.bootstrap(&client(), &first("root@acme.example", Some(&old))).await, "bootstrap_token_invalid");
    let (a, b) = (client(), client());
    let (one, two) = (first("root@acme.example", Some(&link)), first("other@acme.example", Some(&link)));
    let (x, y) = futures::join!(sign_in.bootstrap(&a, &one), sign_in.bootstrap(&b, &two));
    assert!(x.is_ok() != y.is_ok(), "one link, one Admin");
    let session = x.or(y).unwrap();
    assert!(session.is_admin);
    let ctx = site.caller(&session.token).await.unwrap();
    site.engine.identity().users(&ctx).await.unwrap();
    assert!(!sign_in.bootstrap_open().await.unwrap());
    assert!(sign_in.start().await.unwrap().bootstrap.is_none());
    refused(sign_in.bootstrap(&client(), &first("more@acme.example", None)).await, "bootstrap_closed");
    site.session(&session.email).await;
    assert_eq!(
        site.audit("bootstrap_completed").await.iter().filter(|e| e.result.as_deref() == Some("success")).count(),
        1
    );
}

async fn closed_by_an_admin_without_a_password(site: Site) {
    let sign_in = site.engine.sign_in();
    site.user("sso@acme.example").await;
    assert!(sign_in.bootstrap_open().await.unwrap());
    site.engine.identity().add_member(&owner(), "Admin", "sso@acme.example").await.unwrap();
    assert!(!sign_in.bootstrap_open().await.unwrap());
    refused(sign_in.bootstrap(&client(), &first("root@acme.example", None)).await, "bootstrap_closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_token_is_asked_for() {
    let site = Site::with(true, &[("AGNES_BOOTSTRAP_TOKEN", "let me in")]).await;
    let sign_in = site.engine.sign_in();
    refused(sign_in.bootstrap(&client(), &first("root@acme.example", None)).await, "bootstrap_token_invalid");
    let wrong = Secret::new("let me");
    refused(sign_in.bootstrap(&client(), &first("root@acme.example", Some(&wrong))).await, "bootstrap_token_invalid");
    let right = Secret::new("let me in");
    assert!(sign_in.bootstrap(&client(), &first("root@acme.example", Some(&right))).await.unwrap().is_admin);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_is_seeded_once() {
    for email in ["  ", "no address", SCHEDULER_EMAIL] {
        let site = Site::with(false, &[("SEED_ADMIN_EMAIL", email)]).await;
        refused(site.engine.sign_in().start().await, "seed_admin_invalid");
    }
    let site = Site::with(true, &[("SEED_ADMIN_EMAIL", "Root@acme.example"), ("SEED_ADMIN_PASSWORD", PASSWORD)]).await;
    let sign_in = site.engine.sign_in();
    assert!(sign_in.start().await.unwrap().bootstrap.is_none());
    let ctx = site.signed_in("root@acme.example").await;
    sign_in.change_password(&ctx, Some(&Secret::new(PASSWORD)), &Secret::new("a new password")).await.unwrap();
    sign_in.start().await.unwrap();
    refused(site.sign_in("root@acme.example", PASSWORD).await, "invalid_credentials");
    let admins = site.engine.identity().members(&owner(), "Admin").await.unwrap();
    assert!(admins.iter().all(|member| member.source == MemberSource::SystemSeed));
    assert_eq!(admins.len(), 2, "and the service");
    // A seed without a password leaves the door open for whoever has the link.
    let site = Site::with(true, &[("SEED_ADMIN_EMAIL", "root@acme.example")]).await;
    let link = site.engine.sign_in().start().await.unwrap().bootstrap.unwrap();
    site.engine.sign_in().bootstrap(&client(), &first("ROOT@acme.example", Some(&link))).await.unwrap();
    site.session("root@acme.example").await;
    assert_eq!(site.audit("bootstrap_activated_seed").await.len(), 1);
}

async fn the_service(site: Site) {
    let sign_in = site.engine.sign_in();
    let service = Secret::new(SERVICE);
    refused(site.caller(&service).await, "service_user_missing");
    sign_in.start().await.unwrap();
    sign_in.start().await.unwrap();
    let ctx = site.caller(&service).await.unwrap();
    let caller = ctx.principal();
    assert_eq!((caller.auth(), caller.client()), (AuthMethod::Service, ClientKind::Scheduler));
    let (identity, tokens) = (site.engine.identity(), site.engine.tokens());
    // It is an admin who neither sees nor changes who may what.
    let audit = site.engine.audit();
    assert!(audit.list(&ctx, &agnes_core::audit::AuditFilter::default()).await.is_ok());
    refused(identity.users(&ctx).await, "service_forbidden");
    refused(identity.person(&ctx, SCHEDULER_EMAIL).await, "service_forbidden");
    refused(identity.groups(&ctx).await, "service_forbidden");
    refused(identity.members(&ctx, "Admin").await, "service_forbidden");
    refused(identity.memberships(&ctx, SCHEDULER_EMAIL).await, "service_forbidden");
    refused(identity.grants(&ctx, None).await, "service_forbidden");
    refused(identity.permissions(&ctx, None, None, None).await, "service_forbidden");
    refused(identity.effective_access(&ctx, SCHEDULER_EMAIL).await, "service_forbidden");
    refused(site.engine.access_requests().pending(&ctx, 1, 0).await, "service_forbidden");
    refused(site.engine.access_requests().mine(&ctx, None, 1, 0).await, "service_forbidden");
    refused(tokens.list_all(&ctx, 1, 0).await, "service_forbidden");
    refused(tokens.list(&ctx).await, "service_forbidden");
    refused(sign_in.me(&ctx).await, "service_forbidden");
    refused(identity.add_user(&ctx, "x@acme.example", None).await, "service_forbidden");
    refused(identity.grant(&ctx, "Everyone", ResourceType::Table, "orders").await, "service_forbidden");
    refused(identity.create_group(&ctx, "g", None).await, "service_forbidden");
    refused(identity.see_as(&ctx, SCHEDULER_EMAIL).await, "service_forbidden");
    refused(tokens.create(&ctx, "x", agnes_core::identity::TokenLife::Unlimited, "general").await, "session_required");
    // It cannot sign in, and nobody takes it away.
    refused(site.sign_in(SCHEDULER_EMAIL, "").await, "invalid_credentials");
    assert!(sign_in.ask_for_reset(SCHEDULER_EMAIL).await.unwrap().is_none());
    assert!(sign_in.ask_for_link(SCHEDULER_EMAIL).await.unwrap().is_none());
    let password = Secret::new(PASSWORD);
    refused(identity.set_password(&owner(), SCHEDULER_EMAIL, &password, false).await, "service_account");
    refused(identity.invite(&owner(), SCHEDULER_EMAIL).await, "service_account");
    refused(identity.remove_user(&owner(), SCHEDULER_EMAIL).await, "service_account");
    refused(identity.set_active(&owner(), SCHEDULER_EMAIL, false).await, "service_account");
    refused(identity.remove_member(&owner(), "Admin", SCHEDULER_EMAIL).await, "service_account");
    refused(identity.add_user(&owner(), "other@system.local", None).await, "service_account");
    assert_eq!(site.audit("user.create").await.iter().filter(|e| e.result.as_deref() == Some("denied")).count(), 0);
}

async fn break_glass(site: Site) {
    let identity = site.engine.identity();
    site.admin("ann@acme.example").await;
    let ann = site.signed_in("ann@acme.example").await;
    refused(identity.break_glass(&ann, "ann@acme.example").await, "admin_required");
    let done = identity.break_glass(&owner(), " New@acme.example").await.unwrap();
    assert!(done.created && !done.already_admin && done.user.active);
    // The link lets them in.
    let link = done.link.expose().to_owned();
    let token = link.strip_prefix("/auth/password/setup?email=new%40acme.example&token=").unwrap().to_owned();
    let password = Secret::new(PASSWORD);
    let session = site.engine.sign_in().set_up_password(&client(), "new@acme.example", &token, &password, None).await;
    assert!(session.unwrap().is_admin);
    let done = identity.break_glass(&owner(), "new@acme.example").await.unwrap();
    assert!(!done.created && done.already_admin && done.link.expose().starts_with("/auth/password/reset?"));
    identity.set_active(&owner(), "ann@acme.example", false).await.unwrap();
    let done = identity.break_glass(&owner(), "ann@acme.example").await.unwrap();
    assert!(done.reactivated && !done.already_admin && done.user.active);
    let admins = identity.members(&owner(), "Admin").await.unwrap();
    assert!(admins.iter().any(|m| m.email == "new@acme.example" && m.source == MemberSource::CliBreakGlass));
    refused(identity.break_glass(&owner(), "no address").await, "invalid_email");
    refused(identity.break_glass(&owner(), SCHEDULER_EMAIL).await, "service_account");
    assert_eq!(site.audit("break_glass.grant_admin").await.len(), 3);
}

mod links_and_codes {
    use super::*;
    use agnes_core::rbac::Scope;

    on_both_stores! { a_mailed_link codes_of_the_command_line }

    async fn a_mailed_link(site: Site) {
        site.person("ann@acme.example").await;
        let sign_in = site.engine.sign_in();
        assert!(sign_in.ask_for_link("nobody@acme.example").await.unwrap().is_none());
        let old = sign_in.ask_for_link("ann@acme.example").await.unwrap().unwrap();
        let new = sign_in.ask_for_link(" ANN@acme.example").await.unwrap().unwrap();
        let (a, b) = (client(), client());
        refused(sign_in.with_link(&a, "ann@acme.example", old.token.expose()).await, "link_invalid_or_expired");
        refused(sign_in.with_link(&a, "bob@acme.example", new.token.expose()).await, "link_invalid_or_expired");
        let token = new.token.expose();
        let (x, y) = futures::join!(
            sign_in.with_link(&a, "Ann@acme.example", token),
            sign_in.with_link(&b, "ann@acme.example", token)
        );
        assert!(x.is_ok() != y.is_ok(), "one link, one session");
        site.caller(&x.or(y).unwrap().token).await.unwrap();
        let late = sign_in.ask_for_link("ann@acme.example").await.unwrap().unwrap();
        site.later(TimeDelta::hours(1));
        refused(sign_in.with_link(&a, "ann@acme.example", late.token.expose()).await, "link_invalid_or_expired");
        let gone = sign_in.ask_for_link("ann@acme.example").await.unwrap().unwrap();
        site.engine.identity().set_active(&owner(), "ann@acme.example", false).await.unwrap();
        refused(sign_in.with_link(&a, "ann@acme.example", gone.token.expose()).await, "link_invalid_or_expired");
        let bytes = site.state_bytes();
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
    }

    async fn codes_of_the_command_line(site: Site) {
        site.person("ann@acme.example").await;
        let (sign_in, ctx) = (site.engine.sign_in(), site.signed_in("ann@acme.example").await);
        let made = sign_in.cli_code(&ctx).await.unwrap();
        let code = made.code.expose();
        refused(sign_in.exchange_cli_code(&client(), "another", "laptop").await, "code_invalid_or_expired");
        refused(sign_in.exchange_cli_code(&client(), code, "").await, "name_required");
        let (a, b) = (client(), client());
        let (x, y) = futures::join!(
            sign_in.exchange_cli_code(&a, code, "laptop"),
            sign_in.exchange_cli_code(&b, code, "laptop")
        );
        assert!(x.is_ok() != y.is_ok());
        let token = x.or(y).unwrap();
        let caller = site.caller(&token.token).await.unwrap();
        assert_eq!((caller.principal().auth(), token.row.name.as_str()), (AuthMethod::Pat, "laptop"));
        refused(sign_in.cli_code(&caller).await, "session_required");
        let late = sign_in.cli_code(&ctx).await.unwrap();
        site.later(TimeDelta::minutes(2));
        refused(sign_in.exchange_cli_code(&client(), late.code.expose(), "x").await, "code_invalid_or_expired");
        refused(sign_in.desktop_code(&ctx).await, "desktop_off");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn desktop_applications() {
        for embedded in [true, false] {
            let site =
                Site::with(embedded, &[("DESKTOP_JWT_SECRET", "desktop-secret-of-at-least-32-characters")]).await;
            site.person("ann@acme.example").await;
            site.person("bob@acme.example").await;
            let (sign_in, ann) = (site.engine.sign_in(), site.signed_in("ann@acme.example").await);
            let bob = site.signed_in("bob@acme.example").await;
            let link = || async {
                let code = sign_in.desktop_code(&ann).await.unwrap().code;
                sign_in.exchange_desktop_code(&client(), code.expose(), "Mac of Ann").await.unwrap()
            };
            let (one, two) = (link().await, link().await);
            let caller = site.caller(&one.token).await.unwrap();
            let who = caller.principal();
            assert_eq!(
                (who.auth(), who.scope(), who.client()),
                (AuthMethod::Desktop, Scope::Desktop, ClientKind::Desktop)
            );
            // It opens what is for desktop applications only.
            assert_eq!(sign_in.desktop_devices(&caller).await.unwrap().len(), 2);
            refused(sign_in.me(&caller).await, "scope_denied");
            refused(site.engine.catalog().tables(&caller).await, "scope_denied");
            refused(sign_in.unlink_desktop(&caller, None).await, "scope_denied");
            sign_in.settle().await;
            let devices = sign_in.desktop_devices(&ann).await.unwrap();
            assert_eq!(devices.iter().filter(|d| d.last_used_at.is_some()).count(), 1);
            refused(sign_in.unlink_desktop(&bob, Some(&devices[0].id)).await, "token_not_found");
            let first = devices.iter().find(|d| d.last_used_at.is_some()).unwrap();
            sign_in.unlink_desktop(&ann, Some(&first.id)).await.unwrap();
            refused(site.caller(&one.token).await, "token_revoked");
            site.caller(&two.token).await.unwrap();
            sign_in.unlink_desktop(&ann, None).await.unwrap();
            refused(site.caller(&two.token).await, "token_revoked");
            assert!(sign_in.desktop_devices(&ann).await.unwrap().is_empty());
            let three = link().await;
            site.later(TimeDelta::days(30));
            refused(site.caller(&three.token).await, "token_expired");
        }
    }
}

mod looking_on {
    use super::*;
    use agnes_core::identity::TokenLife;

    on_both_stores! { as_somebody_else }

    async fn as_somebody_else(site: Site) {
        site.admin("root@acme.example").await;
        let root_2 = site.admin("root2@acme.example").await;
        let ann = site.person("ann@acme.example").await;
        let (root, identity) = (site.signed_in("root@acme.example").await, site.engine.identity());
        let by_ann = site.signed_in("ann@acme.example").await;
        refused(identity.see_as(&by_ann, "root@acme.example").await, "admin_required");
        refused(identity.see_as(&root, "nobody@acme.example").await, "user_not_found");
        let seen: CallContext = identity.see_as(&root, "ann@acme.example").await.unwrap();
        let me = site.engine.sign_in().me(&seen).await.unwrap();
        assert_eq!((me.user_id, me.viewer.as_deref()), (ann.id.clone(), Some(root.principal().user_id())));
        assert_eq!(seen.client_ip(), root.client_ip());
        assert!(site.engine.catalog().tables(&seen).await.unwrap().iter().all(|table| table.id.starts_with("agnes_")));
        // Nothing changes, no token is made, nobody else is looked at.
        refused(site.engine.tokens().create(&seen, "x", TokenLife::Unlimited, "general").await, "read_only_view");
        refused(site.engine.sign_in().cli_code(&seen).await, "read_only_view");
        refused(site.engine.sign_in().sign_out_everywhere(&seen).await, "read_only_view");
        refused(site.engine.sign_in().set_onboarded(&seen, true).await, "read_only_view");
        refused(site.engine.catalog().set_preferences(&seen, &Default::default(), None).await, "read_only_view");
        let new = Secret::new("a new password");
        refused(site.engine.sign_in().change_password(&seen, None, &new).await, "read_only_view");
        let other = identity.see_as(&root, "root2@acme.example").await.unwrap();
        refused(identity.users(&other).await, "read_only_view");
        refused(identity.see_as(&other, "ann@acme.example").await, "read_only_view");
        // What was looked at is told under the name of who looked.
        let query = agnes_core::query::Query::new("SELECT 1");
        site.engine.query(&other, query).await.unwrap().collect().await.unwrap();
        let told = site.audit("query").await;
        assert_eq!(told[0].user_id.as_deref(), Some(root.principal().user_id()));
        assert_eq!(told[0].params.as_ref().unwrap()["as_user"], root_2.id.as_str());
        assert_eq!(
            site.audit("admin.see_as").await.iter().filter(|e| e.result.as_deref() == Some("success")).count(),
            2
        );
        identity.set_active(&root, "ann@acme.example", false).await.unwrap();
        refused(identity.see_as(&root, "ann@acme.example").await, "user_deactivated");
        refused(site.engine.catalog().tables(&seen).await, "inactive_user");
    }
}
