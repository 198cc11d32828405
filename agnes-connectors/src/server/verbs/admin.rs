//! Verbs of admins. The API takes ids; whoever types a name, an address or the begin of one gets
//! what it means looked up first, and never a guess.

use agnes_core::error::Result;
use agnes_core::identity::{NewUser, PasswordLink, User};
use agnes_core::local::{
    AddMember, AddUser, AllTokens, CreateGrant, CreateGroup, CreateUser, DeleteGroup, GetEffectiveAccess, GetUser,
    Grants, Groups, InviteUser, ListAudit, Members, People, RemoveMember, RemoveUser, ResetPassword, RevokeGrant,
    RevokeToken, SetActive, SetPassword, ShowPerson, Users,
};
use agnes_core::secret::Secret;
use chrono::{TimeDelta, Utc};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Served, Told, asked, list, with};
use crate::server::{Call, Method, ServerClient, ServerError};

/// How long a link of an invitation lives, and one to reset a password.
const INVITATION: TimeDelta = TimeDelta::days(7);
const RESET: TimeDelta = TimeDelta::days(1);

fn shown_link(email: &str, link: &str, life: TimeDelta) -> PasswordLink {
    PasswordLink { email: email.to_owned(), link: Secret::new(link), expires_at: Utc::now() + life }
}

/// A person as the API tells of them.
fn person(body: Value) -> Value {
    with(body, &[("onboarded", json!(false)), ("deactivated_by", Value::Null), ("updated_at", Value::Null)])
}

/// Which of `all` a reference means: an exact id, an exact name, else a unique begin of either.
/// Nothing where none is meant.
pub(super) fn meant<'a>(
    all: &'a [Value],
    name: &str,
    what: &'static str,
    reference: &str,
) -> Result<Option<&'a Value>, ServerError> {
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_lowercase();
    let wanted = reference.trim().to_lowercase();
    let of = |fits: &dyn Fn(&Value) -> bool| all.iter().filter(|one| fits(one)).collect::<Vec<_>>();
    let found = [
        of(&|one| text(one, "id") == wanted),
        of(&|one| text(one, name) == wanted),
        of(&|one| text(one, "id").starts_with(&wanted) || text(one, name).starts_with(&wanted)),
    ];
    match found.into_iter().find(|found| !found.is_empty()).unwrap_or_default().as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let candidates =
                several.iter().take(10).map(|one| one[name].as_str().unwrap_or_default().to_owned()).collect();
            Err(ServerError::Ambiguous { what, reference: agnes_core::ident::printable(reference, 80), candidates })
        }
    }
}

impl ServerClient {
    async fn all(&self, call: Call) -> Result<Vec<Value>> {
        Ok(self.ask(call).await?.body.as_array().cloned().unwrap_or_default())
    }

    /// The id that a reference means; the reference itself where nothing is meant: the server says so.
    pub(super) async fn id_of(&self, call: Call, name: &str, what: &'static str, reference: &str) -> Result<String> {
        let all = self.all(call).await?;
        let found = meant(&all, name, what, reference)?;
        Ok(found.and_then(|one| one["id"].as_str()).unwrap_or(reference).to_owned())
    }

    async fn user_id(&self, reference: &str) -> Result<String> {
        self.id_of(Call::get(&["api", "users"]).param("limit", 10_000), "email", "a user", reference).await
    }

    pub(super) async fn group_id(&self, reference: &str) -> Result<String> {
        self.id_of(Call::get(&["api", "admin", "groups"]), "name", "a group", reference).await
    }
}

/// The reply that is the answer itself.
pub(super) fn plain<T: serde::de::DeserializeOwned>(server: &ServerClient, said: Value) -> Result<Told<T>> {
    Ok(Told::by_server(server.read(said.clone())?, said))
}

/// A user, as every call of users answers.
fn user<T: serde::de::DeserializeOwned>(server: &ServerClient, said: Value) -> Result<Told<T>> {
    Ok(Told::by_server(server.read(person(said.clone()))?, said))
}

