//! Personal access tokens and tokens of desktop applications.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryStore;
use super::identity::no_user;
use crate::error::Result;
use crate::identity::{StoredToken, TokenKind, TokenRepository};

#[async_trait]
impl TokenRepository for MemoryStore {
    async fn insert(&self, kind: TokenKind, token: &StoredToken) -> Result<()> {
        let mut state = self.state();
        if !state.users.contains_key(&token.user_id) {
            return Err(no_user(&token.user_id).into());
        }
        state.tokens.insert((kind, token.id.clone()), token.clone());
        state.credential_revision += 1;
        Ok(())
    }

    async fn list(&self, kind: TokenKind, user_id: Option<&str>) -> Result<Vec<StoredToken>> {
        let state = self.state();
        let mine = |token: &StoredToken| user_id.is_none_or(|id| token.user_id == id);
        let mut found: Vec<StoredToken> = state
            .tokens
            .iter()
            .filter(|((of, _), token)| *of == kind && mine(token))
            .map(|(_, token)| token.clone())
            .collect();
        found.sort_by(|a, b| (b.created_at, &a.id).cmp(&(a.created_at, &b.id)));
        Ok(found)
    }

    async fn revoke(&self, kind: TokenKind, id: &str, by: &str, now: DateTime<Utc>) -> Result<bool> {
        let mut state = self.state();
        let Some(token) = state.tokens.get_mut(&(kind, id.to_owned())) else { return Ok(false) };
        if token.revoked_at.is_none() {
            token.revoked_at = Some(now);
            token.revoked_by = Some(by.to_owned());
        }
        state.credential_revision += 1;
        Ok(true)
    }

    async fn touch(
        &self,
        kind: TokenKind,
        id: &str,
        ip: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Option<Option<String>>> {
        let mut state = self.state();
        let Some(token) = state.tokens.get_mut(&(kind, id.to_owned())) else { return Ok(None) };
        let before = token.last_used_at.map(|_| token.last_used_ip.clone());
        token.last_used_at = Some(now);
        if let Some(ip) = ip {
            token.last_used_ip = Some(ip.to_owned());
        }
        Ok(before)
    }
}
