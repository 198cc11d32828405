//! `agnes admin user` and `agnes admin token`: people, their passwords and tokens.

use std::io::{BufRead as _, stdin};

use agnes_core::identity::{NewUser, PasswordLink, PeopleFilter, User};
use agnes_core::local::{
    AllTokens, CreateUser, GetEffectiveAccess, GetUser, InviteUser, People, RemoveUser, ResetPassword, RevokeToken,
    SetActive, SetPassword, ShowPerson,
};
use agnes_core::secret::Secret;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{PasswordArgs, TokenCommand, UserAdd, UserCommand, UserList, UserRef, UserRemove};
use crate::failure::{Failure, Outcome};
use crate::output::text::{or_dash, safe, short_id, time};

pub(super) async fn run(app: &App, command: UserCommand) -> Outcome {
    match command {
        UserCommand::Add(args) => add(app, args).await,
        UserCommand::List(args) => list(app, args).await,
        UserCommand::Show(args) => show(app, args).await,
        UserCommand::Access(UserRef { user }) => {
            let access = app.ask(GetEffectiveAccess { user }).await?;
            app.out.show(&access, |out| {
                if access.is_admin {
                    writeln!(out, "member of Admin: may use everything")?;
                }
                let rows = access.items.iter().map(|item| {
                    let via: Vec<String> = item.via_groups.iter().map(|group| safe(&group.group_name)).collect();
                    vec![item.resource_type.as_str().to_owned(), safe(&item.resource_id), via.join(", ")]
                });
                app.out.grid(out, &["TYPE", "RESOURCE", "THROUGH"], &[], rows.collect())
            })
        }
        UserCommand::Remove(UserRemove { user, yes }) => {
            let user = found(app, user).await?;
            app.confirm(&yes, &format!("remove {}", safe(&user.email)))?;
            let user = app.ask(RemoveUser { user: user.id }).await?;
            app.out.done(&user, &format!("removed {}", safe(&user.email)))
        }
        UserCommand::Activate(UserRef { user }) => {
            let user = app.ask(SetActive { user, active: true }).await?;
            app.out.done(&user, &format!("{} is active", safe(&user.email)))
        }
        UserCommand::Deactivate(UserRemove { user, yes }) => {
            let user = found(app, user).await?;
            app.confirm(&yes, &format!("deactivate {}", safe(&user.email)))?;
            let user = app.ask(SetActive { user: user.id, active: false }).await?;
            app.out.done(&user, &format!("{} is not active any more", safe(&user.email)))
        }
        UserCommand::Invite(UserRef { user }) => {
            let link = app.ask(InviteUser { user }).await?;
            show_link(app, &link, link.said(), &link)
        }
        UserCommand::ResetPassword(UserRef { user }) => {
            let link = app.ask(ResetPassword { user }).await?;
            show_link(app, &link, link.said(), &link)
        }
        UserCommand::SetPassword(args) => set_password(app, args).await,
    }
}

async fn found(app: &App, user: String) -> Outcome<User> {
    Ok(app.ask(GetUser { user }).await?.into_reply())
}

/// Tells a link, and whether the server mailed it; a data folder sends no mails.
fn show_link<T: serde::Serialize>(app: &App, value: &T, said: Option<&Value>, link: &PasswordLink) -> Outcome {
    let is_sent = said.is_some_and(|said| said["email_sent"] == true || said["invite_email_sent"] == true);
    app.out.note(if is_sent { "a mail with the link went out" } else { "no mail went out: hand the link over" });
    let until = time(Some(link.expires_at));
    app.out.note(&format!("{} sets a password on this page of the server, once, until {until}:", safe(&link.email)));
    app.out.show(value, |out| Ok(writeln!(out, "{}", link.link.expose())?))
}

async fn add(app: &App, args: UserAdd) -> Outcome {
    let UserAdd { email, name, groups, invite } = args;
    let made = app.ask(CreateUser { new: NewUser { email, name, groups, invite } }).await?;
    let said = made.said().cloned();
    let (user, link) = made.into_reply();
    if let (Some(said), None) = (&said, &link) {
        return app.out.done(said, &format!("added {}", safe(&user.email)));
    }
    let Some(link) = link else { return app.out.done(&user, &format!("added {}", safe(&user.email))) };
    if let Some(said) = said {
        return show_link(app, &said, Some(&said), &link);
    }
    let mut shown = json!(user);
    shown["invite_url"] = Value::from(link.link.expose());
    shown["invite_email_sent"] = Value::from(false);
    show_link(app, &shown, None, &link)
}

