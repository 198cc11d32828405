//! Passwords, one-shot tokens and codes, ended sessions.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::identity::{fold, no_user};
use super::{MemoryStore, State};
use crate::error::Result;
use crate::identity::{
    Account, CodePurpose, CredentialRepository, CredentialSnapshot, OneShotCode, PasswordChange, User, UserToken,
    is_service_account,
};
use crate::rbac::{ADMIN_GROUP, Member, MemberSource};
use crate::secret::Secret;

/// What one user proves themselves with.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    password: Option<String>,
    /// Hash and time of each one-shot token.
    tokens: BTreeMap<UserToken, (String, DateTime<Utc>)>,
    sessions_valid_after: Option<DateTime<Utc>>,
    kept_session: Option<String>,
    must_change: bool,
}

impl State {
    fn secrets_of(&mut self, user_id: &str) -> Result<&mut Secrets> {
        if !self.users.contains_key(user_id) {
            return Err(no_user(user_id).into());
        }
        Ok(self.secrets.entry(user_id.to_owned()).or_default())
    }

    fn change_password(&mut self, user_id: &str, change: &PasswordChange, now: DateTime<Utc>) -> Result<()> {
        let secrets = self.secrets_of(user_id)?;
        secrets.password = Some(change.hash.clone());
        secrets.must_change = change.must_change;
        secrets.tokens.clear();
        secrets.sessions_valid_after = change.end_sessions.or(secrets.sessions_valid_after);
        secrets.kept_session.clone_from(&change.keep_session);
        if let Some(user) = self.users.get_mut(user_id) {
            user.name = change.name.clone().or(user.name.take());
            user.updated_at = Some(now);
        }
        self.credential_revision += 1;
        Ok(())
    }

    fn bootstrap_open(&self) -> bool {
        let admin = |user: &User| {
            self.members.iter().any(|member| {
                member.user_id == user.id
                    && member.source != MemberSource::SystemSeed
                    && self.groups.get(&member.group_id).is_some_and(|group| group.name == ADMIN_GROUP)
            })
        };
        let has_password = |user: &User| self.secrets.get(&user.id).is_some_and(|secrets| secrets.password.is_some());
        !self
            .users
            .values()
            .filter(|user| !is_service_account(&user.email))
            .any(|user| has_password(user) || user.active && admin(user))
    }
}

#[async_trait]
impl CredentialRepository for MemoryStore {
    async fn snapshot(&self) -> Result<CredentialSnapshot> {
        let state = self.state();
        let none = Secrets::default();
        let accounts = state.users.values().map(|user| {
            let secrets = state.secrets.get(&user.id).unwrap_or(&none);
            let account = Account {
                id: user.id.clone(),
                email: user.email.clone(),
                name: user.name.clone(),
                active: user.active,
                onboarded: user.onboarded,
                last_pull_at: user.last_pull_at,
                password_hash: secrets.password.clone().map(Secret::new),
                must_change_password: secrets.must_change,
                sessions_valid_after: secrets.sessions_valid_after,
                kept_session: secrets.kept_session.clone(),
            };
            (user.id.clone(), account)
        });
        Ok(CredentialSnapshot {
            tokens: state.tokens.clone(),
            ended: state.ended.keys().cloned().collect(),
            ..CredentialSnapshot::of(state.revision + state.credential_revision, accounts.collect())
        })
    }

    async fn rehash(&self, user_id: &str, old: &str, new: &str) -> Result<()> {
        let mut state = self.state();
        if let Some(secrets) = state.secrets.get_mut(user_id)
            && secrets.password.as_deref() == Some(old)
        {
            secrets.password = Some(new.to_owned());
            state.credential_revision += 1;
        }
        Ok(())
    }

    async fn set_password(&self, user_id: &str, change: &PasswordChange, now: DateTime<Utc>) -> Result<()> {
        self.state().change_password(user_id, change, now)
    }

    async fn set_user_token(&self, user_id: &str, kind: UserToken, hash: &str, now: DateTime<Utc>) -> Result<()> {
        self.state().secrets_of(user_id)?.tokens.insert(kind, (hash.to_owned(), now));
        Ok(())
    }

