//! The engine's messages in words that a caller may see: no path, no address, no secret.

use std::sync::LazyLock;

use regex::Regex;

use super::QueryError;
use crate::sandbox::SystemRelation;

#[expect(clippy::unwrap_used, reason = "the patterns are constant and tested")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?i)\b[a-z][a-z0-9+.\-]*://[^\s'"`)\]]+"#));
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)\b(password|passwd|pwd|secret|token|access_?key|api_?key|authorization|bearer)\b(\s*[=:]\s*|\s+)('[^']*'|"[^"]*"|[^\s,;)]+)"#,
    )
});
static DSN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)\b(host|hostaddr|port|dbname|user)\s*=\s*('[^']*'|"[^"]*"|[^\s,;)'"]+)"#));
static PATH: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(^|[\s'"(=\[,`])((?:/|[A-Za-z]:\\)[^\s'"()\[\],`/\\]+(?:[/\\][^\s'"()\[\],`]*)+)"#));
static BLOB: LazyLock<Regex> = LazyLock::new(|| pattern(r"[^\s'\x22(]*[0-9a-f]{64}\.parquet"));

/// `text` without paths, addresses and secrets.
pub(crate) fn scrub(text: &str) -> String {
    let text = BLOB.replace_all(text, "<file>");
    let text = SECRET.replace_all(&text, "$1=<secret>");
    let text = URL.replace_all(&text, "<address>");
    let text = DSN.replace_all(&text, "$1=<address>");
    let text = PATH.replace_all(&text, "$1<file>");
    let mut text = text.into_owned();
    for (system, name) in [
        (SystemRelation::ShowTables, "SHOW TABLES"),
        (SystemRelation::Tables, "information_schema.tables"),
        (SystemRelation::Columns, "information_schema.columns"),
    ] {
        text = text.replace(system.relation(), name);
    }
    text
}

/// What the engine said about a caller's query, as an error.
pub(super) fn engine_words(words: &str) -> QueryError {
    let lower = words.to_lowercase();
    let says = |what: &str| lower.contains(what);
    if says("interrupted!") || says("interrupt error") {
        return QueryError::Cancelled;
    }
    if says("max_temp_directory_size") || says("no space left") || says("failed to offload") {
        return QueryError::OutOfSpill;
    }
    if lower.starts_with("out of memory") || says("out of memory error") || says("bad allocation") {
        return QueryError::OutOfMemory;
    }
    if lower.starts_with("io error") || lower.starts_with("permission error") {
        return QueryError::DataMissing;
    }
    // Suggestions of the engine may name what the caller cannot know; columns and functions
    // come from relations they may read.
    let code = match lower.split(" error:").next().unwrap_or_default() {
        "binder" => "query_binder",
        "conversion" => "query_conversion",
        "parser" => "sql_syntax",
        "out of range" => "query_out_of_range",
        _ => "query_failed",
    };
    let message = scrub(words);
    let message = message.trim().chars().take(2000).collect();
    QueryError::Failed { message, code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_addresses_and_secrets_go() {
        let check = |text: &str, expected: &str| assert_eq!(scrub(text), expected);
        check("Cannot open file \"/data/x/y.parquet\": no", "Cannot open file \"<file>\": no");
        check("at C:\\data\\x.db end", "at <file> end");
        check("get https://u:p@h/x?sig=1 now", "get <address> now");
        check("password=hunter2 host=db.internal", "password=<secret> host=<address>");
        check("Binder Error: column \"a\" not found, a/b", "Binder Error: column \"a\" not found, a/b");
        check(&format!("in blobs/ab/{}.parquet", "0".repeat(64)), "in <file>");
    }

    #[test]
    fn kinds() {
        assert_eq!(engine_words("INTERRUPT Error: Interrupted!"), QueryError::Cancelled);
        assert_eq!(engine_words("Out of Memory Error: failed"), QueryError::OutOfMemory);
        assert!(matches!(engine_words("Binder Error: x"), QueryError::Failed { code: "query_binder", .. }));
    }
}
