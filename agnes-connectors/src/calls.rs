//! What calls to the APIs of sources have in common.

use std::time::Duration;

use agnes_core::connector::{Cancel, Cancelled};
use agnes_core::error::{Error, ErrorKind, Result};

use crate::outbound::{OutboundError, Request};

/// Whoever asks to wait longer than a year asks to wait a year: clocks end somewhere.
const LONGEST_WAIT: u64 = 366 * 24 * 3600;

/// Seconds or a date (RFC 9110, 10.2.3).
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let asked = text.parse().ok().or_else(|| {
        let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        u64::try_from((at.to_utc() - chrono::Utc::now()).num_seconds()).ok()
    });
    asked.map(|seconds: u64| seconds.min(LONGEST_WAIT))
}

/// Whose move it is after a refusal with this status.
pub(crate) fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::ConfigInvalid,
        404 => ErrorKind::NotFound,
        413 => ErrorKind::LimitExceeded,
        429 => ErrorKind::RateLimited,
        409 | 500.. => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidInput,
    }
}

/// What an API answered.
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// Seconds that it asks to wait.
    pub(crate) retry_after: Option<u64>,
    /// Whether it says that it did not know whoever asked, and answered as it answers everybody.
    pub(crate) anonymous: bool,
    /// As much of it as came, after a refusal.
    pub(crate) body: Vec<u8>,
}

/// Sends a request until the run should end; `away` names what had no answer and may pass.
pub(crate) async fn ask<E: Into<Error>>(
    cancel: &Cancel,
    request: Request<'_>,
    away: impl Fn(String) -> E,
) -> Result<Answered> {
    let away = |error: OutboundError| match Error::from(error) {
        error if error.is_retryable() => away(error.to_string()).into(),
        error => error,
    };
    until_cancelled(cancel, async {
        let answer = request.send().await.map_err(&away)?;
        let status = answer.status().as_u16();
        let retry_after = answer.header("retry-after").and_then(seconds);
        let login = answer.header("x-seraph-loginreason").unwrap_or_default();
        let anonymous = login.contains("AUTHENTICATED_FAILED") || login.contains("AUTHENTICATION_DENIED");
        let body = match answer.bytes().await {
            Err(_) if status >= 400 => Vec::new(),
            body => body.map_err(&away)?,
        };
        Ok(Answered { status, retry_after, anonymous, body })
    })
    .await
}

/// One segment of a path: everything but letters, digits, `-`, `.`, `_` and `~` encoded.
pub(crate) fn encoded(segment: &str) -> String {
    segment.bytes().fold(String::with_capacity(segment.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// `work`, or `cancelled` as soon as the run should end.
pub(crate) async fn until_cancelled<T>(cancel: &Cancel, work: impl Future<Output = Result<T>>) -> Result<T> {
    let ended = async {
        while !cancel.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        () = ended => Err(Cancelled.into()),
        done = work => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded_and_waits_read() {
        assert_eq!(encoded("in.c-crm/a b?"), "in.c-crm%2Fa%20b%3F");
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Fri, 01 Jan 2100 00:00:00 GMT"), Some(LONGEST_WAIT));
        assert_eq!(seconds("18446744073709551615"), Some(LONGEST_WAIT));
        assert_eq!(seconds("soon"), None);
    }
}
