//! Asks a receipt's query again and says whether the answer is the same.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::receipt::{Receipt, RowHash, tables};
use super::{lease, service};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;

/// What a replay read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReplayedOn {
    /// The data that the receipt was made of.
    Receipt,
    /// The data as it is now.
    Current,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replay {
    /// Which receipt.
    pub receipt_id: String,
    /// Whether the answer is the same.
    pub equal: bool,
    /// What it read.
    pub data: ReplayedOn,
    /// Rows now.
    pub rows: u64,
    /// Rows that the receipt says.
    pub receipt_rows: u64,
    /// Hash of the answer now.
    pub result_hash: String,
    /// What is not as it was, in words: data, policies, the engine. An equal answer may have
    /// some, and an answer that differs without any came from a query that says something
    /// else each time.
    pub changes: Vec<String>,
}

impl Engine {
    /// Asks the query of a receipt again, as the caller: on the data that it was made of,
    /// where that is kept and the caller may still read just that; else on the data as it
    /// is now for them.
    ///
    /// # Errors
    /// `receipt_forged`; those of [`Engine::query`], if the caller may not ask it now.
    pub async fn replay(&self, ctx: &CallContext, receipt: &Receipt) -> Result<Replay> {
        let done = self.replay_receipt(ctx, receipt).await;
        let params = match &done {
            Ok(replay) => json!({"receipt": replay.receipt_id, "equal": replay.equal, "data": replay.data}),
            Err(_) => json!({"receipt": crate::ident::printable(&receipt.body.id, 64)}),
        };
        self.audit().event(ctx, "query.replay").params(params).outcome(&done).later();
        done
    }

    async fn replay_receipt(&self, ctx: &CallContext, receipt: &Receipt) -> Result<Replay> {
        self.access().await?.require_active(ctx.principal())?;
        ctx.principal().require(crate::rbac::Ability::Everything)?;
        let key = self.instance_key().await?;
        receipt.verify(key)?;
        let (body, query) = (&receipt.body, receipt.query()?);
        let now = service::look(self, ctx, &query).await?;
        let tables = tables(&now.checked, &now.caller, &now.generation, key);
        let mut changes = Vec::new();
        let mut same_rights = true;
        for old in &body.tables {
            match tables.iter().find(|table| table.name == old.name) {
                Some(table) if table.policy != old.policy => {
                    same_rights = false;
                    changes.push(format!("policies leave another part of `{}`", old.name));
                }
                Some(table) if table.content_hash != old.content_hash => {
                    changes.push(format!("`{}` has other data now", old.name));
                }
                Some(_) => {}
                None => changes.push(format!("`{}` is not published any more", old.name)),
            }
        }
        let version = crate::duck::blocking(crate::duck::version).await?;
        if version != body.engine_version {
            changes.push(format!("the engine is {version}, it was {}", body.engine_version));
        }
        // Nothing is collected while it is read.
        let kept = self.slices().hold().await;
        let leased = if same_rights { lease::read(self, &body.id).await? } else { None };
        if same_rights && leased.is_none() {
            changes.push("the data of the receipt is not kept any more".to_owned());
        }
        let kept = leased.is_some().then_some(kept);
        let data = if leased.is_some() { ReplayedOn::Receipt } else { ReplayedOn::Current };
        let mut result = service::query(self, ctx, query, leased, service::Manner::default()).await?;
        let mut hash = RowHash::default();
        while let Some(batch) = result.next().await {
            hash.add(&batch?);
        }
        drop(kept);
        let rows = hash.rows;
        let result_hash = hash.finish(&result.schema());
        Ok(Replay {
            receipt_id: body.id.clone(),
            equal: rows == body.rows && result_hash == body.result_hash && result.truncated() == body.truncated,
            data,
            rows,
            receipt_rows: body.rows,
            result_hash,
            changes,
        })
    }
}
