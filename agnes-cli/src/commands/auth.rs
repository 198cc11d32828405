//! `agnes auth`: signing in at a server, and the tokens of one's own.

use std::io::{BufRead as _, Write as _, stdin, stdout};

use agnes_connectors::server::{Call, Method, ServerClient, TokenFrom};
use agnes_core::Error;
use agnes_core::identity::TokenError;
use agnes_core::secret::Secret;
use base64::Engine as _;
use chrono::DateTime;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{AuthCommand, Days, ImportToken, LoginArgs, OwnTokenCommand};
use crate::failure::{Failure, Outcome};
use crate::output::text::{or_dash, safe, time};
use crate::place;

pub(super) async fn run(app: &App, command: AuthCommand) -> Outcome {
    match command {
        AuthCommand::Login(args) => login(app, args).await,
        AuthCommand::Logout => logout(app).await,
        AuthCommand::Whoami => whoami(app).await,
        AuthCommand::ImportToken(args) => import(app, args).await,
        AuthCommand::Token(command) => tokens(app, command).await,
    }
}

/// The server that is signed in at; nobody has to be yet.
fn server(app: &App, token: Option<Secret>) -> Outcome<ServerClient> {
    place::client(&place::address(&app.global, &app.account)?, token, &app.account)
}

async fn login(app: &App, args: LoginArgs) -> Outcome {
    let server = server(app, None)?;
    if args.web {
        return super::browser::login(app, &server, args.no_browser).await;
    }
    let email = match args.email {
        Some(email) => email,
        None if app.out.can_ask() => asked("Address: ", false)?,
        None => return Err(Failure::usage_hint("there is nobody to ask for an address", "use `--email`")),
    };
    let password = password(app, args.password.as_deref())?;
    let call = Call::post(&["auth", "token"], json!({"email": email.trim(), "password": password})).public();
    let session = match server.ask(call).await {
        Ok(answer) => answer.body,
        Err(error) => {
            let is_refused = error.kind() == agnes_core::ErrorKind::Unauthenticated;
            if is_refused {
                app.out.hint(
                    "an account without a password takes `agnes auth login --web`, or a token of the profile page",
                );
            }
            return Err(error.into());
        }
    };
    let token = Secret::new(session["access_token"].as_str().unwrap_or_default());
    let email = session["email"].as_str().unwrap_or(email.trim()).to_owned();
    let kept = app.account.keep(server.server(), &token, Some(&email))?;
    let told = json!({
        "server": server.server(), "email": email, "user_id": session["user_id"], "expires_at": session["expires_at"],
        "kept": kept.as_str(),
    });
    app.out.done(&told, &signed_in(&server, &email, kept))
}

/// That somebody is signed in, and where that is kept.
pub(super) fn signed_in(server: &ServerClient, email: &str, kept: TokenFrom) -> String {
    format!("signed in at {} as {}; the token is in {}", server.server(), safe(email), place_of(kept))
}

/// Where a token is, in words.
pub(super) fn place_of(kept: TokenFrom) -> &'static str {
    match kept {
        TokenFrom::Environment => "the variable `AGNES_TOKEN`",
        TokenFrom::Keyring => "the system's keyring",
        TokenFrom::File => "a file that only you can read",
    }
}

/// A password: `-` means standard input, nothing that somebody is asked.
pub(super) fn password(app: &App, given: Option<&str>) -> Outcome<String> {
    Ok(match given {
        Some("-") => line_of_stdin()?,
        Some(_) => {
            let why = "a password does not belong on a command line, where others can read it";
            return Err(Failure::usage_hint(why, "use `--password -` and standard input, or leave it out"));
        }
        None if app.out.can_ask() => asked("Password: ", true)?,
        None => {
            let hint = "use `--password -` and standard input";
            return Err(Failure::usage_hint("there is nobody to ask for a password", hint));
        }
    })
}

/// Asks on the terminal; what is secret is not shown.
fn asked(question: &str, is_secret: bool) -> Outcome<String> {
    let terminal = console::Term::stderr();
    terminal.write_str(question)?;
    Ok(if is_secret { terminal.read_secure_line()? } else { terminal.read_line()? })
}

/// One line of standard input.
pub(super) fn line_of_stdin() -> Outcome<String> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|e| Failure::file("read standard input", &e))?;
    Ok(line.trim().to_owned())
}

