//! The beginning of a delimited text: its records, delimiter and header.

use std::io::Read;

/// Records looked at.
const MAX_RECORDS: usize = 20_480;
/// Bytes looked at, unless the first records are longer.
const MAX_BYTES: usize = 4 << 20;
/// Longest line that is read at all.
pub(crate) const MAX_LINE: usize = 64 << 20;

/// The beginning of a text, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    /// Whether it is the whole text.
    pub(crate) whole: bool,
}

/// One record: its fields, and where it ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Fields, unquoted, decoded with replacement characters where they are not UTF-8.
    pub(crate) fields: Vec<String>,
    /// Where it begins in the head.
    pub(crate) start: usize,
    /// Where the next one begins.
    pub(crate) end: usize,
}

/// What separates and quotes fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Marks {
    /// Between fields.
    pub(crate) delimiter: String,
    /// Around fields that hold a delimiter; empty for none.
    pub(crate) quote: String,
    /// Before a quote inside a quoted field; empty for none.
    pub(crate) escape: String,
}

impl Head {
    /// Reads the beginning of `reader`: some megabytes, and at least two lines.
    pub(crate) fn read(reader: &mut dyn Read) -> std::io::Result<Self> {
        let mut head = Self::default();
        loop {
            let wanted = if head.bytes.is_empty() { MAX_BYTES } else { head.bytes.len() };
            let before = head.bytes.len();
            reader.take(wanted as u64).read_to_end(&mut head.bytes)?;
            head.whole = head.bytes.len() - before < wanted;
            let enough = head.bytes.iter().filter(|byte| **byte == b'\n' || **byte == b'\r').take(4).count() == 4;
            if head.whole || enough || head.bytes.len() > 2 * MAX_LINE {
                return Ok(head);
            }
        }
    }

    /// The text after a byte order mark and `skip` lines, and where that is.
    fn body(&self, skip: u64) -> usize {
        let mut at = if self.bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        for _ in 0..skip {
            at = next_line(&self.bytes, at);
        }
        at
    }

    /// Its complete records, empty lines left out.
    pub(crate) fn records(&self, marks: &Marks, skip: u64) -> Vec<Record> {
        self.first_records(marks, skip, MAX_RECORDS)
    }

    fn first_records(&self, marks: &Marks, skip: u64, most: usize) -> Vec<Record> {
        let mut at = self.body(skip);
        let mut records = Vec::new();
        while at < self.bytes.len() && records.len() < most {
            let (record, closed) = parse(&self.bytes, at, marks);
            at = record.end;
            // A record the head cuts off would look ragged.
            if at >= self.bytes.len() && !self.whole && !records.is_empty() && !closed {
                break;
            }
            if record.fields.len() > 1 || record.fields.first().is_some_and(|field| !field.is_empty()) {
                records.push(record);
            }
        }
        records
    }

    /// Whether the text has no record at all.
    pub(crate) fn is_blank(&self) -> bool {
        self.bytes[self.body(0)..].iter().all(u8::is_ascii_whitespace)
    }

