//! Where and when tokens are used: noted off the path of the request that uses them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio::task::JoinSet;

use super::TokenKind;
use crate::audit::AuditFilter;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;

/// A use is written at most once in this time, unless its address is new.
const EVERY: TimeDelta = TimeDelta::minutes(1);
/// Addresses of one token kept in memory.
const ADDRESSES: usize = 256;
/// Tokens kept in memory.
const TOKENS: usize = 100_000;

const FIRST_USE: &str = "token.first_use_new_ip";

#[derive(Debug)]
struct Use {
    written: DateTime<Utc>,
    addresses: HashSet<IpAddr>,
}

/// What was noted of each token since the start.
#[derive(Debug, Default)]
pub(super) struct Uses {
    tokens: Mutex<HashMap<(TokenKind, String), Use>>,
    writing: Mutex<JoinSet<()>>,
}

impl Uses {
    /// Whether this use has to be written, and whether its address is new since the start.
    fn due(&self, kind: TokenKind, id: &str, ip: Option<IpAddr>, now: DateTime<Utc>) -> Option<bool> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() > TOKENS {
            tokens.clear();
        }
        let known = tokens
            .entry((kind, id.to_owned()))
            .or_insert(Use { written: DateTime::UNIX_EPOCH, addresses: HashSet::new() });
        if known.addresses.len() > ADDRESSES {
            known.addresses.clear();
        }
        let new = ip.is_some_and(|ip| known.addresses.insert(ip));
        if !new && (now - known.written).abs() < EVERY {
            return None;
        }
        known.written = now;
        Some(new)
    }

    /// Notes that the token of `ctx` was used.
    pub(super) fn note(&self, engine: &Engine, kind: TokenKind, ctx: &CallContext) {
        let Some(id) = ctx.principal().proof().map(|proof| proof.id.clone()) else { return };
        let now = engine.clock().now();
        let Some(new) = self.due(kind, &id, ctx.client_ip(), now) else { return };
        let (engine, ctx) = (engine.clone(), ctx.clone());
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        while writing.try_join_next().is_some() {}
        writing.spawn(async move {
            if let Err(error) = write(&engine, kind, &id, &ctx, new, now).await {
                tracing::warn!(code = error.code(), "the use of a token was not noted: {error}");
            }
        });
    }

    /// Waits until everything noted so far is written.
    pub(super) async fn settle(&self) {
        let mut writing = std::mem::take(&mut *self.writing.lock().unwrap_or_else(PoisonError::into_inner));
        while writing.join_next().await.is_some() {}
    }
}

async fn write(
    engine: &Engine,
    kind: TokenKind,
    id: &str,
    ctx: &CallContext,
    new: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    let ip = ctx.client_ip().map(|ip| ip.to_string());
    let before = engine.store().tokens().touch(kind, id, ip.as_deref(), now).await?;
    let (Some(Some(previous)), Some(ip), true) = (before, ip, new) else { return Ok(()) };
    if previous == ip {
        return Ok(());
    }
    let resource = format!("token:{id}");
    // Once for each address, also after a restart.
    let filter = AuditFilter {
        action_prefix: Some(FIRST_USE.to_owned()),
        resource: Some(resource.clone()),
        limit: 1000,
        ..AuditFilter::default()
    };
    let told = engine.store().audit().list(&filter).await?;
    let same = |value: &serde_json::Value| value.get("ip").and_then(|ip| ip.as_str()) == Some(ip.as_str());
    if !told.iter().any(|event| event.params.as_ref().is_some_and(same)) {
        let event = engine.audit().event(ctx, FIRST_USE).resource(resource);
        event.params(json!({"ip": ip, "previous_ip": previous})).record().await;
    }
    Ok(())
}
