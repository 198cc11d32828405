//! From merged YAML and environment to typed values, each within its bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::load::{at, invalid};
use super::{AuthConfig, Config, ConfigError, IsolationMode, PROVIDERS};

/// Longest time that a key takes, seconds.
const CENTURY: u64 = 3_155_760_000;
/// Most mebibytes that a key takes: an exbibyte would not fit.
const MEBIBYTES: u64 = 1 << 40;
/// Most of anything that is counted one by one.
const MANY: u64 = 1_000_000;

/// Reads typed values; what cannot be read is said.
pub(super) struct Values<'a> {
    merged: &'a Value,
    file: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    warnings: &'a mut Vec<String>,
}

impl<'a> Values<'a> {
    pub(super) fn new(
        merged: &'a Value,
        file: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
        warnings: &'a mut Vec<String>,
    ) -> Self {
        Self { merged, file, env, warnings }
    }

    /// The value at `key`, null counting as none.
    fn at(&self, key: &str) -> Option<&Value> {
        at(self.merged, key).filter(|v| !v.is_null())
    }

    /// A number in `range`; anything else is said, and the default stays.
    fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let number: Option<f64> = match self.at(key)? {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            self.warnings.push(format!(
                "`{key}` in `{}` is not a number from {least} to {most}: the default is used",
                self.file
            ));
        }
        number
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole and in a range")]
    #[expect(clippy::cast_precision_loss, reason = "limits that people write")]
    fn whole(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.number(key, *range.start() as f64..=*range.end() as f64)?;
        if number.fract() != 0.0 {
            self.warnings.push(format!("`{key}` in `{}` is not a whole number: the default is used", self.file));
            return None;
        }
        Some(number as u64)
    }

    fn set<T: TryFrom<u64>>(&mut self, key: &str, range: RangeInclusive<u64>, target: &mut T) {
        if let Some(value) = self.whole(key, range).and_then(|n| T::try_from(n).ok()) {
            *target = value;
        }
    }

    fn seconds(&mut self, key: &str, least: u64, target: &mut Duration) {
        if let Some(value) = self.whole(key, least..=CENTURY) {
            *target = Duration::from_secs(value);
        }
    }

