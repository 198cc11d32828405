//! Passwords: setting, resetting, changing, and what a stranger learns.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use agnes_core::identity::{SignedIn, UserToken};
use agnes_core::secret::Secret;
use chrono::TimeDelta;

use crate::support::{PASSWORD, Site, client, on_both_stores, owner, refused};

on_both_stores! { set_up reset change strangers_learn_nothing one_of_many deactivated overtaken }

async fn set_up(site: Site) {
    let user = site.user(" Ann@Acme.example ").await;
    let sign_in = site.engine.sign_in();
    refused(site.sign_in("ann@acme.example", "").await, "invalid_credentials");
    let letter = sign_in.ask_for_setup("ANN@acme.example").await.unwrap().unwrap();
    assert_eq!((letter.kind, letter.email.as_str()), (UserToken::Setup, "ann@acme.example"));
    let token = letter.token.expose().to_owned();
    let with = |token: &str, password: &str| {
        let (token, password) = (token.to_owned(), Secret::new(password));
        async move { sign_in.set_up_password(&client(), "Ann@acme.example", &token, &password, Some(" Ann ")).await }
    };
    refused(with(&token, "1234567").await, "password_too_short");
    refused(with(&token, &"x".repeat(1025)).await, "password_too_long");
    refused(with("another", PASSWORD).await, "token_invalid_or_expired");
    site.later(TimeDelta::days(7));
    refused(with(&token, PASSWORD).await, "token_invalid_or_expired");
    let token = sign_in.ask_for_setup("ann@acme.example").await.unwrap().unwrap().token;
    let session = with(token.expose(), PASSWORD).await.unwrap();
    assert_eq!(
        (session.user_id.as_str(), session.name.as_deref(), session.is_admin),
        (user.id.as_str(), Some("Ann"), false)
    );
    assert_eq!(site.caller(&session.token).await.unwrap().principal().user_id(), user.id);
    refused(with(token.expose(), "another password").await, "token_invalid_or_expired");
    assert!(sign_in.ask_for_setup("ann@acme.example").await.unwrap().is_none(), "there is a password");
    site.session(" aNN@acme.example").await;
    // Nobody finds token or password in the state.
    let bytes = site.state_bytes();
    for text in [token.expose(), PASSWORD, session.token.expose()] {
        assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()));
    }
    let told = format!("{:?}", site.audit("").await);
    assert!(!told.contains(token.expose()) && !told.contains(PASSWORD) && !told.contains(session.token.expose()));
    assert_eq!(site.audit("password_setup").await.first().unwrap().client_ip.as_deref(), Some("10.0.0.1"));
}

async fn reset(site: Site) {
    site.person("ann@acme.example").await;
    let before = site.session("ann@acme.example").await;
    let sign_in = site.engine.sign_in();
    let letter = sign_in.ask_for_reset(" Ann@acme.example").await.unwrap().unwrap();
    assert_eq!(letter.kind, UserToken::Reset);
    let new = Secret::new("a new password");
    refused(
        sign_in.reset_password(&client(), "bob@acme.example", letter.token.expose(), &new).await,
        "token_invalid_or_expired",
    );
    sign_in.reset_password(&client(), "ann@acme.example", letter.token.expose(), &new).await.unwrap();
    refused(site.caller(&before.token).await, "session_revoked");
    refused(site.sign_in("ann@acme.example", PASSWORD).await, "invalid_credentials");
    let SignedIn::Session(after) = site.sign_in("ann@acme.example", "a new password").await.unwrap() else { panic!() };
    site.caller(&after.token).await.unwrap();
    refused(
        sign_in.reset_password(&client(), "ann@acme.example", letter.token.expose(), &new).await,
        "token_invalid_or_expired",
    );
    // A day is too long; somebody without a password gets a setup link.
    let letter = sign_in.ask_for_reset("ann@acme.example").await.unwrap().unwrap();
    site.later(TimeDelta::hours(24));
    refused(
        sign_in.reset_password(&client(), "ann@acme.example", letter.token.expose(), &new).await,
        "token_invalid_or_expired",
    );
    site.user("bob@acme.example").await;
    assert_eq!(sign_in.ask_for_reset("bob@acme.example").await.unwrap().unwrap().kind, UserToken::Setup);
    assert!(sign_in.ask_for_reset("nobody@acme.example").await.unwrap().is_none());
}

async fn change(site: Site) {
    site.person("ann@acme.example").await;
    let (mine, other) = (site.session("ann@acme.example").await, site.session("ann@acme.example").await);
    let ctx = site.caller(&mine.token).await.unwrap();
    let (sign_in, new, old) = (site.engine.sign_in(), Secret::new("a new password"), Secret::new(PASSWORD));
    refused(sign_in.change_password(&ctx, None, &new).await, "invalid_credentials");
    refused(sign_in.change_password(&ctx, Some(&new), &new).await, "invalid_credentials");
    refused(sign_in.change_password(&ctx, Some(&old), &Secret::new("short")).await, "password_too_short");
    refused(sign_in.change_password(&owner(), Some(&old), &new).await, "session_required");
    sign_in.change_password(&ctx, Some(&old), &new).await.unwrap();
    site.caller(&mine.token).await.unwrap();
    refused(site.caller(&other.token).await, "session_revoked");
    refused(site.sign_in("ann@acme.example", PASSWORD).await, "invalid_credentials");
    // Set by an admin: asked for a new one at the next sign-in, which a one-shot token allows.
    site.engine.identity().set_password(&owner(), "ann@acme.example", &old, true).await.unwrap();
    refused(site.caller(&mine.token).await, "session_revoked");
    let SignedIn::ChangeRequired { email, token } = site.sign_in("ann@acme.example", PASSWORD).await.unwrap() else {
        panic!("not asked for a new password")
    };
    site.later(TimeDelta::minutes(9));
    sign_in.reset_password(&client(), &email, token.expose(), &new).await.unwrap();
    let SignedIn::Session(_) = site.sign_in("ann@acme.example", "a new password").await.unwrap() else { panic!() };
}

