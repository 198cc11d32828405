//! Numbers, sizes and times as people read them.

use chrono::{DateTime, Local, Utc};

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: impl TryInto<u64>) -> String {
    let Ok(number) = number.try_into() else { return "?".to_owned() };
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes as `1.4 MB`.
pub(crate) fn bytes(number: u64) -> String {
    indicatif::DecimalBytes(number).to_string()
}

/// Milliseconds as `350 ms` or `2.4 s` or `3 m 05 s`.
pub(crate) fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{} m {:02} s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
}

/// A time in the local time zone, or a dash.
pub(crate) fn time(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "-".to_owned(), |t| t.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string())
}

/// Text or a dash.
pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// The first eight characters of an id, enough to refer to it.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(8).collect()
}

/// `1 table`, `2 tables`.
pub(crate) fn plural(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Text with control characters escaped, so that data cannot steer the terminal.
pub(crate) fn safe(text: &str) -> String {
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        text.chars()
            .map(
                |c| {
                    if c.is_control() && c != '\n' && c != '\t' {
                        c.escape_default().to_string()
                    } else {
                        c.to_string()
                    }
                },
            )
            .collect()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0u64), "0");
        assert_eq!(count(999u64), "999");
        assert_eq!(count(1_234_567u64), "1,234,567");
        assert_eq!(count(-1i64), "?");
        assert_eq!(duration(999), "999 ms");
        assert_eq!(duration(2_449), "2.4 s");
        assert_eq!(duration(185_000), "3 m 05 s");
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(plural(2_000, "row"), "2,000 rows");
    }

    #[test]
    fn data_cannot_steer_the_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb\ttab"), "a\\u{1b}[2Jb\ttab");
        assert_eq!(safe("žluťoučký"), "žluťoučký");
    }
}
