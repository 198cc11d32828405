//! Whether a value is one of its field.

use serde_json::Value;

use super::fields::{Kind, is_secret};

/// Whether `value` is of this kind; what it has to be where it is not.
pub(super) fn check(kind: Kind, value: &Value) -> Result<(), String> {
    let is = |ok: bool, words: &str| if ok { Ok(()) } else { Err(words.to_owned()) };
    let text = value.as_str();
    match kind {
        Kind::Any => Ok(()),
        Kind::Text => is(text.is_some_and(|text| !text.contains('\0')), "a text"),
        Kind::Secret => is(text.is_some_and(|text| !text.chars().any(char::is_control)), "one line of text"),
        Kind::Flag => is(value.is_boolean(), "`true` or `false`"),
        Kind::Number(least, most) => {
            let words = format!("a whole number from {least} to {most}");
            is(value.as_u64().is_some_and(|number| (least..=most).contains(&number)), &words)
        }
        Kind::List => {
            let texts = value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
            is(texts, "a list of texts")
        }
        Kind::Choice(choices) => {
            is(text.is_some_and(|text| choices.contains(&text)), &format!("one of {}", choices.join(", ")))
        }
        // Whether it may be asked is decided where it is asked; here it has to be one at all.
        Kind::Url => is(text.is_some_and(|text| text.is_empty() || url_host(text).is_some()), "an `https` address"),
        Kind::Colour => is(text.is_some_and(is_colour), "a colour such as `#1f6feb`"),
        Kind::Length => is(text.is_some_and(is_length), "a length such as `8px`"),
        Kind::Font => is(text.is_some_and(is_font), "names of fonts"),
        Kind::Svg => is(text.is_some_and(is_harmless_svg), "an SVG without scripts, handlers and links to elsewhere"),
    }
}

/// The name of a secret inside a list: it could be neither masked and sent back, nor kept apart
/// from what is no secret.
pub(super) fn secret_in_list(value: &Value) -> Option<&str> {
    fn below(value: &Value, in_list: bool) -> Option<&str> {
        match value {
            Value::Array(items) => items.iter().find_map(|item| below(item, true)),
            Value::Object(map) => map.iter().find_map(|(name, value)| {
                if in_list && is_secret(name) { Some(name.as_str()) } else { below(value, in_list) }
            }),
            _ => None,
        }
    }
    below(value, false)
}

/// Whether `value` is one of the field at `key`; a key that is no field takes anything.
pub(crate) fn fits(key: &str, value: &Value) -> Result<(), String> {
    super::fields::FIELDS.iter().find(|field| field.key == key).map_or(Ok(()), |field| check(field.kind, value))
}

/// The host of an address of another server: scheme, no user, a name or address, maybe a port.
pub(super) fn url_host(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '\\' | '"' | '<' | '>');
    (!host.is_empty() && !text.contains(odd)).then_some(host)
}

fn is_colour(text: &str) -> bool {
    if let Some(hex) = text.strip_prefix('#') {
        return matches!(hex.len(), 3 | 4 | 6 | 8) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let name = (3..=30).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let call = ["rgb(", "rgba(", "hsl(", "hsla("].iter().find_map(|start| text.strip_prefix(start)?.strip_suffix(')'));
    name || call.is_some_and(|inner| {
        inner.len() <= 60 && inner.bytes().all(|b| b.is_ascii_digit() || matches!(b, b' ' | b',' | b'.' | b'%' | b'/'))
    })
}

fn is_length(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    let unit = &text[number.len()..];
    number.parse::<f64>().is_ok_and(|length| length.is_finite() && length.abs() <= 10_000.0)
        && (matches!(unit, "px" | "rem" | "em" | "%") || unit.is_empty() && number == "0")
}

fn is_font(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 300
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | ',' | '-' | '\'' | '"' | '_'))
}

fn is_harmless_svg(text: &str) -> bool {
    let lower = text.to_lowercase();
    let handler = lower.split(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '\'').any(|word| {
        word.strip_prefix("on")
            .and_then(|rest| rest.split_once('='))
            .is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic()))
    });
    let bad = [
        "<script",
        "<foreignobject",
        "<iframe",
        "<!entity",
        "<!doctype",
        "<style",
        "javascript:",
        "href",
        "url(",
        "<?",
        "&#",
    ];
    text.is_empty() || lower.trim_start().starts_with("<svg") && !handler && !bad.iter().any(|bad| lower.contains(bad))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_of_their_kind() {
        let good = [
            (Kind::Text, json!("")),
            (Kind::Flag, json!(false)),
            (Kind::Number(1, 3), json!(3)),
            (Kind::List, json!([])),
            (Kind::Choice(&["a"]), json!("a")),
            (Kind::Url, json!("https://a.example:8443/b?c")),
            (Kind::Url, json!("")),
            (Kind::Colour, json!("#fff")),
            (Kind::Colour, json!("rgb(1, 2, 3)")),
            (Kind::Colour, json!("tomato")),
            (Kind::Length, json!("0.5rem")),
            (Kind::Length, json!("0")),
            (Kind::Font, json!("Inter, 'Open Sans', sans-serif")),
            (Kind::Svg, json!("<svg viewBox=\"0 0 1 1\"><path d=\"M0 0\"/></svg>")),
            (Kind::Any, json!({"a": [1]})),
        ];
        for (kind, value) in good {
            assert_eq!(check(kind, &value), Ok(()), "{kind:?} {value}");
        }
        let bad = [
            (Kind::Text, json!(1)),
            (Kind::Secret, json!("a\nB=c")),
            (Kind::Flag, json!("false")),
            (Kind::Number(1, 3), json!(0)),
            (Kind::Number(1, 3), json!(4)),
            (Kind::Number(1, 3), json!(1.5)),
            (Kind::Number(1, 3), json!("2")),
            (Kind::List, json!(["a", 1])),
            (Kind::Choice(&["a"]), json!("b")),
            (Kind::Url, json!("file:///etc/passwd")),
            (Kind::Url, json!("https://a@b.example")),
            (Kind::Url, json!("https://")),
            (Kind::Colour, json!("red; background: url(x)")),
            (Kind::Colour, json!("#ggg")),
            (Kind::Length, json!("8px; x")),
            (Kind::Length, json!("8")),
            (Kind::Font, json!("a</style>")),
            (Kind::Svg, json!("<svg onload=alert(1)>")),
            (Kind::Svg, json!("<svg><script>1</script></svg>")),
            (Kind::Svg, json!("<svg><a xlink:href=\"https://x\"/></svg>")),
            (Kind::Svg, json!("<img src=x>")),
        ];
        for (kind, value) in bad {
            assert!(check(kind, &value).is_err(), "{kind:?} {value}");
        }
    }
}
