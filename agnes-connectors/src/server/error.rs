//! Why a server did not answer as asked. No message holds a token.

use agnes_core::error::{Coded, ErrorKind};
use serde_json::{Value, json};

/// Why a server did not answer as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No server was named anywhere.
    #[error("no server is named")]
    NotNamed,
    /// This is no address of one.
    #[error("`{text}` is not the address of a server")]
    BadAddress {
        /// What was given.
        text: String,
    },
    /// Nobody is signed in.
    #[error("nobody is signed in at {server}")]
    NotSignedIn {
        /// Its address.
        server: String,
    },
    /// It does not answer.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        server: String,
        /// In words.
        reason: String,
        /// Whether its certificate is not trusted.
        is_untrusted: bool,
    },
    /// It took the request, and did not answer in time.
    #[error("{server} did not answer in time")]
    Late {
        /// Its address.
        server: String,
    },
    /// The answer broke off.
    #[error("the answer of {server} broke off: {reason}")]
    BrokeOff {
        /// Its address.
        server: String,
        /// In words.
        reason: String,
    },
    /// It says no.
    #[error("{}", said(*status, detail, code))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable name, as it says.
        code: String,
        /// In words, or as an object with `kind` or `reason`.
        detail: Box<Value>,
        /// One thing to try, as it says.
        hint: Option<String>,
        /// Facts, as it says.
        facts: Option<Box<Value>>,
        /// Id of the request.
        request_id: Option<String>,
        /// Seconds after which the same may go well.
        retry_after: Option<u64>,
    },
    /// It sends elsewhere.
    #[error("{server} says that it is at another address")]
    Moved {
        /// Its address.
        server: String,
        /// Where it sends.
        to: String,
    },
    /// What it says is not what an Agnes server says.
    #[error("{server} did not answer as an Agnes server does: {what}")]
    NotUnderstood {
        /// Its address.
        server: String,
        /// In words.
        what: String,
    },
    /// It takes no client this old.
    #[error("this is version {own}, the server works with {least} and newer")]
    TooOld {
        /// Of this client.
        own: String,
        /// Least that the server takes.
        least: String,
    },
    /// A reference means several things.
    #[error("`{reference}` may be {what}: {}", candidates.join(", "))]
    Ambiguous {
        /// What kind of thing.
        what: &'static str,
        /// As it was given.
        reference: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
    /// Data folders alone do this.
    #[error("{what}: that is for data folders, not for a server")]
    FolderOnly {
        /// What, in words.
        what: String,
    },
    /// What a certificate file is not.
    #[error("the file of certificates cannot be read")]
    BadCertificates,
    /// The kept sign-in cannot be read.
    #[error("what was kept of the sign-in cannot be read")]
    AccountUnreadable,
    /// The token is in a keyring that does not give it, or no token may be kept anywhere else.
    #[error("the keyring that the token belongs in does not answer")]
    NoKeyring,
    /// `AGNES_TOKEN_STORE` names no place.
    #[error("`AGNES_TOKEN_STORE` is neither `auto` nor `file` nor `keyring`")]
    BadTokenStore,
}

/// One line for people; of typed details the facts below it.
fn said(status: u16, detail: &Value, code: &str) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    match detail {
        Value::Object(members) => {
            let named =
                ["kind", "reason", "error"].into_iter().find(|name| members.get(*name).is_some_and(Value::is_string));
            let kind = named.and_then(|name| members[name].as_str()).unwrap_or(code);
            let mut said = format!("{kind} (HTTP {status})");
            for (name, value) in members.iter().filter(|(name, _)| Some(name.as_str()) != named && *name != "hint") {
                said.push_str(&format!("\n  {name}: {}", text(value)));
            }
            said
        }
        Value::Array(places) => {
            let place = |one: &Value| {
                let at: Vec<String> = one["loc"].as_array().into_iter().flatten().map(text).collect();
                format!("{}: {}", at.join("."), text(&one["msg"]))
            };
            format!("HTTP {status}: {}", places.iter().map(place).collect::<Vec<_>>().join("; "))
        }
        other => format!("HTTP {status}: {}", text(other)),
    }
}

/// What a status of 400 says, by its code: a mistake in the request, unless the code is of another
/// kind. A server tells the status and the code, not the kind.
fn kind_of_400(code: &str) -> ErrorKind {
    match code {
        "backtick_name"
        | "empty_query"
        | "engine_relation"
        | "file_relation"
        | "function_denied"
        | "function_unknown"
        | "internal_tables_mixed"
        | "not_a_query"
        | "not_materialized_yet"
        | "not_published_yet"
        | "nul_character"
        | "query_too_complex"
        | "relation_unknown"
        | "several_statements"
        | "sql_too_long"
        | "table_function_denied"
        | "unsupported_sql" => ErrorKind::QueryRefused,
        "frames_too_large" | "query_memory" | "query_spill" | "remote_too_large" => ErrorKind::LimitExceeded,
        "receipt_unsupported" | "rows_not_writable" => ErrorKind::Unsupported,
        _ => ErrorKind::InvalidInput,
    }
}

