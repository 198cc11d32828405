//! Reads `instance.yaml`, its overlay and the environment into a [`Config`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

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
        let mut warnings = Vec::new();
        let mut merged = Value::Object(Map::new());
        let mut present = None;
        for path in [&options.file, &options.overlay].into_iter().flatten() {
            let Some(text) = read(path)? else { continue };
            let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let mut value: Value = match text.trim() {
                "" => Value::Null,
                _ => serde_saphyr::from_str(&text)
                    .map_err(|e| ConfigError::NotYaml { file: file.clone(), reason: first_line(&e.to_string()) })?,
            };
            match &value {
                Value::Null => continue,
                Value::Object(_) => {}
                _ => return Err(ConfigError::NotYaml { file, reason: "it is not a map of sections".to_owned() }.into()),
            }
            expand(&mut value, &file, "", options, &mut warnings)?;
            check_keys(&value, &file, "", options.lenient, &mut warnings)?;
            merge(&mut merged, value);
            if Some(path) == options.file.as_ref() {
                present = Some(file);
            }
        }
        let file = present.clone().unwrap_or_else(|| "instance.yaml".to_owned());
        if present.is_some() {
            let missing: Vec<String> =
                keys::REQUIRED.iter().filter(|key| is_blank(at(&merged, key))).map(|key| format!("`{key}`")).collect();
            if !missing.is_empty() {
                return Err(ConfigError::Missing { keys: missing }.into());
            }
            if at(&merged, "config_version").and_then(Value::as_i64) != Some(1) {
                warnings.push(format!("`config_version` in `{file}` is not 1: it is read as version 1"));
            }
        }
        let mut values = Values { merged: &merged, file: &file, env: options.env, warnings: &mut warnings };
        let config = values.config()?;
        Ok(Loaded { config, warnings })
    }
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

fn at<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
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
    let Value::Object(map) = value else { return Ok(()) };
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

struct Values<'a> {
    merged: &'a Value,
    file: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    warnings: &'a mut Vec<String>,
}