async fn logout(app: &App) -> Outcome {
    let mut ended = false;
    if let Ok(server) = server(app, None)
        && server.has_token()
    {
        match server.ask(Call::post(&["auth", "logout"], json!({}))).await {
            Ok(_) => ended = true,
            Err(error) => app.out.warn(&format!("the session could not be ended at the server: {error}")),
        }
    }
    let forgotten = app.account.forget()?;
    let message = if forgotten { "signed out" } else { "nobody was signed in" };
    app.out.done(&json!({"signed_out": forgotten, "ended_at_server": ended}), message)
}

async fn whoami(app: &App) -> Outcome {
    let server = server(app, None)?;
    let kept = app.account.token(server.server(), &place::variable).ok().flatten();
    let (me, is_verified) = match server.ask(Call::get(&["auth", "me"])).await {
        Ok(answer) => (answer.body, true),
        Err(error) if error.code() == "server_unreachable" => {
            let claims = kept.as_ref().and_then(|kept| claims(kept.token.expose())).ok_or(error)?;
            app.out.warn("the server cannot be reached: this is what the token says, and nobody checked it");
            (claims, false)
        }
        Err(error) => return Err(error.into()),
    };
    let auth = &me["auth"];
    let told = json!({
        "email": me["email"],
        "user_id": if is_verified { &me["user_id"] } else { &me["sub"] },
        "is_admin": me["is_admin"],
        "groups": me["groups"],
        "server": server.server(),
        "token": {
            "type": if is_verified { &auth["type"] } else { &me["typ"] },
            "scope": auth["scope"],
            "expires_at": if is_verified { auth["expires_at"].clone() } else { ends(&me) },
            "kept": kept.as_ref().map(|kept| kept.from.as_str()),
        },
        "verified": is_verified,
    });
    app.out.show(&told, |out| {
        let groups = told["groups"].as_array().into_iter().flatten().filter_map(|group| group["name"].as_str());
        let text = |value: &Value| safe(value.as_str().unwrap_or("-"));
        let lines = [
            ("address", text(&told["email"])),
            ("server", safe(server.server())),
            ("admin", if told["is_admin"] == true { "yes" } else { "no" }.to_owned()),
            ("groups", safe(&groups.collect::<Vec<_>>().join(", "))),
            ("token", format!("{}, until {}", text(&told["token"]["type"]), text(&told["token"]["expires_at"]))),
            ("kept", kept.as_ref().map_or("-", |kept| place_of(kept.from)).to_owned()),
        ];
        for (name, value) in lines {
            writeln!(out, "{name:<8} {value}")?;
        }
        Ok(())
    })
}

/// What a token says of itself, unchecked.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn ends(claims: &Value) -> Value {
    let ends = claims["exp"].as_i64().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    ends.map_or(Value::Null, |ends| json!(ends.to_rfc3339()))
}

async fn import(app: &App, args: ImportToken) -> Outcome {
    let token = match (args.token.as_deref(), args.token_env.as_deref()) {
        (Some("-"), _) => line_of_stdin()?,
        (Some(token), _) => token.trim().to_owned(),
        (None, Some(name)) => {
            place::variable(name).ok_or_else(|| Failure::usage(format!("the variable `{}` is not set", safe(name))))?
        }
        (None, None) => return Err(Failure::usage("no token is given: use `--token -` or `--token-env NAME`")),
    };
    let token = Secret::new(token.trim());
    let server = server(app, Some(token.clone()))?;
    let email = if args.skip_verify {
        args.email.or_else(|| claims(token.expose())?["email"].as_str().map(ToOwned::to_owned))
    } else {
        let me = server.ask(Call::get(&["auth", "me"])).await?.body;
        me["email"].as_str().map(ToOwned::to_owned)
    };
    let Some(email) = email else {
        return Err(Failure::File { message: "the token does not say whose it is: add `--email`".to_owned() });
    };
    let kept = app.account.keep(server.server(), &token, Some(&email))?;
    let told = json!({"server": server.server(), "email": email, "verified": !args.skip_verify, "kept": kept.as_str()});
    app.out.done(&told, &signed_in(&server, &email, kept))
}