impl Coded for ServerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotNamed | Self::NotSignedIn { .. } | Self::NoKeyring => ErrorKind::Unauthenticated,
            Self::BadAddress { .. } | Self::TooOld { .. } | Self::Ambiguous { .. } => ErrorKind::InvalidInput,
            Self::Unreachable { .. } | Self::Late { .. } | Self::BrokeOff { .. } => ErrorKind::Unavailable,
            Self::NotUnderstood { .. } => ErrorKind::DataInvalid,
            Self::FolderOnly { .. } => ErrorKind::Unsupported,
            Self::Moved { .. } | Self::BadCertificates | Self::AccountUnreadable | Self::BadTokenStore => {
                ErrorKind::ConfigInvalid
            }
            Self::Refused { status, code, .. } => match status {
                400 => kind_of_400(code),
                401 => ErrorKind::Unauthenticated,
                403 => ErrorKind::Forbidden,
                404 | 410 => ErrorKind::NotFound,
                408 | 413 => ErrorKind::LimitExceeded,
                409 => ErrorKind::Conflict,
                429 => ErrorKind::RateLimited,
                500 => ErrorKind::Internal,
                501 => ErrorKind::Unsupported,
                502.. => ErrorKind::Unavailable,
                _ => ErrorKind::InvalidInput,
            },
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::NotNamed => "no_server",
            Self::BadAddress { .. } => "bad_server_address",
            Self::NotSignedIn { .. } => "not_signed_in",
            Self::Unreachable { .. } | Self::Late { .. } => "server_unreachable",
            Self::BrokeOff { .. } => "answer_broke_off",
            Self::Refused { code, .. } => code,
            Self::Moved { .. } => "server_moved",
            Self::NotUnderstood { .. } => "server_not_understood",
            Self::TooOld { .. } => "client_too_old",
            Self::Ambiguous { .. } => "ambiguous_reference",
            Self::FolderOnly { .. } => "not_at_a_server",
            Self::BadCertificates => "bad_certificates",
            Self::AccountUnreadable => "account_unreadable",
            Self::NoKeyring => "no_keyring",
            Self::BadTokenStore => "bad_token_store",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotNamed => "`agnes auth login --server https://agnes.example.com`, or set `AGNES_SERVER`".to_owned(),
            Self::BadAddress { .. } => "write it like `https://agnes.example.com`".to_owned(),
            Self::NotSignedIn { server } => format!("`agnes auth login --server {server}`, or set `AGNES_TOKEN`"),
            Self::Unreachable { is_untrusted: true, .. } => {
                "name your company's certificates: `AGNES_CA_FILE=/path/to/ca.pem`".to_owned()
            }
            Self::Unreachable { .. } => "check the address, and your network".to_owned(),
            Self::Late { .. } => "it may be busy: try again later".to_owned(),
            Self::BrokeOff { .. } => "try again".to_owned(),
            Self::Refused { status: 401, hint: None, .. } => "sign in again: `agnes auth login`".to_owned(),
            Self::Refused { detail, hint, .. } => {
                return hint.clone().or_else(|| detail["hint"].as_str().map(ToOwned::to_owned));
            }
            Self::Moved { to, .. } => format!("it says `{to}`: if you trust that, name it as the server"),
            Self::NotUnderstood { .. } => "is this the address of an Agnes server?".to_owned(),
            Self::TooOld { .. } => "`agnes self-upgrade` brings a newer one".to_owned(),
            Self::Ambiguous { .. } => "use more of it, or the id".to_owned(),
            Self::FolderOnly { .. } => {
                "do it on the server's machine, at its data folder (`--data-dir DIR`); that works while it runs"
                    .to_owned()
            }
            Self::BadCertificates => "it has to hold certificates in PEM".to_owned(),
            Self::AccountUnreadable => "`agnes auth login --server URL` writes it anew".to_owned(),
            Self::NoKeyring => {
                "sign in again with `AGNES_TOKEN_STORE=file`, set `AGNES_TOKEN`, or work where the keyring is"
                    .to_owned()
            }
            Self::BadTokenStore => "leave it out: a keyring is used where there is one, else a file".to_owned(),
        })
    }
    fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502..),
            Self::Unreachable { is_untrusted, .. } => !is_untrusted,
            Self::Late { .. } | Self::BrokeOff { .. } => true,
            _ => false,
        }
    }
    fn facts(&self) -> Option<Value> {
        let Self::Refused { status, facts, request_id, retry_after, detail, .. } = self else { return None };
        let mut all = facts.as_deref().cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
        all["http_status"] = json!(status);
        if let Some(id) = request_id {
            all["request_id"] = json!(id);
        }
        if let Some(seconds) = retry_after {
            all["retry_after_seconds"] = json!(seconds);
        }
        if detail.is_object() || detail.is_array() {
            all["detail"] = detail.as_ref().clone();
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_as_they_came() {
        for (detail, told) in [
            (json!("you may not"), "HTTP 403: you may not"),
            (json!({"kind": "too_big", "limit": 5, "hint": "x"}), "too_big (HTTP 403)\n  limit: 5"),
            (json!({"limit": "a"}), "c (HTTP 403)\n  limit: a"),
            (json!([{"loc": ["body", "n"], "msg": "is no number", "type": "t"}]), "HTTP 403: body.n: is no number"),
        ] {
            assert_eq!(said(403, &detail, "c"), told);
        }
    }
}
