//! Which part of a file a client asks for (RFC 9110, 14).

/// What a client wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    All,
    /// These bytes, at least one.
    Part { from: u64, length: u64 },
    /// Bytes that it does not have.
    Nothing,
}

/// What the field `Range` asks of a file of `size` bytes. A field that is not understood, or
/// asks for several parts, is answered with all of it.
pub(crate) fn wanted(field: Option<&str>, size: u64) -> Wanted {
    let Some(range) = field.and_then(|field| field.trim().strip_prefix("bytes=")) else { return Wanted::All };
    let Some((first, last)) = range.split_once('-').filter(|_| !range.contains(',')) else { return Wanted::All };
    let number = |text: &str| {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (None, Some(0)) if first.trim().is_empty() => Wanted::Nothing,
        (None, Some(_)) if first.trim().is_empty() && size == 0 => Wanted::Nothing,
        (None, Some(tail)) if first.trim().is_empty() => {
            let length = tail.min(size);
            Wanted::Part { from: size - length, length }
        }
        (Some(from), None) if last.trim().is_empty() && from < size => Wanted::Part { from, length: size - from },
        (Some(from), Some(to)) if to < from => Wanted::All,
        (Some(from), Some(to)) if from < size => Wanted::Part { from, length: to.min(size - 1) - from + 1 },
        (Some(_), Some(_)) => Wanted::Nothing,
        (Some(_), None) if last.trim().is_empty() => Wanted::Nothing,
        _ => Wanted::All,
    }
}

/// An entity tag without the mark of a weak one.
pub(crate) fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |from, length| Wanted::Part { from, length };
        for (field, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=3-", part(3, 7)),
            ("bytes=9-99999999999999999999999", part(9, 1)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-30", part(0, 10)),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-12", Wanted::Nothing),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(wanted(Some(field), 10), expected, "{field}");
        }
        assert_eq!(wanted(None, 10), Wanted::All);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Nothing);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
    }
}