    /// Whether the part that was read is valid UTF-8 (an incomplete end aside).
    pub(crate) fn is_utf8(&self) -> bool {
        match std::str::from_utf8(&self.bytes) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none(),
        }
    }

    /// The delimiter of a first line `sep=;`, as Excel writes and reads it.
    pub(crate) fn declared_delimiter(&self) -> Option<String> {
        let body = &self.bytes[self.body(0)..];
        let line = &body[..body.iter().position(|byte| *byte == b'\n' || *byte == b'\r')?];
        match line.strip_prefix(b"sep=")? {
            [delimiter] if delimiter.is_ascii() => Some(char::from(*delimiter).to_string()),
            _ => None,
        }
    }

    /// Whether quotes inside quoted fields have a backslash before them, none a second quote.
    pub(crate) fn escapes_with_backslash(&self, quote: &str) -> bool {
        let &[quote] = quote.as_bytes() else { return false };
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b' ';
        let has = |before: u8| {
            self.bytes.windows(4).any(|w| w[1] == before && w[2] == quote && is_inside(w[0]) && is_inside(w[3]))
        };
        has(b'\\') && !has(quote)
    }

    /// The bytes of a record.
    pub(crate) fn slice(&self, record: &Record) -> &[u8] {
        &self.bytes[record.start..record.end]
    }

    /// Lines that end before `offset`.
    pub(crate) fn lines_before(&self, offset: usize) -> u64 {
        let mut at = 0;
        let mut lines = 0;
        while at < offset {
            at = next_line(&self.bytes, at);
            lines += 1;
        }
        lines
    }

    /// The delimiter that cuts most records into the same number of fields, two or more.
    pub(crate) fn delimiter(&self, quote: &str, escape: &str, skip: u64, decimal_comma: bool) -> String {
        let mut best = (0.0, 0, ",");
        let small = Self { bytes: self.bytes[..self.bytes.len().min(1 << 20)].to_vec(), whole: self.whole };
        let small = Self { whole: small.whole && small.bytes.len() == self.bytes.len(), ..small };
        for delimiter in [",", ";", "\t", "|"] {
            let marks = Marks { delimiter: delimiter.to_owned(), quote: quote.to_owned(), escape: escape.to_owned() };
            let (width, share) = usual_width(&small.first_records(&marks, skip, 500));
            // Where every record agrees on both, the decimal comma decides, then the width.
            let better = share > best.0 + 1e-9
                || ((share - best.0).abs() < 1e-9 && if decimal_comma { best.2 == "," } else { width > best.1 });
            if width > 1 && better {
                best = (share, width, delimiter);
            }
        }
        best.2.to_owned()
    }
}

/// The most frequent number of fields, and the share of records that have it.
pub(crate) fn usual_width(records: &[Record]) -> (usize, f64) {
    let mut counts = std::collections::BTreeMap::new();
    for record in records {
        *counts.entry(record.fields.len()).or_insert(0_u32) += 1;
    }
    let (width, count) = counts.into_iter().max_by_key(|(_, count)| *count).unwrap_or((0, 0));
    (width, f64::from(count) / records.len().max(1) as f64)
}

/// Lines of one field above a table of several: a title, a comment.
pub(crate) fn title_lines(records: &[Record]) -> usize {
    let (width, share) = usual_width(records);
    let titles = records.iter().take_while(|record| record.fields.len() == 1).count();
    // What follows must be a header: a lone name above numbers is one itself.
    let is_table = records
        .get(titles)
        .is_some_and(|record| record.fields.len() == width && !record.fields.iter().any(|field| is_value(field)));
    if width > 1 && share > 0.5 && titles <= 20 && is_table && titles + 1 < records.len() { titles } else { 0 }
}

/// Whether the first record names the columns: it does unless a column of numbers, dates or
/// flags is one in the first record too (with no other record: unless any field is one).
pub(crate) fn has_header(records: &[Record]) -> bool {
    let Some((first, rest)) = records.split_first() else { return true };
    if rest.is_empty() {
        return !first.fields.iter().any(|field| is_value(field));
    }
    !first.fields.iter().enumerate().any(|(index, field)| {
        let mut values =
            rest.iter().take(100).filter_map(|r| r.fields.get(index)).filter(|v| !v.trim().is_empty()).peekable();
        is_value(field) && values.peek().is_some() && values.all(|value| is_value(value))
    })
}

/// A number, date, time or flag.
fn is_value(text: &str) -> bool {
    let text = text.trim();
    let numeric =
        |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-' | '+' | '/' | ':' | 'e' | 'E' | 'T' | 'Z' | ' ');
    matches!(text.to_ascii_lowercase().as_str(), "true" | "false")
        || (text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(numeric))
}

fn next_line(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n' || *byte == b'\r')) {
        None => bytes.len(),
        Some(found) => end_of_line(bytes, at + found),
    }
}