    fn mebibytes(&mut self, key: &str, range: RangeInclusive<u64>, target: &mut u64) {
        if let Some(value) = self.whole(key, range) {
            *target = value << 20;
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.at(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.trim().is_empty())),
            Some(_) => Err(invalid(self.file, key, "it is a text")),
        }
    }

    /// `true` or `false`, also as the text that a variable leaves behind.
    fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        match self.at(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(_) => Err(invalid(self.file, key, "it is `true` or `false`")),
        }
    }

    fn list(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let bad = || invalid(self.file, key, "it is a list of texts");
        match self.at(key) {
            None => Ok(None),
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

    /// A comma list, lower case.
    fn comma_list(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let text = self.text(key)?.unwrap_or_default();
        Ok(text.split(',').map(|item| item.trim().to_lowercase()).filter(|item| !item.is_empty()).collect())
    }

    fn auth(&mut self, auth: &mut AuthConfig) -> Result<(), ConfigError> {
        auth.allowed_domains = self.comma_list("auth.allowed_domain")?;
        auth.disabled_providers = self.list("auth.disabled_providers")?.unwrap_or_default();
        // A typo must not switch something back on.
        if auth.disabled_providers.iter().any(|name| !PROVIDERS.contains(&name.as_str())) {
            let known = format!("its entries are among {}", PROVIDERS.join(", "));
            return Err(invalid(self.file, "auth.disabled_providers", &known));
        }
        auth.magic_link_one_click = self.flag("auth.magic_link_one_click")?;
        auth.reveal_provider = self.flag("auth.reveal_provider")?;
        if let Some(issuer) = self.text("desktop.jwt_issuer")? {
            auth.desktop_issuer = issuer;
        }
        if let Some(scheme) = self.text("desktop.url_scheme")? {
            auth.desktop_url_scheme = scheme;
        }
        Ok(())
    }

    /// Every section that the engine uses.
    pub(super) fn config(&mut self) -> Result<Config, ConfigError> {
        let mut config = Config { instance_name: self.text("instance.name")?, ..Config::default() };

        let query = &mut config.query;
        self.set("query.max_sql_bytes", 1 << 10..=1 << 20, &mut query.max_sql_bytes);
        self.seconds("query.timeout_seconds", 1, &mut query.timeout);
        self.mebibytes("query.memory_mb", 64..=MEBIBYTES, &mut query.memory_bytes);
        self.mebibytes("query.spill_mb", 0..=MEBIBYTES, &mut query.spill_bytes);
        self.set("query.threads", 1..=256, &mut query.threads);
        self.set("query.max_per_user", 1..=MANY, &mut query.max_per_user);
        self.set("query.max_total", 1..=MANY, &mut query.max_total);
        self.seconds("query.wait_seconds", 0, &mut query.wait);
        self.set("query.instances", 1..=MANY, &mut query.instances);
        query.isolation = match self.text("query.isolation")?.as_deref() {
            None | Some("auto") => IsolationMode::Auto,
            Some("process") => IsolationMode::Process,
            Some("in_process") => IsolationMode::InProcess,
            Some(_) => return Err(invalid(self.file, "query.isolation", "it is `auto`, `process` or `in_process`")),
        };
        query.strict = self.flag("query.strict")?;

        let attach = &mut config.attach;
        attach.extensions = self.env_list("AGNES_REMOTE_ATTACH_EXTENSIONS").or(self.list("remote_attach.extensions")?);
        attach.token_envs = self.env_list("AGNES_REMOTE_ATTACH_TOKEN_ENVS").or(self.list("remote_attach.token_envs")?);
        let hosts = self.env_list("AGNES_REMOTE_ATTACH_HOST_ALLOWLIST").or(self.list("remote_attach.hosts")?);
        attach.hosts = hosts.unwrap_or_default();
        attach.database_hosts = self.list("remote_attach.database_hosts")?.unwrap_or_default();
        attach.sqlite_folders =
            self.list("remote_attach.sqlite_folders")?.unwrap_or_default().into_iter().map(PathBuf::from).collect();
        attach.extension_folder = self.text("remote_attach.extension_folder")?.map(PathBuf::from);
        attach.allow_install = self.flag("remote_attach.allow_install")?;

        self.seconds("sync.table_timeout_seconds", 1, &mut config.sync.table_timeout);
        const TIMEOUT: &str = "AGNES_EXTRACTOR_TIMEOUT_SEC";
        if let Some(text) = (self.env)(TIMEOUT).filter(|text| !text.trim().is_empty()) {
            match text.trim().parse() {
                Ok(seconds @ 1..=CENTURY) => config.sync.table_timeout = Duration::from_secs(seconds),
                _ => self.warnings.push(format!("`{TIMEOUT}` is not a number of seconds: it is ignored")),
            }
        }
        self.set("sync.attempts", 1..=100, &mut config.sync.attempts);
        self.set("sync.parallel_sources", 1..=256, &mut config.sync.parallel_sources);

        let policy = &mut config.policy;
        self.mebibytes("policy.slice_max_mb", 1..=MEBIBYTES, &mut policy.slice_max_bytes);
        self.seconds("policy.slice_timeout_seconds", 1, &mut policy.slice_timeout);
        if let Some(hours) = self.whole("policy.receipt_lease_hours", 0..=876_000) {
            policy.receipt_lease = Duration::from_secs(hours * 3600);
        }

        self.set("generations.keep", 1..=MANY, &mut config.generations.keep);
        if let Some(days) = self.whole("generations.max_age_days", 0..=36_500) {
            config.generations.max_age = Duration::from_secs(days * 86_400);
        }

        let profiler = &mut config.profiler;
        self.set("profiler.sample_size", 1..=1_000_000_000, &mut profiler.sample_size);
        self.set("profiler.max_categorical_distinct", 0..=MANY, &mut profiler.max_categorical_distinct);
        self.set("profiler.top_values_limit", 0..=1000, &mut profiler.top_values_limit);
        self.set("profiler.histogram_bins", 1..=100, &mut profiler.histogram_bins);
        self.set("profiler.sample_rows_limit", 0..=100, &mut profiler.sample_rows_limit);
        self.set("profiler.sample_values_limit", 0..=100, &mut profiler.sample_values_limit);
        self.set("profiler.alert_high_cardinality", 0..=1_000_000_000, &mut profiler.alert_high_cardinality);
        for (key, target) in [
            ("profiler.alert_high_missing_pct", &mut profiler.alert_high_missing_pct),
            ("profiler.alert_missing_pct", &mut profiler.alert_missing_pct),
            ("profiler.alert_imbalance_pct", &mut profiler.alert_imbalance_pct),
        ] {
            if let Some(value) = self.number(key, 0.0..=100.0) {
                *target = value;
            }
        }
        self.mebibytes("profiler.memory_mb", 64..=4096, &mut profiler.memory_bytes);

        self.seconds("remote_query.timeout_seconds", 1, &mut config.remote_query.timeout);
        self.set("remote_query.max_bq_registration_rows", 1..=1_000_000_000_000, &mut config.remote_query.max_rows);
        self.mebibytes("remote_query.max_memory_mb", 1..=MEBIBYTES, &mut config.remote_query.max_bytes);
        self.seconds("api.sample_cache_ttl_seconds", 0, &mut config.cache.sample);
        self.auth(&mut config.auth)?;
        let requests = &mut config.access_requests;
        requests.enabled = self.at("access_requests.enabled").is_none() || self.flag("access_requests.enabled")?;
        requests.show_locked = self.flag("access_requests.show_locked")?;
        self.set("audit.retention_days", 0..=36_500, &mut config.audit_retention_days);
        Ok(config)
    }
}
