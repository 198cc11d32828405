//! A small lexer of DuckDB's SQL: enough to know what is a literal, a quoted name or a
//! comment, and what is not.
//!
//! It never decides what is allowed (DuckDB's parser reads whatever is run); it trims, it
//! finds backticks and deep nesting before the parser sees them, and it finds keywords.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// An unquoted word: keyword or name.
    Word,
    /// A quoted name, string, dollar-quoted string or number.
    Other,
    /// One punctuation byte.
    Punct(u8),
}

/// A token and where it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn is(&self, text: &str, keyword: &str) -> bool {
        self.kind == TokenKind::Word && text[self.start..self.end].eq_ignore_ascii_case(keyword)
    }
    pub(super) fn is_punct(&self, byte: u8) -> bool {
        self.kind == TokenKind::Punct(byte)
    }
}

fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn is_word(b: u8) -> bool {
    is_word_start(b) || b.is_ascii_digit() || b == b'$'
}

/// End of a text that starts at `from` and ends with `quote`, doubled quotes inside.
fn quoted_end(bytes: &[u8], mut from: usize, quote: u8, backslash: bool) -> usize {
    while from < bytes.len() {
        if backslash && bytes[from] == b'\\' {
            from += 2;
        } else if bytes[from] == quote {
            if bytes.get(from + 1) == Some(&quote) {
                from += 2;
            } else {
                return from + 1;
            }
        } else {
            from += 1;
        }
    }
    bytes.len()
}

/// `$tag$` at `at`, if one stands there: its length.
fn dollar_tag(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'$' {
        let ok = if end == at + 1 {
            is_word_start(bytes[end])
        } else {
            is_word_start(bytes[end]) || bytes[end].is_ascii_digit()
        };
        if !ok {
            return None;
        }
        end += 1;
    }
    (end < bytes.len()).then_some(end + 1 - at)
}

/// The tokens of `text`, comments and white space left out.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let b = bytes[at];
        let start = at;
        let kind = match b {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = bytes[at..].iter().position(|b| matches!(b, b'\n' | b'\r')).map_or(bytes.len(), |n| at + n);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let mut depth = 1;
                at += 2;
                while at < bytes.len() && depth > 0 {
                    match (bytes[at], bytes.get(at + 1)) {
                        (b'*', Some(b'/')) => (depth, at) = (depth - 1, at + 2),
                        (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
                        _ => at += 1,
                    }
                }
                continue;
            }
            b'\'' => {
                at = quoted_end(bytes, at + 1, b'\'', false);
                TokenKind::Other
            }
            b'e' | b'E' if bytes.get(at + 1) == Some(&b'\'') => {
                at = quoted_end(bytes, at + 2, b'\'', true).min(bytes.len());
                TokenKind::Other
            }
            b'"' => {
                at = quoted_end(bytes, at + 1, b'"', false);
                TokenKind::Other
            }
            b'$' => match dollar_tag(bytes, at) {
                Some(length) => {
                    let tag = &bytes[at..at + length];
                    let body = at + length;
                    at = bytes[body..]
                        .windows(length)
                        .position(|window| window == tag)
                        .map_or(bytes.len(), |n| body + n + length);
                    TokenKind::Other
                }
                None => {
                    at += 1;
                    while at < bytes.len() && is_word(bytes[at]) {
                        at += 1;
                    }
                    TokenKind::Other
                }
            },
            b'0'..=b'9' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'.' | b'_')) {
                    at += 1;
                }
                TokenKind::Other
            }
            b if is_word_start(b) => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                TokenKind::Word
            }
            b => {
                at += 1;
                TokenKind::Punct(b)
            }
        };
        // A skip over an escape may stand inside a character: move to its end.
        while !text.is_char_boundary(at.min(bytes.len())) {
            at += 1;
        }
        at = at.min(bytes.len());
        out.push(Token { kind, start, end: at });
    }
    out
}

/// The one statement in `text` without trailing semicolons and comments, and its tokens.
pub(super) fn statement(text: &str) -> (&str, Vec<Token>) {
    let mut tokens = tokens(text);
    while tokens.last().is_some_and(|token| token.is_punct(b';')) {
        tokens.pop();
    }
    let lead = tokens.iter().take_while(|token| token.is_punct(b';')).count();
    tokens.drain(..lead);
    let start = tokens.first().map_or(0, |token| token.start);
    let end = tokens.last().map_or(start, |token| token.end);
    for token in &mut tokens {
        token.start -= start;
        token.end -= start;
    }
    (&text[start..end], tokens)
}