/// Where the line whose end character is at `at` is over.
fn end_of_line(bytes: &[u8], at: usize) -> usize {
    if bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n') { at + 2 } else { at + 1 }
}

/// Parses the record at `start`; the flag says whether its end was seen.
fn parse(bytes: &[u8], start: usize, marks: &Marks) -> (Record, bool) {
    let delimiter = marks.delimiter.as_bytes();
    let quote = marks.quote.as_bytes().first().copied();
    let escape = marks.escape.as_bytes().first().copied();
    let mut fields = Vec::new();
    let mut field = Vec::new();
    let (mut at, mut quoted, mut fresh) = (start, false, true);
    let push = |field: &mut Vec<u8>, fields: &mut Vec<String>| {
        fields.push(String::from_utf8_lossy(field).into_owned());
        field.clear();
    };
    while let Some(&byte) = bytes.get(at) {
        if quoted {
            let next = bytes.get(at + 1).copied();
            if Some(byte) == escape && next.is_some() && (next == quote || next == escape) {
                field.extend(next);
                at += 2;
            } else if Some(byte) == quote {
                quoted = false;
                at += 1;
            } else {
                field.push(byte);
                at += 1;
            }
        } else if fresh && Some(byte) == quote {
            quoted = true;
            fresh = false;
            at += 1;
        } else if bytes[at..].starts_with(delimiter) {
            push(&mut field, &mut fields);
            fresh = true;
            at += delimiter.len();
        } else if byte == b'\n' || byte == b'\r' {
            push(&mut field, &mut fields);
            return (Record { fields, start, end: end_of_line(bytes, at) }, true);
        } else {
            // All of it up to what could end the field.
            let ends = |byte: &u8| *byte == b'\n' || *byte == b'\r' || Some(byte) == delimiter.first();
            let rest = &bytes[at + 1..];
            let plain = 1 + rest.iter().position(ends).unwrap_or(rest.len());
            field.extend_from_slice(&bytes[at..at + plain]);
            fresh = false;
            at += plain;
        }
    }
    push(&mut field, &mut fields);
    (Record { fields, start, end: bytes.len() }, false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::read(&mut text.as_bytes()).unwrap()
    }

    fn marks(delimiter: &str) -> Marks {
        Marks { delimiter: delimiter.to_owned(), quote: "\"".to_owned(), escape: "\"".to_owned() }
    }

    #[test]
    fn finds_the_delimiter_in_untidy_text() {
        for (text, delimiter) in [
            ("id,name,amt\n1,a,1.5\n2,b\n3,c,2.5,extra\n", ","),
            ("a;b\n1,5;1.234,56\n2,5;2.000,1\n", ";"),
            ("a\tb\n\"x,y,z\"\t1\n", "\t"),
            ("a|b|c\n1|2|3\n", "|"),
            ("only\nhello\n", ","),
            ("\"a,b\";c\n\"1,2\";3\n", ";"),
        ] {
            assert_eq!(head(text).delimiter("\"", "\"", 0, false), delimiter, "{text:?}");
        }
    }

    #[test]
    fn parses_quotes_line_ends_and_marks() {
        let records = head("\u{feff}a,b\r\n\"x \"\"y\"\"\r\nz\",2\r\n\r\n3,4").records(&marks(","), 0);
        let fields: Vec<Vec<String>> = records.into_iter().map(|r| r.fields).collect();
        assert_eq!(fields, [vec!["a", "b"], vec!["x \"y\"\r\nz", "2"], vec!["3", "4"]]);
    }

    #[test]
    fn tells_headers_from_data() {
        for (text, header) in [
            ("id,name\n1,a\n", true),
            ("1,a\n2,b\n", false),
            ("name\nhello\n", true),
            ("a,b\n", true),
            ("1,2\n", false),
            ("day,x\n2024-01-01,true\n", true),
            ("2024-01-01,a\n2024-01-02,b\n", false),
        ] {
            assert_eq!(has_header(&head(text).records(&marks(","), 0)), header, "{text:?}");
        }
    }
}
