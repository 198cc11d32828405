//! Versions, and what computers are called in names of archives.

use std::cmp::Ordering;

/// Whether this may be a version in the name of a file: it begins with a digit and is plain.
#[must_use]
pub fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(plain)
}

/// Whether version `one` is newer than `other`, as semantic versions are ordered: numbers as
/// numbers, and what comes before a release (`0.2.0-rc.1`) before it.
#[must_use]
pub fn is_newer(one: &str, other: &str) -> bool {
    compare(one, other) == Ordering::Greater
}

pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let split = |text: &str| -> (Vec<u64>, Option<String>) {
        let text = text.split('+').next().unwrap_or_default();
        let (numbers, before) = text.split_once('-').map_or((text, None), |(n, before)| (n, Some(before.to_owned())));
        (numbers.split('.').map(|number| number.parse().unwrap_or(0)).collect(), before)
    };
    let ((one, one_before), (other, other_before)) = (split(one), split(other));
    let at = |numbers: &[u64], place: usize| numbers.get(place).copied().unwrap_or(0);
    let numbers = (0..one.len().max(other.len())).map(|place| at(&one, place).cmp(&at(&other, place)));
    numbers.fold(Ordering::Equal, Ordering::then).then_with(|| match (one_before, other_before) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => pieces(&one, &other),
    })
}

/// What comes before a release, piece by piece: numbers before words, fewer pieces before more.
fn pieces(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        let (a, b) = match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => (a, b),
        };
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// What a system and a processor are called in names of archives, by whatever people call them.
#[must_use]
pub fn platform(os: &str, arch: &str) -> (Option<&'static str>, Option<&'static str>) {
    let os = match os.to_ascii_lowercase().as_str() {
        "linux" => Some("linux"),
        "macos" | "darwin" | "mac" | "osx" => Some("macos"),
        _ => None,
    };
    let arch = match arch.to_ascii_lowercase().as_str() {
        "x64" | "x86_64" | "amd64" => Some("x64"),
        "arm64" | "aarch64" => Some("arm64"),
        _ => None,
    };
    (os, arch)
}

/// The computer that this runs on, where there may be archives for it.
#[must_use]
pub fn this_platform() -> Option<(&'static str, &'static str)> {
    let (os, arch) = platform(std::env::consts::OS, std::env::consts::ARCH);
    os.zip(arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_people_mean_them() {
        let ordered = ["0.1.0", "0.2.0-alpha", "0.2.0-rc.2", "0.2.0-rc.10", "0.2.0", "0.10.0", "1.0.0", "1.0.0.1"];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(is_newer(one, other), at > other_at, "{one} {other}");
            }
        }
        assert!(!is_newer("1.0.0+b", "1.0.0") && !is_newer("1.0", "1.0.0"));
        for bad in ["", "v1", "1/2", "1 2", "..", "1\n", "1'"] {
            assert!(!is_version(bad), "{bad:?}");
        }
        assert!(is_version("0.2.0-rc.1+5"));
    }
}