/// Where the first statement of `text` ends: after its semicolon. None while there is none, or it
/// stands in a literal, a name or a comment that goes on.
#[must_use]
pub fn statement_end(text: &str) -> Option<usize> {
    tokens(text).iter().find(|token| token.is_punct(b';')).map(|token| token.end)
}

/// Whether `text` holds anything but white space, comments and semicolons.
#[must_use]
pub fn says_something(text: &str) -> bool {
    tokens(text).iter().any(|token| !token.is_punct(b';'))
}

/// Most names in backticks in one text.
const MAX_BACKTICKS: usize = 100;

/// The text with what stands between backticks (outside of literals, quoted names and comments)
/// written as `name` says; none where it has no name for one of them.
pub(super) fn without_backticks(text: &str, name: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut text = text.to_owned();
    for _ in 0..MAX_BACKTICKS {
        let Some(open) = tokens(&text).into_iter().find(|token| token.is_punct(b'`')) else { return Some(text) };
        let close = open.end + text[open.end..].find('`')?;
        let written = name(&text[open.end..close])?;
        text.replace_range(open.start..=close, &written);
    }
    None
}

/// How deep brackets nest.
pub(super) fn bracket_depth(tokens: &[Token]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens {
        match token.kind {
            TokenKind::Punct(b'(' | b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            TokenKind::Punct(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|t| &text[t.start..t.end]).collect()
    }

    #[test]
    fn literals_comments_and_names() {
        let check = |text: &str, expected: &[&str]| assert_eq!(shown(text), expected, "{text}");
        check("SELECT 'a;''b' -- x\n, \"q;\"\"r\"", &["SELECT", "'a;''b'", ",", "\"q;\"\"r\""]);
        check("/* a /* b */ c */ 1.5e3", &["1.5e3"]);
        check("$$ ; ` $$ $q$ $$ $q$ $1 $name", &["$$ ; ` $$", "$q$ $$ $q$", "$1", "$name"]);
        check(r"e'\'' x", &[r"e'\''", "x"]);
        check("'unterminated", &["'unterminated"]);
        check("a-1--c", &["a", "-", "1"]);
    }

    #[test]
    fn statements_are_trimmed_at_both_ends() {
        let check = |text: &str, expected: &str| assert_eq!(statement(text).0, expected, "{text}");
        check("SELECT 1;; -- done", "SELECT 1");
        check("-- a\n SELECT ';' ;", "SELECT ';'");
        check(" ; ", "");
        check("/* only */", "");
    }

    #[test]
    fn a_statement_ends_at_a_semicolon_of_its_own() {
        let check = |text: &str, first: &str| {
            assert_eq!(statement_end(text).map(|end| &text[..end]), Some(first), "{text}");
        };
        check("select 1; select 2;", "select 1;");
        check("select ';' as \"a;b\" -- no ;\n, $$;$$ /* ; */; x", "select ';' as \"a;b\" -- no ;\n, $$;$$ /* ; */;");
        check(" ; ", " ;");
        for open in ["select 1", "select ';", "select 1 -- ;", "select /* ;", "select $$ ; $", "select \";", ""] {
            assert_eq!(statement_end(open), None, "{open}");
        }
        assert!(says_something("select") && says_something("'x"));
        assert!(!says_something(" ; -- nothing\n /* at all */ ;"));
    }

    #[test]
    fn names_in_backticks_are_written_anew_outside_of_literals() {
        let name = |inner: &str| (!inner.contains(' ')).then(|| format!("<{inner}>"));
        let check = |text: &str| without_backticks(text, &name);
        assert_eq!(check("a `b.c` 'x `y z`' `d`").as_deref(), Some("a <b.c> 'x `y z`' <d>"));
        assert_eq!(check("a -- `b c`\n").as_deref(), Some("a -- `b c`\n"));
        for bad in ["`a b`", "`a", "``` "] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let (statement, tokens) = statement(&text);
            for token in tokens {
                let _ = &statement[token.start..token.end];
            }
        }
        #[test]
        fn never_panics_on_quotes(text in "[$'\"e\\\\/*a1é;`-]{0,40}") {
            let (statement, tokens) = statement(&text);
            for token in tokens {
                let _ = &statement[token.start..token.end];
            }
        }
    }
}
