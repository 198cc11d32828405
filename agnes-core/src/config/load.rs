//! Reads `instance.yaml`, its overlay and the environment into a [`Config`].

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::values::Values;
use super::{Config, ConfigError, keys};
use crate::error::Result;

/// Where a configuration comes from.
pub struct LoadOptions<'a> {
    /// `instance.yaml`; a missing file means defaults.
    pub file: Option<PathBuf>,
    /// The overlay; a missing file means none.
    pub overlay: Option<PathBuf>,
    /// Reads one environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Turns unset variables and unknown keys into warnings.
    pub lenient: bool,
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions").field("file", &self.file).field("overlay", &self.overlay).finish_non_exhaustive()
    }
}

/// A configuration with what should be said about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One sentence each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Loads the configuration. Blocks.
    ///
    /// # Errors
    /// [`ConfigError`], naming file and key.
    pub fn load(options: &LoadOptions<'_>) -> Result<Loaded> {
        Ok(Layers::read(options.file.as_deref(), options.overlay.as_deref())?.assemble(options)?)
    }
}

/// What the files hold, before variables are replaced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers {
    file: Option<Layer>,
    overlay: Option<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    name: String,
    value: Value,
}

impl Layers {
    /// Reads the files that are there. Blocks.
    pub(crate) fn read(file: Option<&Path>, overlay: Option<&Path>) -> Result<Self, ConfigError> {
        let layer = |path: Option<&Path>| path.map_or(Ok(None), Layer::read);
        Ok(Self { file: layer(file)?, overlay: layer(overlay)? })
    }

    /// The overlay, an object.
    pub(crate) fn overlay(&self) -> Value {
        self.overlay.as_ref().map_or_else(|| Value::Object(Map::new()), |layer| layer.value.clone())
    }

    /// Whether the file below the overlay has a value for `key`.
    pub(crate) fn is_in_file(&self, key: &str) -> bool {
        self.file.as_ref().and_then(|layer| at(&layer.value, key)).is_some_and(|value| !value.is_null())
    }

    /// The same with another overlay.
    pub(crate) fn with_overlay(&self, value: Value) -> Self {
        let name = self.overlay.as_ref().map_or_else(|| "instance.yaml".to_owned(), |layer| layer.name.clone());
        Self { file: self.file.clone(), overlay: Some(Layer { name, value }) }
    }

    /// What is set, variables as they are written.
    pub(crate) fn merged(&self) -> Value {
        let mut merged = Value::Object(Map::new());
        for layer in [&self.file, &self.overlay].into_iter().flatten() {
            merge(&mut merged, layer.value.clone());
        }
        merged
    }

    /// The configuration that they and the environment make.
    pub(crate) fn assemble(&self, options: &LoadOptions<'_>) -> Result<Loaded, ConfigError> {
        let mut warnings = Vec::new();
        let mut merged = Value::Object(Map::new());
        for layer in [&self.file, &self.overlay].into_iter().flatten() {
            let mut value = layer.value.clone();
            expand(&mut value, &layer.name, "", options, &mut warnings)?;
            check_keys(&value, &layer.name, "", options.lenient, &mut warnings)?;
            merge(&mut merged, value);
        }
        let file = self.file.as_ref().map_or_else(|| "instance.yaml".to_owned(), |layer| layer.name.clone());
        if self.file.is_some() {
            let missing: Vec<String> =
                keys::REQUIRED.iter().filter(|key| is_blank(at(&merged, key))).map(|key| format!("`{key}`")).collect();
            if !missing.is_empty() {
                return Err(ConfigError::Missing { keys: missing });
            }
            if at(&merged, "config_version").and_then(Value::as_i64) != Some(1) {
                warnings.push(format!("`config_version` in `{file}` is not 1: it is read as version 1"));
            }
        }
        for (variable, key) in keys::OVERRIDES {
            if let Some(text) = (options.env)(variable).filter(|text| !text.trim().is_empty()) {
                set(&mut merged, key, Value::String(text));
            }
        }
        let mut values = Values::new(&merged, &file, options.env, &mut warnings);
        let config = values.config()?;
        Ok(Loaded { config, warnings })
    }
}

