//! Verbs about who sees what: policies, and what people ask to be given.

use agnes_core::error::Result;
use agnes_core::local::{
    ApproveRequest, CheckPolicies, CreatePolicy, DenyRequest, GetPolicy, ListPolicies, PendingRequests, PolicyHistory,
    PreviewAccess, PreviewApproval, RemovePolicy, UpdatePolicy,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::admin::{meant, plain};
use super::{Served, Told, asked, list, with};
use crate::server::{Call, Method, ServerClient};

/// Most requests that are looked through for one.
const MOST: usize = 1000;

impl ServerClient {
    /// The id of a policy, of it or the unique begin of it.
    async fn policy_id(&self, reference: &str) -> Result<String> {
        self.id_of(Call::get(&["api", "admin", "policies"]), "id", "a policy", reference).await
    }

    /// The id of a request that waits, of it or the unique begin of it.
    async fn request_id(&self, reference: &str) -> Result<String> {
        let said = self.ask(Call::get(&["api", "access-requests", "pending"]).param("limit", MOST)).await?.body;
        let found = meant(&list(&said, "items"), "id", "a request", reference)?.cloned().unwrap_or_default();
        Ok(found["id"].as_str().unwrap_or(reference).to_owned())
    }
}

asked! {
    ListPolicies |v, server| {
        let group = match &v.group {
            Some(group) => Some(server.group_id(group).await?),
            None => None,
        };
        let call = Call::get(&["api", "admin", "policies"]).maybe("table", v.table).maybe("group_id", group);
        plain(server, server.ask(call).await?.body)
    };
    GetPolicy |v, server| {
        let id = server.policy_id(&v.policy).await?;
        plain(server, server.ask(Call::get(&["api", "admin", "policies", &id])).await?.body)
    };
    PolicyHistory |v, server| {
        let id = server.policy_id(&v.policy).await?;
        plain(server, server.ask(Call::get(&["api", "admin", "policies", &id, "history"])).await?.body)
    };
    CreatePolicy |v, server| {
        let group = server.group_id(&v.group).await?;
        let body = json!({"group_id": group, "table": v.table, "rules": v.rules});
        plain(server, server.ask(Call::post(&["api", "admin", "policies"], body)).await?.body)
    };
    UpdatePolicy |v, server| {
        let id = server.policy_id(&v.policy).await?;
        let body = json!({"rules": v.rules, "expected_version": v.expected});
        plain(server, server.ask(Call::new(Method::PUT, &["api", "admin", "policies", &id]).json(&body)).await?.body)
    };
    RemovePolicy |v, server| {
        let id = server.policy_id(&v.policy).await?;
        let said = server.ask(Call::get(&["api", "admin", "policies", &id])).await?.body;
        server.ask(Call::new(Method::DELETE, &["api", "admin", "policies", &id])).await?;
        plain(server, said)
    };
    CheckPolicies |v, server| {
        let body = match &v.policy {
            Some(policy) => json!({"policy_id": server.policy_id(policy).await?}),
            None => json!({}),
        };
        plain(server, server.ask(Call::post(&["api", "admin", "policies", "validate"], body).unlimited()).await?.body)
    };
    PreviewAccess |v, server| {
        let call = Call::post(&["api", "admin", "policies", "dry-run"], json!(v.change));
        plain(server, server.ask(call.unlimited()).await?.body)
    };

    PendingRequests |v, server| {
        let call = Call::get(&["api", "access-requests", "pending"]).param("limit", v.limit.clamp(1, MOST));
        let said = server.ask(call).await?.body;
        Ok(Told::by_server(server.read(list(&said, "items").into())?, said))
    };
    PreviewApproval |v, server| {
        let (request, group) = (server.request_id(&v.request).await?, server.group_id(&v.group).await?);
        let call = Call::get(&["api", "access-requests", &request, "preview"]).param("group_id", group);
        plain(server, server.ask(call).await?.body)
    };
    ApproveRequest |v, server| {
        let (request, group) = (server.request_id(&v.request).await?, server.group_id(&v.group).await?);
        let body = with_note(json!({"group_id": group}), v.note);
        let said = server.ask(Call::post(&["api", "access-requests", &request, "approve"], body)).await?.body;
        Ok(Told::by_server((server.read(said.clone())?, server.read(said.clone())?), said))
    };
    DenyRequest |v, server| {
        let request = server.request_id(&v.request).await?;
        let body = with_note(json!({}), v.note);
        plain(server, server.ask(Call::post(&["api", "access-requests", &request, "deny"], body)).await?.body)
    };
}

/// With the words for who asks, where there are any.
fn with_note(body: Value, note: Option<String>) -> Value {
    match note {
        Some(note) => with(body, &[("note", note.into())]),
        None => body,
    }
}