asked! {
    AddUser |v, server| {
        let new = NewUser { email: v.email, name: v.name, groups: Vec::new(), invite: false };
        let made = CreateUser { new }.ask(server).await?;
        let said = made.said().cloned().unwrap_or_default();
        Ok(Told::by_server(made.into_reply().0, said))
    };
    Users |_v, server| {
        let said = server.ask(Call::get(&["api", "users"]).param("limit", 10_000)).await?.body;
        let users = said.as_array().cloned().unwrap_or_default().into_iter().map(person).collect();
        Ok(Told::by_server(server.read(users)?, said))
    };
    People |v, server| {
        let limit = if (1..=10_000).contains(&v.filter.limit) { v.filter.limit } else { 10_000 };
        let call = Call::get(&["api", "users"]).maybe("q", v.filter.text).maybe("active", v.filter.active).param("limit", limit);
        let said = server.ask(call).await?.body;
        let people = said.as_array().cloned().unwrap_or_default().into_iter().map(person).collect();
        Ok(Told::by_server(server.read(people)?, said))
    };
    ShowPerson |v, server| {
        let id = server.user_id(&v.user).await?;
        user(server, server.ask(Call::get(&["api", "users", &id])).await?.body)
    };
    GetUser |v, server| {
        let id = server.user_id(&v.user).await?;
        user(server, server.ask(Call::get(&["api", "users", &id])).await?.body)
    };
    CreateUser |v, server| {
        let mut groups = Vec::new();
        for group in &v.new.groups {
            groups.push(server.group_id(group).await?);
        }
        let body = json!({
            "email": v.new.email, "name": v.new.name.unwrap_or_default(), "send_invite": v.new.invite, "groups": groups,
        });
        let said = server.ask(Call::post(&["api", "users"], body)).await?.body;
        let made: User = server.read(person(said.clone()))?;
        let link = said["invite_url"].as_str().map(|link| shown_link(&made.email, link, INVITATION));
        Ok(Told::by_server((made, link), said))
    };
    SetActive |v, server| {
        let id = server.user_id(&v.user).await?;
        let what = if v.active { "activate" } else { "deactivate" };
        user(server, server.ask(Call::post(&["api", "users", &id, what], json!({}))).await?.body)
    };
    RemoveUser |v, server| {
        let id = server.user_id(&v.user).await?;
        let said = server.ask(Call::get(&["api", "users", &id])).await?.body;
        server.ask(Call::new(Method::DELETE, &["api", "users", &id])).await?;
        user(server, said)
    };
    SetPassword |v, server| {
        let id = server.user_id(&v.user).await?;
        let body = json!({"password": v.password.expose(), "must_change": v.must_change});
        let said = server.ask(Call::post(&["api", "users", &id, "set-password"], body)).await?.body;
        Ok(Told::by_server((), said))
    };
    ResetPassword |v, server| {
        let id = server.user_id(&v.user).await?;
        let email = server.ask(Call::get(&["api", "users", &id])).await?.body["email"].as_str().unwrap_or_default().to_owned();
        let said = server.ask(Call::post(&["api", "users", &id, "reset-password"], json!({}))).await?.body;
        let link = said["reset_url"].as_str().ok_or_else(|| server.not_understood("there is no link"))?;
        Ok(Told::by_server(shown_link(&email, link, RESET), said))
    };
    InviteUser |v, server| {
        let id = server.user_id(&v.user).await?;
        let email = server.ask(Call::get(&["api", "users", &id])).await?.body["email"].as_str().unwrap_or_default().to_owned();
        let said = server.ask(Call::post(&["api", "users", &id, "invite"], json!({}))).await?.body;
        let link = said["invite_url"].as_str().ok_or_else(|| server.not_understood("there is no link"))?;
        Ok(Told::by_server(shown_link(&email, link, INVITATION), said))
    };
    GetEffectiveAccess |v, server| {
        let id = server.user_id(&v.user).await?;
        plain(server, server.ask(Call::get(&["api", "admin", "users", &id, "effective-access"])).await?.body)
    };

    Groups |_v, server| plain(server, server.ask(Call::get(&["api", "admin", "groups"])).await?.body);
    CreateGroup |v, server| {
        let body = json!({"name": v.name, "description": v.description});
        plain(server, server.ask(Call::post(&["api", "admin", "groups"], body)).await?.body)
    };
    DeleteGroup |v, server| {
        let id = server.group_id(&v.group).await?;
        let said = server.ask(Call::get(&["api", "admin", "groups", &id])).await?.body;
        server.ask(Call::new(Method::DELETE, &["api", "admin", "groups", &id])).await?;
        plain(server, said)
    };
    Members |v, server| {
        let id = server.group_id(&v.group).await?;
        plain(server, server.ask(Call::get(&["api", "admin", "groups", &id, "members"])).await?.body)
    };
    AddMember |v, server| {
        let (group, user) = (server.group_id(&v.group).await?, server.user_id(&v.user).await?);
        let call = Call::post(&["api", "admin", "groups", &group, "members"], json!({"user_id": user}));
        let said = server.ask(call).await?.body;
        Ok(Told::by_server(server.read(with(said.clone(), &[("group_id", json!(group))]))?, said))
    };
    RemoveMember |v, server| {
        let (group, user) = (server.group_id(&v.group).await?, server.user_id(&v.user).await?);
        server.ask(Call::new(Method::DELETE, &["api", "admin", "groups", &group, "members", &user])).await?;
        Ok(Told::here(()))
    };

    Grants |v, server| {
        let group = match &v.group {
            Some(group) => Some(server.group_id(group).await?),
            None => None,
        };
        plain(server, server.ask(Call::get(&["api", "admin", "grants"]).maybe("group_id", group)).await?.body)
    };
    CreateGrant |v, server| {
        let group = server.group_id(&v.group).await?;
        let body = json!({"group_id": group, "resource_type": v.resource_type, "resource_id": v.resource_id});
        plain(server, server.ask(Call::post(&["api", "admin", "grants"], body)).await?.body)
    };
    RevokeGrant |v, server| {
        let all = server.all(Call::get(&["api", "admin", "grants"])).await?;
        let said = meant(&all, "id", "a grant", &v.grant)?.cloned();
        let id = said.as_ref().and_then(|grant| grant["id"].as_str()).unwrap_or(&v.grant).to_owned();
        server.ask(Call::new(Method::DELETE, &["api", "admin", "grants", &id])).await?;
        plain(server, said.unwrap_or_default())
    };

    AllTokens |_v, server| plain(server, server.ask(Call::get(&["auth", "admin", "tokens"]).param("limit", 10_000)).await?.body);
    RevokeToken |v, server| {
        let all = server.all(Call::get(&["auth", "admin", "tokens"]).param("limit", 10_000)).await?;
        let said = meant(&all, "id", "a token", &v.token)?.cloned();
        let id = said.as_ref().and_then(|token| token["id"].as_str()).unwrap_or(&v.token).to_owned();
        server.ask(Call::new(Method::DELETE, &["auth", "admin", "tokens", &id])).await?;
        plain(server, said.unwrap_or_default())
    };

    ListAudit |v, server| {
        let minutes = v.filter.since.map(|since| (Utc::now() - since).num_minutes().max(1));
        let call = Call::get(&["api", "admin", "activity"])
            .param("limit", v.filter.limit.clamp(1, 200))
            .maybe("since_minutes", minutes)
            .maybe("user_id", v.filter.user_id)
            .maybe("action_prefix", v.filter.action_prefix)
            .maybe("resource", v.filter.resource)
            .maybe("result_pattern", v.filter.result_prefix)
            .maybe("q", v.filter.text);
        let said = server.ask(call).await?.body;
        Ok(Told::by_server(server.read(list(&said, "rows").into())?, said))
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_and_never_guessed() {
        let all = [
            json!({"id": "aa11", "email": "ann@example.com"}),
            json!({"id": "aa22", "email": "annette@example.com"}),
            json!({"id": "bb33", "email": "bob@example.com"}),
        ];
        let of =
            |reference: &str| meant(&all, "email", "a user", reference).map(|one| one.map(|one| one["id"].clone()));
        assert_eq!(of("bb33").unwrap(), Some(json!("bb33")));
        assert_eq!(of("ANN@example.com").unwrap(), Some(json!("aa11")));
        assert_eq!(of("b").unwrap(), Some(json!("bb33")));
        assert_eq!(of("nobody").unwrap(), None);
        assert_eq!(agnes_core::Error::from(of("ann").unwrap_err()).code(), "ambiguous_reference");
    }
}