impl Layer {
    /// Nothing where there is no file, or nothing in it.
    fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let Some(text) = read(path)? else { return Ok(None) };
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let value: Value = match text.trim() {
            "" => Value::Null,
            _ => serde_saphyr::from_str(&text)
                .map_err(|e| ConfigError::NotYaml { file: name.clone(), reason: first_line(&e.to_string()) })?,
        };
        match value {
            Value::Null => Ok(None),
            Value::Object(_) => Ok(Some(Self { name, value })),
            _ => Err(ConfigError::NotYaml { file: name, reason: "it is not a map of sections".to_owned() }),
        }
    }
}

/// Puts a value at a dotted key; what is no section on the way becomes one.
pub(crate) fn set(root: &mut Value, key: &str, value: Value) {
    let mut place = root;
    for name in key.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(map) = place else { return };
        place = map.entry(name).or_insert(Value::Null);
    }
    *place = value;
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ConfigError::Unreadable {
            file: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            reason: e.kind().to_string(),
        }),
    }
}

fn is_blank(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.trim().is_empty(),
        Some(_) => false,
    }
}

pub(crate) fn at<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(value, |value, name| value.get(name))
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// Maps merge; scalars and lists replace.
fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                merge(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` in every text; `$${` stays as `${`.
fn expand(
    value: &mut Value,
    file: &str,
    key: &str,
    options: &LoadOptions<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    match value {
        Value::Object(map) => {
            map.iter_mut().try_for_each(|(name, v)| expand(v, file, &join(key, name), options, warnings))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|v| expand(v, file, key, options, warnings)),
        Value::String(text) if text.contains("${") => {
            let mut out = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some(start) = rest.find("${") {
                let (before, from) = rest.split_at(start);
                if let Some(literal) = before.strip_suffix('$') {
                    out.push_str(literal);
                    out.push_str("${");
                    rest = &from[2..];
                    continue;
                }
                out.push_str(before);
                let end = from
                    .find('}')
                    .ok_or_else(|| ConfigError::OpenVariable { file: file.to_owned(), key: key.to_owned() })?;
                let (name, default) = match from[2..end].split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (&from[2..end], None),
                };
                let set = (options.env)(name).filter(|v| !(default.is_some() && v.is_empty()));
                match (set, default) {
                    (Some(set), _) => out.push_str(&set),
                    (None, Some(default)) => out.push_str(default),
                    (None, None) if options.lenient => {
                        warnings.push(format!("`{key}` in `{file}` uses the variable `{name}`, which is not set"));
                    }
                    (None, None) => {
                        return Err(ConfigError::UnsetVariable {
                            file: file.to_owned(),
                            key: key.to_owned(),
                            variable: crate::ident::printable(name, 64),
                        });
                    }
                }
                rest = &from[end + 1..];
            }
            out.push_str(rest);
            *text = out;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_keys(
    value: &Value,
    file: &str,
    section: &str,
    lenient: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Ok(()),
        _ => return Err(invalid(file, section, "it is a section: its keys go below it")),
    };
    for (name, below) in map {
        let key = join(section, name);
        if !keys::is_known(&key) {
            let error = ConfigError::UnknownKey {
                file: file.to_owned(),
                key: crate::ident::printable(&key, 120),
                suggestion: keys::nearest(&key),
            };
            if !lenient {
                return Err(error);
            }
            warnings.push(error.to_string());
        } else if keys::is_section(&key) {
            check_keys(below, file, &key, lenient, warnings)?;
        }
    }
    Ok(())
}

pub(super) fn invalid(file: &str, key: &str, reason: &str) -> ConfigError {
    ConfigError::InvalidValue { file: file.to_owned(), key: key.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "tests.rs"]
mod tests;
