//! Validated names, parsed once at the edge, and SQL quoting.
//!
//! Grammars are ASCII only and anchored at the hard start and end of the text:
//! a trailing newline makes a name invalid.

use std::fmt;

use crate::error::{Coded, ErrorKind};

/// A text did not match the grammar its place asks for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} `{shown}` is not valid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    shown: String,
    rule: &'static str,
}

impl InvalidName {
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, shown: printable(text, 80), rule }
    }
}

impl Coded for InvalidName {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
    fn code(&self) -> &str {
        "invalid_name"
    }
    fn hint(&self) -> Option<String> {
        Some(format!("use {}", self.rule))
    }
}

/// `text` cut to `max` characters with control characters escaped, for messages.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().take(max) {
        // Quotes are harmless and read badly when escaped.
        if matches!(c, '"' | '\'' | '\\') { out.push(c) } else { out.extend(c.escape_debug()) }
    }
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

fn is_strict(text: &str) -> bool {
    let mut bytes = text.bytes();
    (1..=64).contains(&text.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_relaxed(text: &str) -> bool {
    let mut bytes = text.bytes();
    (1..=128).contains(&text.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_env(text: &str) -> bool {
    let mut bytes = text.bytes();
    (1..=64).contains(&text.len())
        && bytes.next().is_some_and(|b| b.is_ascii_uppercase())
        && bytes.all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn is_gcp_project(text: &str) -> bool {
    let bytes = text.as_bytes();
    (6..=30).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes[bytes.len() - 1] != b'-'
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Parses `text`.
            ///
            /// # Errors
            /// [`InvalidName`] when `text` does not match the grammar.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if $check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName::new($what, text, $rule)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as a quoted SQL identifier.
            #[must_use]
            pub fn quoted(&self) -> String {
                quote_ident(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// Name of a source: the folder under `extracts/`. Strict grammar.
    SourceName, "source name", is_strict,
    "a letter or `_`, then letters, digits or `_`, at most 64"
);
name_type!(
    /// Name of a published table: the view, the Parquet stem. Strict grammar.
    TableName, "table name", is_strict,
    "a letter or `_`, then letters, digits or `_`, at most 64"
);
name_type!(
    /// Any other strict identifier: attach alias, extension name, scan column.
    StrictName, "identifier", is_strict,
    "a letter or `_`, then letters, digits or `_`, at most 64"
);
name_type!(
    /// Name given by an outside system (bucket, dataset), or a `table_id` in a URL. Relaxed grammar.
    RelaxedName, "name", is_relaxed,
    "a letter, digit or `_`, then letters, digits, `_`, `.` or `-`, at most 128"
);
name_type!(
    /// Name of an environment variable that holds a secret.
    EnvName, "environment variable name", is_env,
    "an upper-case letter, then `A-Z`, `0-9` or `_`, at most 64"
);
name_type!(
    /// Google Cloud project id.
    GcpProject, "project id", is_gcp_project,
    "a lower-case letter, then lower-case letters, digits or `-`, 6 to 30 in all"
);

/// `name` as a double-quoted SQL identifier, embedded quotes doubled.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a single-quoted SQL literal, embedded quotes doubled.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a path below some folder is one of plain names that every system can have: at most eight
/// of them, none that leads out, is hidden, or is no name elsewhere.
#[must_use]
pub(crate) fn is_plain_path(path: &str) -> bool {
    let is_plain = |name: &str| {
        !name.is_empty()
            && name.len() <= 200
            && !name.starts_with('.')
            && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | ':' | '"' | '*' | '?' | '<' | '>' | '|'))
    };
    path.len() <= 1024 && path.split('/').count() <= 8 && path.split('/').all(is_plain)
}

/// Files below some folder that every system can have beside each other: where cases are folded, too.
#[derive(Debug, Default)]
pub(crate) struct PlainFiles(std::collections::BTreeSet<String>);

impl PlainFiles {
    /// Takes a path, if it is plain, and neither a file nor a folder that was taken needs its place.
    pub(crate) fn take(&mut self, path: &str) -> bool {
        is_plain_path(path) && self.take_any(path)
    }

    /// Takes a path, whatever its names are, if neither a file nor a folder that was taken needs its
    /// place.
    pub(crate) fn take_any(&mut self, path: &str) -> bool {
        let folded = path.to_lowercase();
        let above = || folded.match_indices('/').map(|(end, _)| &folded[..end]);
        let is_free = |name: &str| !self.0.contains(name);
        if !is_free(&folded) || !is_free(&format!("{folded}/")) || !above().all(is_free) {
            return false;
        }
        // A folder is known by the stroke at its end.
        self.0.extend(above().map(|folder| format!("{folder}/")).collect::<Vec<_>>());
        self.0.insert(folded);
        true
    }
}

/// The candidate nearest to `wanted` by edit distance, if one is near enough to suggest.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&wanted, &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= (wanted.chars().count().max(c.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_names() {
        for good in ["a", "_a", "Orders_2024", &"x".repeat(64)] {
            assert!(TableName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "a-b", "a\n", "é", "a١", "a b", "foo; DROP", &"x".repeat(65)] {
            assert!(TableName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn relaxed_env_and_project_names() {
        assert!(RelaxedName::parse("in.c-main.orders").is_ok());
        assert!(RelaxedName::parse(".hidden").is_err());
        assert!(EnvName::parse("KBC_TOKEN").is_ok());
        assert!(EnvName::parse("kbc").is_err());
        assert!(GcpProject::parse("my-proj-1").is_ok());
        for bad in ["short", "my-proj-", "My-proj", "my-proj\n"] {
            assert!(GcpProject::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn quoting_doubles_quotes() {
        assert_eq!(quote_ident(r#"a"b"#), r#""a""b""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
    }

    #[test]
    fn files_have_to_fit_beside_each_other() {
        let mut files = PlainFiles::default();
        for (path, fits) in [
            ("a/b.md", true),
            ("a/c.md", true),
            ("A/D.md", true),
            ("a/B.md", false),
            ("a", false),
            ("A/d.MD/e", false),
            ("a/f/g", true),
            ("a/F", false),
            ("../x", false),
            ("x", true),
            ("X/y", false),
        ] {
            assert_eq!(files.take(path), fits, "{path}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(nearest("ordres", ["orders", "customers"]), Some("orders"));
        assert_eq!(nearest("zzz", ["orders", "customers"]), None);
    }
}
