//! Clients of assistants, their codes, and what renews their tokens.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{MemoryStore, State};
use crate::error::Result;
use crate::identity::{OAuthClient, OAuthCode, OAuthRepository, RefreshToken, Renewal, TakenCode, TokenKind};

fn used(state: &mut State, client: &str, now: DateTime<Utc>) {
    if let Some(client) = state.oauth_clients.get_mut(client) {
        client.last_used_at = Some(now);
    }
}

#[async_trait]
impl OAuthRepository for MemoryStore {
    async fn insert_client(&self, client: &OAuthClient, unused_since: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        state.oauth_clients.retain(|_, known| known.last_used_at.unwrap_or(known.created_at) >= unused_since);
        state.oauth_clients.insert(client.id.clone(), client.clone());
        Ok(())
    }

    async fn client(&self, id: &str) -> Result<Option<OAuthClient>> {
        Ok(self.state().oauth_clients.get(id).cloned())
    }

    async fn insert_code(&self, code: &OAuthCode) -> Result<()> {
        let mut state = self.state();
        state.oauth_codes.retain(|_, (known, _)| known.expires_at >= code.created_at);
        used(&mut state, &code.client_id, code.created_at);
        state.oauth_codes.insert(code.code_hash.clone(), (code.clone(), None));
        Ok(())
    }

    async fn take_code(&self, hash: &str, token_id: &str, now: DateTime<Utc>) -> Result<TakenCode> {
        let mut state = self.state();
        Ok(match state.oauth_codes.get_mut(hash) {
            Some((_, Some(token))) => TakenCode::Used(token.clone()),
            Some((code, taken)) if code.expires_at > now => {
                *taken = Some(token_id.to_owned());
                TakenCode::Fresh(code.clone())
            }
            _ => TakenCode::Unknown,
        })
    }

    async fn insert_refresh(&self, refresh: &RefreshToken) -> Result<()> {
        let mut state = self.state();
        state.oauth_tokens.retain(|_, (known, _)| known.expires_at >= refresh.created_at);
        state.oauth_tokens.insert(refresh.hash.clone(), (refresh.clone(), None));
        Ok(())
    }

    async fn refresh(&self, hash: &str) -> Result<Option<RefreshToken>> {
        Ok(self.state().oauth_tokens.get(hash).map(|(refresh, _)| refresh.clone()))
    }

    async fn renew(&self, old: &str, new: &RefreshToken, token_hash: &str) -> Result<Renewal> {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = new.created_at;
        let known = state.oauth_tokens.get_mut(old).filter(|(known, _)| {
            (&known.token_id, &known.client_id) == (&new.token_id, &new.client_id) && known.expires_at > now
        });
        let Some((_, replaced)) = known else { return Ok(Renewal::Unknown) };
        if replaced.is_some() {
            return Ok(Renewal::Reused);
        }
        let token = state.tokens.get_mut(&(TokenKind::Personal, new.token_id.clone()));
        let Some(token) = token.filter(|token| token.revoked_at.is_none()) else { return Ok(Renewal::Unknown) };
        token.token_hash = token_hash.to_owned();
        token.expires_at = Some(new.expires_at);
        *replaced = Some(now);
        used(state, &new.client_id, now);
        state.oauth_tokens.insert(new.hash.clone(), (new.clone(), None));
        state.credential_revision += 1;
        Ok(Renewal::Done)
    }
}
