//! Deliveries of Jira: proven over every byte, then read.

use agnes_core::error::Result;
use agnes_core::ident::printable;
use agnes_core::push::{Delivery, Notice, PushError};
use agnes_core::secret::Secret;
use aws_lc_rs::hmac;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Header with the delivery's own id, the same when it is sent again.
const ID: &str = "x-atlassian-webhook-identifier";

/// Whether a text is the key of an issue.
pub(crate) fn is_key(text: &str) -> bool {
    let Some((project, number)) = text.split_once('-') else { return false };
    (1..=32).contains(&project.len())
        && project.as_bytes()[0].is_ascii_uppercase()
        && project.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        && (1..=12).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

/// Proves that whoever knows `secret` sent this.
pub(crate) fn prove(secret: &Secret, delivery: &Delivery) -> Result<(), PushError> {
    let told = delivery.header("x-hub-signature-256").or_else(|| delivery.header("x-hub-signature"));
    let told = told.map(|told| told.trim()).map(|told| told.strip_prefix("sha256=").unwrap_or(told));
    let tag = told.and_then(bytes_of).ok_or(PushError::Signature)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    // In a time that does not tell where they differ.
    hmac::verify(&key, &delivery.body, &tag).map_err(|_| PushError::Signature)
}

/// Reads what was proven.
pub(crate) fn read(delivery: &Delivery) -> Result<Notice, PushError> {
    let invalid = |reason| PushError::Invalid { reason };
    if delivery.body.is_empty() {
        return Err(invalid("it is empty"));
    }
    let body: Value = serde_json::from_slice(&delivery.body).map_err(|_| invalid("it is not JSON"))?;
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(invalid("it is not an object, or an empty one"));
    }
    let key = body["issue"]["key"].as_str().or_else(|| body["issue_key"].as_str());
    let key = key.filter(|key| is_key(key)).ok_or_else(|| invalid("it names no issue"))?.to_owned();
    let event = body["webhookEvent"].as_str().or_else(|| body["event"].as_str()).unwrap_or("unknown");
    let event = printable(event, 64);
    let digest = Sha256::digest(&delivery.body);
    let digest = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
    // The header is not signed, the body is: both have to be the same for a delivery to be.
    let id = match delivery.header(ID) {
        Some(id) => format!("{}:{digest}", printable(id, 100)),
        None => digest,
    };
    let deleted = matches!(event.as_str(), "jira:issue_deleted" | "issue_deleted");
    let tells = !deleted && body["issue"]["fields"].as_object().is_some_and(|fields| !fields.is_empty());
    Ok(Notice { id, event, subject: key, deleted, tells, body })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_keys() {
        for key in ["A-1", "HELP-123456789012", "A1B-0"] {
            assert!(is_key(key), "{key}");
        }
        for other in ["a-1", "A-", "-1", "A1", "1A-1", "A-1\n", "A-1234567890123", "A-١", "../A-1", "A B-1", ""] {
            assert!(!is_key(other), "{other}");
        }
    }

    #[test]
    fn only_the_right_signature_of_every_byte_is_taken() {
        let secret = Secret::new("s3cret");
        let body = br#"{"webhookEvent":"jira:issue_updated","issue":{"key":"A-1"}}"#.to_vec();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
        let hex: String = hmac::sign(&key, &body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let with = |name: &str, value: &str, body: &[u8]| {
            let delivery = Delivery { headers: vec![(name.to_owned(), value.to_owned())], body: body.to_vec() };
            prove(&secret, &delivery).is_ok()
        };
        assert!(with("x-hub-signature-256", &hex, &body));
        assert!(with("x-hub-signature", &format!("sha256={hex}"), &body));
        assert!(with("x-hub-signature", &hex.to_uppercase(), &body));
        assert!(!with("x-hub-signature", &format!("sha1={hex}"), &body));
        assert!(!with("x-hub-signature", "", &body));
        assert!(!with("x-hub-signature", &hex[..62], &body));
        assert!(!with("x-hub-signature", &"é".repeat(32), &body));
        assert!(!with("x-signature", &hex, &body));
        assert!(!with("x-hub-signature", &hex, &[&body[..], b" "].concat()));
    }

    #[test]
    fn what_a_delivery_says() {
        let of = |headers: &[(&str, &str)], body: &str| {
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            read(&Delivery { headers, body: body.as_bytes().to_vec() })
        };
        let update = r#"{"webhookEvent":"jira:issue_updated","issue":{"key":"A-1","fields":{"summary":"x"}}}"#;
        let notice = of(&[], update).unwrap();
        assert_eq!((notice.subject.as_str(), notice.deleted, notice.tells), ("A-1", false, true));
        assert_eq!(of(&[], update).unwrap().id, notice.id);
        assert_ne!(of(&[(ID, "1")], update).unwrap().id, notice.id);
        let gone = of(&[], r#"{"webhookEvent":"jira:issue_deleted","issue":{"key":"A-1","fields":{"a":1}}}"#).unwrap();
        assert!(gone.deleted && !gone.tells);
        for event in ["comment_deleted", "attachment_deleted", "worklog_deleted"] {
            let body = format!(r#"{{"webhookEvent":"{event}","issue":null,"issue_key":"A-2"}}"#);
            let notice = of(&[], &body).unwrap();
            assert_eq!((notice.subject.as_str(), notice.deleted), ("A-2", false));
        }
        for wrong in ["", "{", "{}", "[]", "null", r#"{"issue":{"key":"a-1"}}"#, r#"{"issue":{"key":"../A-1"}}"#] {
            assert!(of(&[], wrong).is_err(), "{wrong}");
        }
    }
}
