//! From merged YAML and environment to typed values, each within its bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::load::{at, invalid};
use super::site::local_path;
use super::{
    AuthConfig, BigQueryDefaults, Config, ConfigError, DataSourceConfig, DevConfig, EmailConfig, IsolationMode,
    PROVIDERS, SiteConfig, SmtpTls,
};
use crate::secret::Secret;

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
    pub(super) fn env_list(&self, name: &str) -> Option<Vec<String>> {
        let text = (self.env)(name)?;
        let items: Vec<String> = text.split(',').map(|i| i.trim().to_owned()).filter(|i| !i.is_empty()).collect();
        (!items.is_empty()).then_some(items)
    }

    /// The file that messages name.
    pub(super) fn file(&self) -> &'a str {
        self.file
    }

    /// A variable; blank counts as unset.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A variable, else a key; blank counts as unset.
    pub(super) fn env_or(&self, name: &str, key: &str) -> Result<Option<String>, ConfigError> {
        self.variable(name).map_or_else(|| self.text(key), |set| Ok(Some(set)))
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
        auth.directory_lifecycle = match self.text("auth.sso_lifecycle")?.as_deref() {
            None | Some("local") => false,
            Some("directory") => true,
            Some(_) => return Err(invalid(self.file, "auth.sso_lifecycle", "it is `local` or `directory`")),
        };
        if let Some(issuer) = self.text("desktop.jwt_issuer")? {
            auth.desktop_issuer = issuer;
        }
        if let Some(scheme) = self.text("desktop.url_scheme")? {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
            // What a browser runs itself is no application.
            if !scheme.bytes().all(plain) || ["javascript", "data", "file", "http", "https"].contains(&scheme.as_str())
            {
                let how = "it is the scheme of an application's own links: lower case letters, digits, `+`, `-`, `.`";
                return Err(invalid(self.file, "desktop.url_scheme", how));
            }
            auth.desktop_url_scheme = scheme;
        }
        Ok(())
    }

    /// What pages look like. What is no colour, length, font or harmless picture is left out: it
    /// would go into every page.
    fn looks(&mut self, site: &mut SiteConfig) -> Result<(), ConfigError> {
        let logo = self.env_or("AGNES_INSTANCE_LOGO_SVG", "instance.logo_svg")?;
        let mut wanted: Vec<(String, Value)> =
            logo.map(|svg| ("instance.logo_svg".to_owned(), svg.into())).into_iter().collect();
        if let Some(Value::Object(theme)) = self.at("theme") {
            wanted.extend(theme.iter().map(|(name, value)| (format!("theme.{name}"), value.clone())));
        }
        for (key, value) in wanted {
            let text = value.as_str().map(str::trim).unwrap_or_default();
            if value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty()) {
                continue;
            }
            match (crate::settings::fits(&key, &value), key.strip_prefix("theme.")) {
                (Ok(()), Some(name)) => drop(site.theme.insert(name.to_owned(), text.to_owned())),
                (Ok(()), None) => site.logo_svg = Some(text.to_owned()),
                (Err(wanted), _) => {
                    self.warnings.push(format!("`{key}` in `{}` is not {wanted}: it is left out", self.file))
                }
            }
        }
        Ok(())
    }

    fn site(&mut self, site: &mut SiteConfig) -> Result<(), ConfigError> {
        let brand = self.env_or("AGNES_INSTANCE_BRAND", "instance.brand")?;
        if let Some(product) = brand.or(self.text("instance.name")?) {
            site.product = crate::ident::printable(&product, 80);
        }
        site.subtitle = self.text("instance.subtitle")?;
        self.looks(site)?;
        if let Some(route) = self.env_or("AGNES_HOME_ROUTE", "instance.home_route")? {
            match local_path(&route) {
                Some(route) => site.home_route = route.to_owned(),
                None => {
                    self.warnings.push("the home route is not a path of this server: the default is used".to_owned())
                }
            }
        }
        let set = |name: &str| (self.env)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let plain = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        site.domain = set("DOMAIN").map(|domain| domain.to_ascii_lowercase());
        if site.domain.as_deref().is_some_and(|domain| !plain(domain)) {
            return Err(invalid("the environment", "DOMAIN", "it is the name of a host"));
        }
        site.server_url = set("SERVER_URL").map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = &site.server_url {
            let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            if !host.is_some_and(|host| !host.is_empty() && plain(host)) {
                let how = "it is `https://` and the name of a host, without a path";
                return Err(invalid("the environment", "SERVER_URL", how));
            }
        }
        Ok(())
    }

    fn email(&mut self, email: &mut EmailConfig) -> Result<(), ConfigError> {
        let secret = |text: Option<String>| text.map(Secret::new);
        email.sendgrid_key = secret(self.env_or("SENDGRID_API_KEY", "email.sendgrid_api_key")?);
        let sender = if email.sendgrid_key.is_some() { "EMAIL_FROM_ADDRESS" } else { "SMTP_FROM" };
        email.from = self.env_or(sender, "email.from_address")?;
        email.from_name = self.text("email.from_name")?;
        email.smtp_host = self.env_or("SMTP_HOST", "email.smtp_host")?;
        email.smtp_port = match self.env_or("SMTP_PORT", "")? {
            Some(port) => port.parse().map_err(|_| invalid("the environment", "SMTP_PORT", "it is a port"))?,
            None => self.whole("email.smtp_port", 1..=65_535).and_then(|port| u16::try_from(port).ok()).unwrap_or(587),
        };
        let tls = match self.env_or("SMTP_USE_TLS", "")? {
            Some(text) => Some(text),
            None => self.at("email.smtp_use_tls").map(|value| match value {
                Value::String(text) => text.clone(),
                value => value.to_string(),
            }),
        };
        email.smtp_tls = match tls.map(|text| text.to_ascii_lowercase()).as_deref() {
            Some("implicit") => SmtpTls::Implicit,
            None | Some("1" | "true" | "yes") if email.smtp_port == 465 => SmtpTls::Implicit,
            None | Some("1" | "true" | "yes" | "starttls") => SmtpTls::StartTls,
            Some("0" | "false" | "no") => SmtpTls::None,
            Some(_) => {
                let how =
                    "it is `true` (STARTTLS, on port 465 TLS from the first byte), `starttls`, `implicit` or `false`";
                return Err(invalid(self.file, "email.smtp_use_tls", how));
            }
        };
        email.smtp_user = self.env_or("SMTP_USER", "email.smtp_user")?;
        email.smtp_password = secret(self.env_or("SMTP_PASSWORD", "email.smtp_password")?);
        Ok(())
    }

    /// `LOCAL_DEV_MODE` and what belongs to it.
    fn dev(&self) -> Result<Option<DevConfig>, ConfigError> {
        let on = |name: &str| (self.env)(name).is_some_and(|text| matches!(text.trim(), "1" | "true" | "yes"));
        if !on("LOCAL_DEV_MODE") {
            return Ok(None);
        }
        #[derive(serde::Deserialize)]
        struct Group {
            id: String,
            name: String,
        }
        let set = |name: &str| (self.env)(name).filter(|text| !text.trim().is_empty());
        let groups: Vec<Group> = match set("LOCAL_DEV_GROUPS") {
            None => Vec::new(),
            Some(text) => serde_json::from_str(&text).map_err(|_| {
                invalid("the environment", "LOCAL_DEV_GROUPS", "it is a JSON list of `{\"id\": .., \"name\": ..}`")
            })?,
        };
        Ok(Some(DevConfig {
            email: set("LOCAL_DEV_USER_EMAIL").unwrap_or_else(|| "dev@localhost".to_owned()),
            groups: groups.into_iter().map(|group| (group.id, group.name)).collect(),
            allow_others: on("AGNES_ALLOW_INSECURE_DEV"),
        }))
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

        let connectors = &mut config.connectors;
        let folder = (self.env)("CONNECTORS_DIR").filter(|text| !text.trim().is_empty());
        connectors.folder = folder.or(self.text("connectors.folder")?).map(PathBuf::from);
        self.seconds("connectors.timeout_seconds", 1, &mut connectors.timeout);
        connectors.env = self.list("connectors.env")?.unwrap_or_default();

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
        if let Some(seconds) = self.whole("materialize.lock_ttl_seconds", 60..=604_800) {
            config.sync.materialize_lock_ttl = Duration::from_secs(seconds);
        }
        if config.sync.materialize_lock_ttl < config.sync.table_timeout {
            let why = "a copy that is still made could be taken for a forgotten one by another machine";
            self.warnings.push(format!("`materialize.lock_ttl_seconds` is below `sync.table_timeout_seconds`: {why}"));
        }
        const SCHEDULE: &str = "AGNES_DEFAULT_SYNC_SCHEDULE";
        if let Some(text) = (self.env)(SCHEDULE).filter(|text| !text.trim().is_empty()) {
            match crate::schedule::Schedule::parse(text.trim()) {
                Some(_) => text.trim().clone_into(&mut config.sync.materialized_schedule),
                None => self.warnings.push(format!("`{SCHEDULE}` is not a schedule: it is ignored")),
            }
        }

        let primary = self.text("data_source.type")?;
        config.data_source.primary = primary.filter(|kind| !kind.is_empty() && kind != "local");
        for (kind, keys) in [
            ("keboola", &["stack_url", "project_id", "token_env"][..]),
            ("bigquery", &["project", "billing_project", "location"]),
        ] {
            let given = keys.iter().filter_map(|key| {
                let value = self.at(&format!("data_source.{kind}.{key}"))?;
                (value != "").then(|| ((*key).to_owned(), value.clone()))
            });
            config.data_source.settings.insert(kind, given.collect());
        }
        self.jira(&mut config.data_source);

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
        self.set("remote_query.max_result_rows", 1..=1_000_000_000, &mut config.remote_query.max_result_rows);
        self.bigquery(&mut config.bigquery)?;
        self.seconds("api.sample_cache_ttl_seconds", 0, &mut config.cache.sample);
        let scan = &mut config.scan;
        self.set("api.scan.max_limit", 1..=1_000_000_000_000, &mut scan.max_limit);
        self.set("api.scan.max_result_bytes", 1..=1 << 50, &mut scan.max_result_bytes);
        self.set("api.scan.max_concurrent_per_user", 1..=MANY, &mut scan.max_concurrent_per_user);
        self.set("api.scan.max_daily_bytes_per_user", 1..=1 << 60, &mut scan.max_daily_bytes_per_user);
        self.seconds("api.scan.request_timeout_seconds", 1, &mut scan.timeout);
        self.auth(&mut config.auth)?;
        self.site(&mut config.site)?;
        self.email(&mut config.email)?;
        config.dev = self.dev()?;
        self.elsewhere(&mut config)?;
        config.allowed_private_hosts = self.list("security.allowed_private_hosts")?.unwrap_or_default();
        let requests = &mut config.access_requests;
        requests.enabled = self.at("access_requests.enabled").is_none() || self.flag("access_requests.enabled")?;
        requests.show_locked = self.flag("access_requests.show_locked")?;
        self.mebibytes("uploads.max_mb", 1..=MEBIBYTES, &mut config.uploads.max_bytes);
        self.mebibytes("uploads.quota_mb", 1..=MEBIBYTES, &mut config.uploads.quota_bytes);
        self.set("audit.retention_days", 0..=36_500, &mut config.audit_retention_days);
        Ok(config)
    }

    /// The site that `jira` names, else `JIRA_DOMAIN`; without one there is no source of it.
    fn jira(&self, sources: &mut DataSourceConfig) {
        let given = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let own = |key: &str| given(self.at(&format!("jira.{key}")).and_then(Value::as_str).map(str::to_owned));
        let mut settings = serde_json::Map::new();
        if let Some(domain) = own("domain").or_else(|| given((self.env)("JIRA_DOMAIN"))) {
            settings.insert("domain".to_owned(), domain.into());
            for key in ["email", "sla_email", "cloud_id"] {
                settings.extend(own(key).map(|value| (key.to_owned(), value.into())));
            }
        }
        sources.settings.insert("jira", settings);
        sources.jira_raw = given((self.env)("JIRA_DATA_DIR")).map(Into::into);
    }

    fn bigquery(&mut self, bigquery: &mut BigQueryDefaults) -> Result<(), ConfigError> {
        for (key, target) in [
            ("data_source.bigquery.project", &mut bigquery.project),
            ("data_source.bigquery.billing_project", &mut bigquery.billing_project),
            ("data_source.bigquery.location", &mut bigquery.location),
        ] {
            *target = self.text(key)?.map(|text| text.trim().to_owned());
        }
        bigquery.max_bytes_per_materialize = self.whole("data_source.bigquery.max_bytes_per_materialize", 0..=1 << 60);
        self.set("data_source.bigquery.bq_max_scan_bytes", 0..=1 << 60, &mut bigquery.max_scan_bytes);
        if let Some(ms) = self.whole("data_source.bigquery.query_timeout_ms", 0..=86_400_000) {
            bigquery.query_timeout = Duration::from_secs(ms.div_ceil(1000));
        }
        if let Some(seconds) = self.whole("data_source.bigquery.materialize_fetch_timeout_seconds", 0..=86_400) {
            bigquery.fetch_timeout = Duration::from_secs(seconds);
        }
        if let Some(dollars) = self.number("api.scan.bq_cost_per_tb_usd", 0.0..=1e6) {
            bigquery.cost_per_tb_usd = dollars;
        }
        Ok(())
    }
}