async fn strangers_learn_nothing(site: Site) {
    site.person("ann@acme.example").await;
    site.user("bob@acme.example").await;
    let mut answers = Vec::new();
    for (email, password) in [
        ("ann@acme.example", "wrong password"),
        ("bob@acme.example", "wrong password"),
        ("bob@acme.example", ""),
        ("nobody@acme.example", "wrong password"),
        ("scheduler@system.local", "wrong password"),
        ("ann@acme.example", &"x".repeat(5000)),
        ("", ""),
        ("' OR 1=1 --", "x"),
    ] {
        let error = site.sign_in(email, password).await.unwrap_err();
        answers.push((error.code().to_owned(), error.to_string(), error.hint()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // Admins learn it.
    let told: Vec<String> = site.audit("login_failed").await.into_iter().filter_map(|event| event.result).collect();
    for result in ["invalid_password", "no_password", "unknown_user"] {
        assert!(told.iter().any(|told| told == result), "{told:?}");
    }
}

/// Of two presentations of one link, one wins.
async fn one_of_many(site: Site) {
    site.person("ann@acme.example").await;
    let sign_in = site.engine.sign_in();
    let token = sign_in.ask_for_reset("ann@acme.example").await.unwrap().unwrap().token;
    let passwords = ["first password", "second password", "third password"].map(Secret::new);
    let client = client();
    let tries = passwords.iter().map(|new| sign_in.reset_password(&client, "ann@acme.example", token.expose(), new));
    let done = futures::future::join_all(tries).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    for (won, password) in done.iter().zip(&passwords) {
        assert_eq!(site.sign_in("ann@acme.example", password.expose()).await.is_ok(), won.is_ok());
    }
}

/// Whoever knows the old password keeps trying while the owner sets another one: whatever they
/// got, it is worth nothing afterwards.
async fn overtaken(site: Site) {
    site.person("ann@acme.example").await;
    for round in 0..2 {
        let old = if round == 0 { PASSWORD } else { "a new password" };
        site.later(TimeDelta::seconds(1));
        let sign_in = site.engine.sign_in();
        let letter = sign_in.ask_for_reset("ann@acme.example").await.unwrap().unwrap();
        let (is_reset, got_in) = (AtomicBool::new(false), tokio::sync::Notify::new());
        // More of them than are checked at a time: some read the old password and wait for their turn.
        let thieves = (0..6).map(|_| async {
            let mut sessions = Vec::new();
            while !is_reset.load(Relaxed) {
                match site.sign_in("ann@acme.example", old).await {
                    Ok(SignedIn::Session(session)) => {
                        sessions.push(session);
                        got_in.notify_one();
                    }
                    Ok(SignedIn::ChangeRequired { .. }) => panic!("nobody asked for another password"),
                    Err(error) => assert!(["invalid_credentials", "sign_in_busy"].contains(&error.code()), "{error}"),
                }
            }
            sessions
        });
        let owner_resets = async {
            got_in.notified().await;
            if round == 0 {
                let new = Secret::new("a new password");
                sign_in.reset_password(&client(), "ann@acme.example", letter.token.expose(), &new).await.unwrap();
            } else {
                let new = Secret::new("the password of an admin");
                site.engine.identity().set_password(&owner(), "ann@acme.example", &new, false).await.unwrap();
            }
            is_reset.store(true, Relaxed);
        };
        let (stolen, ()) = futures::join!(futures::future::join_all(thieves), owner_resets);
        let stolen: Vec<_> = stolen.into_iter().flatten().collect();
        assert!(!stolen.is_empty(), "nobody got in while the password was the old one");
        for session in &stolen {
            refused(site.caller(&session.token).await, "session_revoked");
        }
    }
}

async fn deactivated(site: Site) {
    site.person("ann@acme.example").await;
    let session = site.session("ann@acme.example").await;
    let sign_in = site.engine.sign_in();
    let token = sign_in.ask_for_reset("ann@acme.example").await.unwrap().unwrap().token;
    site.engine.identity().set_active(&owner(), "ann@acme.example", false).await.unwrap();
    refused(site.caller(&session.token).await, "account_deactivated");
    refused(site.sign_in("ann@acme.example", PASSWORD).await, "account_deactivated");
    refused(site.sign_in("ann@acme.example", "wrong password").await, "invalid_credentials");
    let new = Secret::new("a new password");
    refused(sign_in.reset_password(&client(), "ann@acme.example", token.expose(), &new).await, "account_deactivated");
    refused(sign_in.reset_password(&client(), "ann@acme.example", "another", &new).await, "token_invalid_or_expired");
    assert!(sign_in.ask_for_reset("ann@acme.example").await.unwrap().is_none());
    site.engine.identity().set_active(&owner(), "ann@acme.example", true).await.unwrap();
    site.session("ann@acme.example").await;
}
