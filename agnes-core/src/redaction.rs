//! What looks like a secret, replaced: before it leaves an analyst's machine, before a server keeps
//! it, before it is written down.

use std::io::{BufRead, Result, Write};
use std::sync::OnceLock;

use regex::Regex;
use serde::de::IgnoredAny;

/// What secrets look like, and what is put in their place. No mark is taken for a secret again.
const SECRETS: [(&str, &str); 11] = [
    // One that does not end is cut with what follows it.
    (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
        "[REDACTED:private_key]",
    ),
    // Agnes' own tokens are such ones too.
    (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", "[REDACTED:jwt]"),
    (r"\bagnes_(?:[a-z]{2,12}_)?[A-Za-z0-9-]{20,}", "[REDACTED:agnes_token]"),
    (r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}", "[REDACTED:api_key]"),
    (r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}", "[REDACTED:api_key]"),
    (r"\bxox[abeprs]-[A-Za-z0-9-]{10,}", "[REDACTED:api_key]"),
    (r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}", "[REDACTED:cloud_key]"),
    (
        r#"(?i)(authorization\\*["']?\s*[:=]\s*\\*["']?)(?:(?:bearer|basic|digest|negotiate|token)\s+)?[^\s"'\\,;}\[][^\s"'\\,;}]{7,}"#,
        "$1[REDACTED:authorization]",
    ),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{16,}", "$1 [REDACTED:authorization]"),
    (r"(://[^\s/:@]+:)[^\s/@]+@", "$1[REDACTED:password]@"),
    (
        r#"(?i)((?:password|passwd|secret|api[_-]?key|access[_-]?key|token)[A-Za-z0-9_-]*\\*["']?\s*[:=]\s*\\*["']?)[^\s"'\\,;}\[][^\s"'\\,;}]{7,}"#,
        "$1[REDACTED:secret]",
    ),
];

/// Members of an object whose text is a secret by their name.
const NAMES: &str = r"(?i)(?:password|passwd|secret|api[_-]?key|access[_-]?key|token|authorization)[A-Za-z0-9_-]*$";

/// What looks like a secret in a text, replaced by `[REDACTED:<kind>]`.
#[must_use]
pub fn redacted(text: &str) -> String {
    static READY: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
    let secrets = READY.get_or_init(|| {
        SECRETS.into_iter().filter_map(|(pattern, instead)| Some((Regex::new(pattern).ok()?, instead))).collect()
    });
    secrets.iter().fold(text.to_owned(), |text, (pattern, instead)| match pattern.replace_all(&text, *instead) {
        std::borrow::Cow::Borrowed(_) => text,
        std::borrow::Cow::Owned(changed) => changed,
    })
}

/// The same of lines of JSON: in the text of its strings, so that no escape hides a secret and every
/// line stays one. Lines that are no JSON are taken together, as text.
///
/// # Errors
/// Those of reading and writing.
pub fn redact_lines(mut from: impl BufRead, to: &mut impl Write) -> Result<()> {
    let (mut line, mut loose) = (Vec::new(), String::new());
    loop {
        line.clear();
        let is_over = from.read_until(b'\n', &mut line)? == 0;
        let text = String::from_utf8_lossy(&line);
        let is_json = text.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(&text).is_ok();
        if is_over || is_json {
            let clean = redacted(&loose);
            to.write_all(clean.as_bytes())?;
            if loose.ends_with('\n') && !clean.ends_with('\n') {
                to.write_all(b"\n")?;
            }
            loose.clear();
        }
        match (is_over, is_json) {
            (true, _) => return Ok(()),
            (_, true) => to.write_all(redacted_line(&text).as_bytes())?,
            _ => loose.push_str(&text),
        }
    }
}

/// One line of JSON; what holds no secret stays byte by byte.
fn redacted_line(line: &str) -> String {
    static NAMED: OnceLock<Option<Regex>> = OnceLock::new();
    let named = NAMED.get_or_init(|| Regex::new(NAMES).ok());
    let is_named = |name: &String| named.as_ref().is_some_and(|names| names.is_match(name));
    let (mut out, mut rest, mut name) = (String::with_capacity(line.len()), line, None);
    while let Some(start) = rest.find('"') {
        let (before, from) = rest.split_at(start);
        let (literal, after) = from.split_at(end_of_string(from));
        // What is no text, as half a surrogate pair, is looked at as it is written.
        let text = serde_json::from_str::<String>(literal).ok();
        let raw = text.as_deref().unwrap_or_else(|| literal.get(1..literal.len() - 1).unwrap_or_default());
        let of = name.take().filter(|_| before.trim_end().ends_with(':')).filter(is_named);
        let clean = match of {
            Some(of) => {
                let clean = redacted(&format!("{of}: {raw}"));
                clean.strip_prefix(&format!("{of}: ")).map_or_else(|| redacted(raw), ToOwned::to_owned)
            }
            None => redacted(raw),
        };
        out.push_str(before);
        match (clean == raw, &text) {
            (true, _) => out.push_str(literal),
            (false, Some(_)) => out.push_str(&serde_json::Value::from(clean).to_string()),
            (false, None) => out.push_str(&format!("\"{clean}\"")),
        }
        name = text.filter(|_| after.trim_start().starts_with(':'));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Where the string that a text begins with ends, its quotes included.
fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_replaced() {
        for (text, sent) in [
            ("token=abcdefghijkl x", "token=[REDACTED:secret] x"),
            (r#"{"api_key": "abcdefgh12", "n": 1}"#, r#"{"api_key": "[REDACTED:secret]", "n": 1}"#),
            (r#"{\"password\":\"hunter2hunter2\"}"#, r#"{\"password\":\"[REDACTED:secret]\"}"#),
            ("postgres://ann:pa55word@db/x", "postgres://ann:[REDACTED:password]@db/x"),
            ("AKIAABCDEFGHIJKLMNOP", "[REDACTED:cloud_key]"),
            ("Authorization: Bearer abcdefghijklmnopqrst", "Authorization: [REDACTED:authorization]"),
            ("authorization: dXNlcjpwYXNz", "authorization: [REDACTED:authorization]"),
            ("-H 'Bearer abcdefghijklmnopqrst'", "-H 'Bearer [REDACTED:authorization]'"),
            ("ghp_0123456789012345678901234", "[REDACTED:api_key]"),
            ("agnes_pat_0123456789abcdefABCDEF", "[REDACTED:agnes_token]"),
            ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "[REDACTED:jwt]"),
            ("AGNES_TOKEN=eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "AGNES_TOKEN=[REDACTED:jwt]"),
            ("a -----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- b", "a [REDACTED:private_key] b"),
            ("a -----BEGIN PRIVATE KEY-----\nabc\n", "a [REDACTED:private_key]"),
            ("how many tokens are there", "how many tokens are there"),
            (
                "the module agnes_core_workspace_sessions_and_queue",
                "the module agnes_core_workspace_sessions_and_queue",
            ),
        ] {
            assert_eq!(redacted(text), sent);
            assert_eq!(redacted(sent), sent, "a mark is no secret");
        }
    }

    fn lines(text: &str) -> String {
        let mut out = Vec::new();
        redact_lines(text.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_json_stay_lines_of_json() {
        for (text, sent) in [
            // A key that does not end takes nothing but the rest of its string.
            (
                "{\"a\":\"-----BEGIN PRIVATE KEY-----\\nabc\",\"b\":1}\n{\"c\":\"-----END PRIVATE KEY-----\"}\n",
                "{\"a\":\"[REDACTED:private_key]\",\"b\":1}\n{\"c\":\"-----END PRIVATE KEY-----\"}\n",
            ),
            // Escapes hide nothing.
            (
                "{\"a\": [\"x \\u0065yJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl \\\"y\\\"\"]}\n",
                "{\"a\": [\"x [REDACTED:jwt] \\\"y\\\"\"]}\n",
            ),
            (
                "{\"Authorization\" : \"Bearer 0123456789abcdef\"}\n",
                "{\"Authorization\" : \"[REDACTED:authorization]\"}\n",
            ),
            ("{\"token\": \"abcdefghijklmn\", \"n\": 1.50}", "{\"token\": \"[REDACTED:secret]\", \"n\": 1.50}"),
            ("{\"a\":\"\\ud800 token=abcdefghijkl\"}\n", "{\"a\":\"\\ud800 token=[REDACTED:secret]\"}\n"),
            // What holds no secret stays as it is written, numbers and escapes too.
            (
                "{\"output_tokens\":12345678901234567890123,\"t\":\"\\u0041\\/\"}\n",
                "{\"output_tokens\":12345678901234567890123,\"t\":\"\\u0041\\/\"}\n",
            ),
            // Text between is text.
            (
                "-----BEGIN PRIVATE KEY-----\nabc\n{\"a\":1}\nabc token=abcdefghijkl",
                "[REDACTED:private_key]\n{\"a\":1}\nabc token=[REDACTED:secret]",
            ),
            ("", ""),
        ] {
            assert_eq!(lines(text), sent);
        }
    }
}
