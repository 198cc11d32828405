//! Renders a template that somebody wrote.

use std::io::{Error as IoError, Write};

use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;

use super::TemplateError;
use crate::duck::blocking;
use crate::error::Result;

/// Steps of one rendering.
const FUEL: u64 = 500_000;
/// Longest text that comes out, bytes.
const LONGEST: usize = 1 << 20;

/// A text that may become only so long.
struct Short(Vec<u8>);

impl Write for Short {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(IoError::other("the text gets too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether a template computes texts, where it has to put values in and no more: a text that is
/// repeated or doubled takes memory before its length can be looked at.
fn computes(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let tag = &rest[at + 1..];
        let end = match tag.as_bytes().first() {
            Some(b'#') => tag[1..].find("#}").map(|end| end + 3),
            Some(b'{' | b'%') => {
                let length = tag_length(&tag[1..]);
                let inside = &tag[1..=length];
                let mut words = inside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                if inside.contains(['*', '~', '+']) || words.any(|word| matches!(word, "set" | "raw")) {
                    return true;
                }
                Some(1 + length)
            }
            _ => Some(0),
        };
        let Some(end) = end else { return false };
        rest = &tag[end..];
    }
    false
}

/// How long what is in a tag is: to its end outside of quotes, else to the end of the text.
fn tag_length(text: &str) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'}' | b'%') if text.as_bytes().get(at + 1) == Some(&b'}') => return at,
            _ => {}
        }
    }
    text.len()
}

/// What a template becomes with these values.
///
/// # Errors
/// `template_invalid`: it cannot be read, names what is not there, does not end, gets too long.
pub(super) async fn render(content: &str, values: Value) -> Result<String> {
    let content = content.to_owned();
    blocking(move || render_now(&content, &values)).await
}

/// The same. Blocks.
pub(crate) fn render_now(content: &str, values: &Value) -> Result<String> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // Of what templates come with, what cannot grow a text by itself.
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("trim", minijinja::filters::trim);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("default", minijinja::filters::default);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    let invalid = |error: minijinja::Error| {
        let line = error.line().unwrap_or(0);
        let words =
            error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
        TemplateError::Invalid { line, message: crate::ident::printable(&words, 200) }
    };
    if computes(content) {
        let message = "it puts values in, and computes nothing: no `*`, `+`, `~`, `set`, `raw`".to_owned();
        return Err(TemplateError::Invalid { line: 0, message }.into());
    }
    let template = environment.template_from_str(content).map_err(invalid)?;
    let mut text = Short(Vec::new());
    template.render_captured_to(values, &mut text).map_err(invalid)?;
    Ok(String::from_utf8_lossy(&text.0).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::TemplateKey;
    use super::*;

    #[tokio::test]
    async fn a_template_sees_its_values_and_ends() {
        let values = json!({
            "instance": {"name": "Acme"}, "user": null, "tables": [{"name": "a"}, {"name": "b"}],
        });
        let of = |text: &'static str| render(text, values.clone());
        let text =
            "{{ instance.name }}{% for t in tables %} {{ t.name | upper }}{% endfor %}{% if user %}!{% endif %}\n";
        // A tag alone at the end of a line takes the line end with it.
        assert_eq!(of(text).await.unwrap(), "Acme A B");
        assert_eq!(of("{token} {server_url}").await.unwrap(), "{token} {server_url}");
        assert_eq!(of("2 * 3 {# a set of + #} {").await.unwrap(), "2 * 3  {");
        for bad in [
            "{{ nothing }}",
            "{{ instance.nothing.more }}",
            "{{ user.email }}",
            "{% include 'x' %}",
            "{% extends 'x' %}",
            "{{ range(9) }}",
            "{{ debug() }}",
            "{{ instance",
            "{% for a in tables %}",
            "{{ 'x' * 99999999999 }}",
            "{{ '}}' * 99999999999 }}",
            "{# {{ ' #}{{ '}}' * 99999999999 }}",
            "{#} {{ ' #}{{ '}}' * 99999999999 }}",
            "{% raw %} {{ ' {% endraw %}{{ '}}' * 99999999999 }}",
            "{{ '\\'' * 99999999999 }}",
            "{%- set x = 'aa' %}{% set x = x ~ x %}{{ x }}",
            "{% for a in tables %}{% for b in tables %}{{ a.__class__ }}{% endfor %}{% endfor %}",
        ] {
            let told = of(bad).await.unwrap_err();
            assert_eq!(told.code(), "template_invalid", "{bad}: {told}");
        }
        let long = Box::leak(format!("{{% for a in tables %}}{}{{% endfor %}}", "x".repeat(700_000)).into_boxed_str());
        assert_eq!(of(long).await.unwrap_err().code(), "template_invalid");
        let deep = "{% for a in tables %}".repeat(40) + "x" + &"{% endfor %}".repeat(40);
        assert_eq!(of(Box::leak(deep.into_boxed_str())).await.unwrap_err().code(), "template_invalid");
        let line = of("a\nb\n{{ nothing }}").await.unwrap_err();
        assert_eq!(line.facts().unwrap()["line"], 3);
    }

    #[tokio::test]
    async fn defaults_render_for_everybody() {
        for user in [Value::Null, json!({"email": "ann@example.com", "name": null, "groups": []})] {
            let values = json!({
                "instance": {"name": "Acme", "subtitle": ""}, "user": user, "tables": [{"name": "orders", "description": "", "query_mode": "local"}],
                "server": {"url": "https://a", "hostname": "a", "offers_cli": true, "authority": []}, "today": "2026-01-01", "now": "",
            });
            let guide = render(TemplateKey::Workspace.default_text(), values.clone()).await.unwrap();
            assert!(guide.contains("https://a") && guide.contains("orders") && !guide.contains("{{"), "{guide}");
            let prompt = render(TemplateKey::SetupPrompt.default_text(), values).await.unwrap();
            assert!(prompt.contains("{token}") && prompt.contains("{server_url}/cli/install.sh"), "{prompt}");
        }
    }
}