async fn list(app: &App, args: UserList) -> Outcome {
    let filter = PeopleFilter { text: args.search, active: args.active, ..PeopleFilter::default() };
    let people = app.ask(People { filter }).await?;
    app.out.show(&people, |out| {
        let rows = people.iter().map(|person| {
            let state = if person.user.active { "active" } else { "inactive" };
            let groups: Vec<String> = person.groups.iter().map(|group| safe(&group.name)).collect();
            vec![
                short_id(&person.user.id),
                safe(&person.user.email),
                safe(&or_dash(person.user.name.as_deref())),
                state.to_owned(),
                groups.join(", "),
                time(person.last_seen_at),
            ]
        });
        app.out.grid(out, &["ID", "EMAIL", "NAME", "STATE", "GROUPS", "LAST SEEN"], &[], rows.collect())
    })
}

async fn show(app: &App, args: UserRef) -> Outcome {
    let person = app.ask(ShowPerson { user: args.user }).await?;
    app.out.show(&person, |out| {
        let groups: Vec<String> = person.groups.iter().map(|group| safe(&group.name)).collect();
        let yes_no = |yes: bool| if yes { "yes".to_owned() } else { "no".to_owned() };
        for (name, value) in [
            ("id", person.user.id.clone()),
            ("email", safe(&person.user.email)),
            ("name", safe(&or_dash(person.user.name.as_deref()))),
            ("active", yes_no(person.user.active)),
            ("admin", yes_no(person.is_admin)),
            ("password", yes_no(person.has_password)),
            ("directory", yes_no(person.is_sso_user)),
            ("groups", groups.join(", ")),
            ("added", time(person.user.created_at)),
            ("last seen", time(person.last_seen_at)),
        ] {
            writeln!(out, "{name:<10}  {value}")?;
        }
        Ok(())
    })
}

async fn set_password(app: &App, args: PasswordArgs) -> Outcome {
    let user = found(app, args.user).await?;
    let password = match args.password.as_deref() {
        Some("-") => {
            let mut line = String::new();
            stdin().lock().read_line(&mut line)?;
            Secret::new(line.trim_end_matches(['\r', '\n']))
        }
        Some(_) => {
            let why = "a password does not belong on a command line, where others can read it";
            return Err(Failure::usage_hint(why, "use `--password -` and standard input, or leave it out"));
        }
        None => asked(app)?,
    };
    let must_change = !args.keep;
    app.ask(SetPassword { user: user.id.clone(), password, must_change }).await?;
    let next = if must_change { ", and chooses another one at the next sign-in" } else { "" };
    let message = format!("{} has a new password{next}", safe(&user.email));
    app.out.done(&json!({"user_id": user.id, "email": user.email, "must_change": must_change}), &message)
}

/// Asks twice, and shows nothing.
fn asked(app: &App) -> Outcome<Secret> {
    if !app.out.can_ask() {
        return Err(Failure::usage_hint(
            "there is nobody to ask for a password",
            "use `--password -` and standard input",
        ));
    }
    let terminal = console::Term::stderr();
    let read = |question: &str| -> std::io::Result<String> {
        terminal.write_str(question)?;
        terminal.read_secure_line()
    };
    let (first, second) = (read("New password: ")?, read("Once more: ")?);
    if first != second {
        return Err(Failure::usage("the two passwords are not the same"));
    }
    Ok(Secret::new(first))
}

pub(super) async fn tokens(app: &App, command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::List { user } => {
            let mut tokens = app.ask(AllTokens {}).await?;
            if let Some(user) = user {
                let user = found(app, user).await?;
                tokens = tokens.only(|token| token.user_id == user.id);
            }
            app.out.show(&tokens, |out| {
                let rows = tokens.iter().map(|token| {
                    let ends = match (token.revoked_at, token.expires_at) {
                        (Some(_), _) => "revoked".to_owned(),
                        (None, None) => "never".to_owned(),
                        (None, end) => time(end),
                    };
                    vec![
                        token.prefix.clone(),
                        safe(&token.user_email),
                        safe(&token.name),
                        token.scope.clone(),
                        ends,
                        time(token.last_used_at),
                    ]
                });
                app.out.grid(out, &["ID", "USER", "NAME", "SCOPE", "ENDS", "LAST USED"], &[], rows.collect())
            })
        }
        TokenCommand::Revoke { token, yes } => {
            app.confirm(&yes, &format!("revoke the token {}", safe(&token)))?;
            let token = app.ask(RevokeToken { token }).await?;
            app.out.done(&token, &format!("revoked `{}` of {}", safe(&token.name), safe(&token.user_email)))
        }
    }
}