    async fn owner_of_user_token(
        &self,
        email: &str,
        kind: UserToken,
        hash: &str,
        made_after: DateTime<Utc>,
    ) -> Result<Option<String>> {
        let (state, email) = (self.state(), fold(email));
        Ok(state
            .users
            .values()
            .filter(|user| fold(&user.email) == email)
            .find(|user| {
                let token = state.secrets.get(&user.id).and_then(|secrets| secrets.tokens.get(&kind));
                token.is_some_and(|(kept, made)| kept == hash && *made > made_after)
            })
            .map(|user| user.id.clone()))
    }

    async fn consume_user_token(
        &self,
        user_id: &str,
        kind: UserToken,
        hash: &str,
        made_after: DateTime<Utc>,
        change: Option<&PasswordChange>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let mut state = self.state();
        let active = state.users.get(user_id).is_some_and(|user| user.active);
        let Some(secrets) = state.secrets.get_mut(user_id).filter(|_| active) else { return Ok(false) };
        if !secrets.tokens.get(&kind).is_some_and(|(kept, made)| kept == hash && *made > made_after) {
            return Ok(false);
        }
        secrets.tokens.remove(&kind);
        if let Some(change) = change {
            state.change_password(user_id, change, now)?;
        }
        state.credential_revision += 1;
        Ok(true)
    }

    async fn end_session(&self, session: &str, expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        state.ended.retain(|_, end| *end >= now);
        state.ended.insert(session.to_owned(), expires_at);
        state.credential_revision += 1;
        Ok(())
    }

    async fn end_sessions(&self, user_id: &str, keep: Option<&str>, now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        let secrets = state.secrets_of(user_id)?;
        secrets.sessions_valid_after = Some(now);
        secrets.kept_session = keep.map(str::to_owned);
        state.credential_revision += 1;
        Ok(())
    }

    async fn insert_code(&self, code: &OneShotCode) -> Result<()> {
        let mut state = self.state();
        state.codes.retain(|_, old| {
            old.expires_at >= code.created_at
                && (code.purpose != CodePurpose::Bootstrap || old.purpose != CodePurpose::Bootstrap)
        });
        state.codes.insert(code.code_hash.clone(), code.clone());
        Ok(())
    }

    async fn consume_code(&self, hash: &str, purpose: CodePurpose, now: DateTime<Utc>) -> Result<Option<OneShotCode>> {
        let mut state = self.state();
        if !state.codes.get(hash).is_some_and(|code| code.purpose == purpose && code.expires_at > now) {
            return Ok(None);
        }
        Ok(state.codes.remove(hash))
    }

    async fn bootstrap_open(&self) -> Result<bool> {
        Ok(self.state().bootstrap_open())
    }

    async fn bootstrap(&self, user: &User, password_hash: Option<&str>, now: DateTime<Utc>) -> Result<Option<User>> {
        let mut state = self.state();
        if !state.bootstrap_open() {
            return Ok(None);
        }
        let email = fold(&user.email);
        let known = state.users.values().find(|other| fold(&other.email) == email).cloned();
        let found = match known {
            Some(known) => {
                User { active: true, deactivated_at: None, deactivated_by: None, updated_at: Some(now), ..known }
            }
            None => user.clone(),
        };
        state.users.insert(found.id.clone(), found.clone());
        state.seed_member(&found.id, Some(now));
        if let Some(hash) = password_hash {
            state.secrets_of(&found.id)?.password = Some(hash.to_owned());
        }
        let admins: Vec<String> =
            state.groups.values().filter(|group| group.name == ADMIN_GROUP).map(|group| group.id.clone()).collect();
        for group_id in admins {
            state.members.retain(|member| member.group_id != group_id || member.user_id != found.id);
            state.members.push(Member {
                group_id,
                user_id: found.id.clone(),
                source: MemberSource::Admin,
                added_at: Some(now),
                added_by: Some("bootstrap".to_owned()),
            });
        }
        state.revision += 1;
        Ok(Some(found))
    }
}