pub(super) async fn tokens(app: &App, command: OwnTokenCommand) -> Outcome {
    let server = server(app, None)?;
    match command {
        OwnTokenCommand::Create { name, ttl: Days(days), scope, raw } => {
            let body = json!({"name": name, "expires_in_days": days, "scope": scope});
            let made = server.ask(Call::post(&["auth", "tokens"], body)).await?.body;
            let token = made["token"].as_str().unwrap_or_default();
            if raw {
                return Ok(writeln!(stdout(), "{token}")?);
            }
            app.out.show(&made, |out| Ok(writeln!(out, "{token}")?))?;
            if !app.out.json {
                let until =
                    made["expires_at"].as_str().map_or("for ever".to_owned(), |end| format!("until {}", safe(end)));
                app.out.note(&format!("the token {}, {until}; it is not shown again", safe(&name)));
            }
            Ok(())
        }
        OwnTokenCommand::List => {
            let tokens = server.ask(Call::get(&["auth", "tokens"])).await?.body;
            app.out.show(&tokens, |out| {
                let at = |value: &Value| {
                    time(value.as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok()).map(Into::into))
                };
                let rows = tokens.as_array().into_iter().flatten().map(|token| {
                    let text = |name: &str| safe(&or_dash(token[name].as_str()));
                    let ends =
                        if token["revoked_at"].is_null() { at(&token["expires_at"]) } else { "revoked".to_owned() };
                    vec![
                        text("prefix"),
                        text("name"),
                        text("scope"),
                        at(&token["created_at"]),
                        ends,
                        at(&token["last_used_at"]),
                    ]
                });
                app.out.grid(out, &["ID", "NAME", "SCOPE", "MADE", "ENDS", "LAST USED"], &[], rows.collect())
            })
        }
        OwnTokenCommand::Revoke { token } => {
            let all = server.ask(Call::get(&["auth", "tokens"])).await?.body;
            let found = one_of(&all, &token)?;
            let id = found["id"].as_str().unwrap_or_default();
            server.ask(Call::new(Method::DELETE, &["auth", "tokens", id])).await?;
            app.out.done(found, &format!("revoked the token {}", safe(found["name"].as_str().unwrap_or(id))))
        }
    }
}

/// The token that a reference means: an exact id, an exact name, else a unique prefix of either.
fn one_of<'a>(tokens: &'a Value, reference: &str) -> Outcome<&'a Value> {
    let all: Vec<&Value> =
        tokens.as_array().into_iter().flatten().filter(|token| token["revoked_at"].is_null()).collect();
    let text = |token: &Value, name: &str| token[name].as_str().unwrap_or_default().to_owned();
    let of = |fits: &dyn Fn(&Value) -> bool| all.iter().copied().filter(|token| fits(token)).collect::<Vec<_>>();
    let exact = of(&|token| text(token, "id") == reference);
    let named = of(&|token| text(token, "name") == reference);
    let begun = of(&|token| text(token, "id").starts_with(reference) || text(token, "name").starts_with(reference));
    let found = [exact, named, begun].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Error::from(TokenError::NotFound { token: safe(reference) }).into()),
        several => {
            let names = several.iter().map(|token| format!("{} {}", text(token, "prefix"), text(token, "name")));
            let names = safe(&names.collect::<Vec<_>>().join(", "));
            Err(Failure::usage_hint(
                format!("`{}` may be several tokens: {names}", safe(reference)),
                "use more of the id",
            ))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_and_never_guessed() {
        let tokens = json!([
            {"id": "aa11", "prefix": "aa11", "name": "laptop", "revoked_at": null},
            {"id": "aa22", "prefix": "aa22", "name": "desk", "revoked_at": null},
            {"id": "bb33", "prefix": "bb33", "name": "aa11", "revoked_at": null},
            {"id": "cc44", "prefix": "cc44", "name": "old", "revoked_at": "2026-01-01T00:00:00Z"},
        ]);
        for (reference, id) in [("aa11", "aa11"), ("laptop", "aa11"), ("bb", "bb33"), ("de", "aa22")] {
            assert_eq!(one_of(&tokens, reference).unwrap()["id"], id, "{reference}");
        }
        for reference in ["aa", "x", "old"] {
            assert!(one_of(&tokens, reference).is_err(), "{reference}");
        }
    }

    #[test]
    fn a_token_tells_of_itself() {
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"email":"a@b","exp":0}"#);
        let told = claims(&format!("x.{payload}.y")).unwrap();
        assert_eq!((told["email"].as_str(), ends(&told)), (Some("a@b"), json!("1970-01-01T00:00:00+00:00")));
        assert_eq!(claims("nonsense"), None);
    }
}