impl Values<'_> {
    fn number(&mut self, key: &str) -> Option<f64> {
        let value = at(self.merged, key).filter(|v| !v.is_null())?;
        let number = match value {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if number.is_none_or(|n: f64| !n.is_finite() || n < 0.0) {
            self.warnings.push(format!("`{key}` in `{}` is not a number of 0 or more: the default is used", self.file));
            return None;
        }
        number
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite and not negative; saturates"
    )]
    fn whole(&mut self, key: &str) -> Option<u64> {
        self.number(key).map(|n| n as u64)
    }

    fn set<T: TryFrom<u64>>(&mut self, key: &str, target: &mut T) {
        if let Some(value) = self.whole(key).and_then(|n| T::try_from(n).ok()) {
            *target = value;
        }
    }

    fn seconds(&mut self, key: &str, target: &mut Duration) {
        if let Some(value) = self.whole(key) {
            *target = Duration::from_secs(value);
        }
    }

    fn mebibytes(&mut self, key: &str, target: &mut u64) {
        if let Some(value) = self.whole(key) {
            *target = value.saturating_mul(1 << 20);
        }
    }

    fn list(&mut self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let bad = || ConfigError::InvalidValue {
            file: self.file.to_owned(),
            key: key.to_owned(),
            reason: "it is a list of texts".to_owned(),
        };
        match at(self.merged, key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(items)) => {
                items.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(bad)).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(bad()),
        }
    }

    /// A comma list of the environment; blank counts as unset.
    fn env_list(&self, name: &str) -> Option<Vec<String>> {
        let text = (self.env)(name)?;
        let items: Vec<String> = text.split(',').map(|i| i.trim().to_owned()).filter(|i| !i.is_empty()).collect();
        (!items.is_empty()).then_some(items)
    }

    fn config(&mut self) -> Result<Config, ConfigError> {
        let instance_name = at(self.merged, "instance.name").and_then(Value::as_str).map(str::to_owned);
        let mut config = Config { instance_name, ..Config::default() };

        let query = &mut config.query;
        self.seconds("query.timeout_seconds", &mut query.timeout);
        self.mebibytes("query.memory_mb", &mut query.memory_bytes);
        self.mebibytes("query.spill_mb", &mut query.spill_bytes);
        self.set("query.threads", &mut query.threads);
        self.set("query.max_per_user", &mut query.max_per_user);
        self.set("query.max_total", &mut query.max_total);
        self.seconds("query.wait_seconds", &mut query.wait);
        self.set("query.instances", &mut query.instances);
        query.threads = query.threads.clamp(1, 256);
        query.instances = query.instances.max(1);

        let attach = &mut config.attach;
        attach.extensions = self.env_list("AGNES_REMOTE_ATTACH_EXTENSIONS").or(self.list("remote_attach.extensions")?);
        attach.token_envs = self.env_list("AGNES_REMOTE_ATTACH_TOKEN_ENVS").or(self.list("remote_attach.token_envs")?);
        let hosts = self.env_list("AGNES_REMOTE_ATTACH_HOST_ALLOWLIST").or(self.list("remote_attach.hosts")?);
        attach.hosts = hosts.unwrap_or_default();
        attach.database_hosts = self.list("remote_attach.database_hosts")?.unwrap_or_default();
        attach.sqlite_folders =
            self.list("remote_attach.sqlite_folders")?.unwrap_or_default().into_iter().map(PathBuf::from).collect();
        attach.extension_folder =
            at(self.merged, "remote_attach.extension_folder").and_then(Value::as_str).map(PathBuf::from);
        attach.allow_install = at(self.merged, "remote_attach.allow_install").and_then(Value::as_bool).unwrap_or(false);

        self.seconds("sync.table_timeout_seconds", &mut config.sync.table_timeout);
        if let Some(seconds) = (self.env)("AGNES_EXTRACTOR_TIMEOUT_SEC").and_then(|t| t.trim().parse().ok()) {
            config.sync.table_timeout = Duration::from_secs(seconds);
        }
        self.set("sync.attempts", &mut config.sync.attempts);
        self.set("sync.parallel_sources", &mut config.sync.parallel_sources);

        self.set("generations.keep", &mut config.generations.keep);
        if let Some(days) = self.whole("generations.max_age_days") {
            config.generations.max_age = Duration::from_secs(days.saturating_mul(86_400));
        }

        let profiler = &mut config.profiler;
        self.set("profiler.sample_size", &mut profiler.sample_size);
        self.set("profiler.max_categorical_distinct", &mut profiler.max_categorical_distinct);
        self.set("profiler.top_values_limit", &mut profiler.top_values_limit);
        self.set("profiler.histogram_bins", &mut profiler.histogram_bins);
        self.set("profiler.sample_rows_limit", &mut profiler.sample_rows_limit);
        self.set("profiler.sample_values_limit", &mut profiler.sample_values_limit);
        self.set("profiler.alert_high_cardinality", &mut profiler.alert_high_cardinality);
        for (key, target) in [
            ("profiler.alert_high_missing_pct", &mut profiler.alert_high_missing_pct),
            ("profiler.alert_missing_pct", &mut profiler.alert_missing_pct),
            ("profiler.alert_imbalance_pct", &mut profiler.alert_imbalance_pct),
        ] {
            if let Some(value) = self.number(key) {
                *target = value;
            }
        }
        self.mebibytes("profiler.memory_mb", &mut profiler.memory_bytes);
        profiler.memory_bytes = profiler.memory_bytes.clamp(64 << 20, 4 << 30);
        profiler.histogram_bins = profiler.histogram_bins.clamp(1, 100);
        profiler.sample_size = profiler.sample_size.max(1);

        self.seconds("remote_query.timeout_seconds", &mut config.remote_query.timeout);
        self.set("remote_query.max_bq_registration_rows", &mut config.remote_query.max_rows);
        self.mebibytes("remote_query.max_memory_mb", &mut config.remote_query.max_bytes);
        self.seconds("api.sample_cache_ttl_seconds", &mut config.cache.sample);
        self.set("audit.retention_days", &mut config.audit_retention_days);
        Ok(config)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEAD: &str = "config_version: 1\ninstance: {name: Acme}\nauth: {allowed_domain: acme.example}\nserver: {host: 127.0.0.1, hostname: agnes.acme.example}\n";

    fn load(file: &str, overlay: &str, lenient: bool) -> Result<Loaded> {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("instance.yaml"), folder.path().join("overlay.yaml"));
        std::fs::write(&a, file).unwrap();
        std::fs::write(&b, overlay).unwrap();
        let env = |name: &str| match name {
            "SET" => Some("42".to_owned()),
            "EMPTY" => Some(String::new()),
            "AGNES_REMOTE_ATTACH_EXTENSIONS" => Some("postgres, sqlite".to_owned()),
            _ => None,
        };
        Config::load(&LoadOptions { file: Some(a), overlay: Some(b), env: &env, lenient })
    }

    fn code(file: &str) -> (String, String, Option<String>) {
        let error = load(file, "", false).unwrap_err();
        (error.code().to_owned(), error.to_string(), error.hint())
    }

    #[test]
    fn no_file_means_defaults() {
        let loaded = Config::load(&LoadOptions {
            file: Some("/nowhere/instance.yaml".into()),
            overlay: None,
            env: &|_| None,
            lenient: false,
        });
        assert_eq!(loaded.unwrap().config.query, Config::default().query);
    }

    #[test]
    fn values_variables_and_overlay() {
        let file = format!(
            "{HEAD}query: {{timeout_seconds: '${{SET}}', threads: '${{UNSET:-3}}'}}\nremote_attach: {{hosts: [a.example, b.example]}}\n"
        );
        let overlay =
            "query: {timeout_seconds: 7}\nremote_attach: {hosts: [c.example]}\ninstance: {subtitle: 'a $${literal}'}\n";
        let config = load(&file, overlay, false).unwrap().config;
        assert_eq!((config.query.timeout.as_secs(), config.query.threads), (7, 3));
        assert_eq!(config.attach.hosts, ["c.example"]);
        assert_eq!(config.attach.extensions.unwrap(), ["postgres", "sqlite"]);
        assert_eq!(config.instance_name.as_deref(), Some("Acme"));
    }

    #[test]
    fn errors_name_file_key_and_variable() {
        let (unset, words, hint) = code(&format!("{HEAD}jira: {{api_token: '${{JIRA_TOKEN}}'}}\n"));
        assert_eq!(unset, "config_unset_variable");
        assert!(
            words.contains("instance.yaml") && words.contains("jira.api_token") && words.contains("JIRA_TOKEN"),
            "{words}"
        );
        assert!(hint.unwrap().contains(":-"));
        let (unknown, words, hint) = code(&format!("{HEAD}query: {{timeout_secs: 3}}\n"));
        assert_eq!(unknown, "config_unknown_key");
        assert!(words.contains("query.timeout_secs"), "{words}");
        assert_eq!(hint.unwrap(), "did you mean `query.timeout_seconds`?");
        let (unknown, _, hint) = code(&format!("{HEAD}querry: {{timeout_seconds: 3}}\n"));
        assert_eq!((unknown.as_str(), hint.unwrap().as_str()), ("config_unknown_key", "did you mean `query`?"));
        assert_eq!(code("a: [1\n").0, "config_not_yaml");
        assert_eq!(code("- a\n").0, "config_not_yaml");
        assert_eq!(code(&format!("{HEAD}remote_attach: {{hosts: 3}}\n")).0, "config_invalid_value");
        assert_eq!(code(&format!("{HEAD}instance: {{name: '${{A'}}\n")).0, "config_not_yaml", "a key twice");
        let (missing, words, _) = code("instance: {name: Acme}\n");
        assert_eq!(missing, "config_missing_keys");
        assert!(
            words.contains("auth.allowed_domain") && words.contains("server.host") && !words.contains("instance.name"),
            "{words}"
        );
    }

    #[test]
    fn lenient_turns_errors_into_warnings() {
        let file = format!("{HEAD}query: {{timeout_secs: 3, threads: many}}\njira: {{api_token: '${{JIRA_TOKEN}}'}}\n");
        let loaded = load(&file, "", true).unwrap();
        assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
        assert_eq!(loaded.config.query.threads, 2);
    }
}
