//! Settings of a Keboola source, and of one of its tables.

use std::time::Duration;

use agnes_core::error::Result;
use agnes_core::ident::{EnvName, nearest};
use agnes_core::secret::{Secret, SecretSource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::KeboolaError;
use super::export::FileType;

/// The variable with the token, unless `token_env` names another.
const TOKEN_ENV: &str = "KEBOOLA_STORAGE_TOKEN";
const SOURCE_KEYS: [&str; 10] = [
    "stack_url",
    "token_env",
    "project_id",
    "buckets",
    "parallelism",
    "export_timeout_seconds",
    "poll_interval_seconds",
    "slice_timeout_seconds",
    "file_type",
    "endpoints",
];
const TABLE_KEYS: [&str; 4] = ["columns", "file_type", "deleted_column", "full_refresh_days"];
const ENDPOINT_KEYS: [&str; 3] = ["s3", "gcs", "azure"];

/// Settings of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeboolaConfig {
    /// `https://connection.keboola.com`; else what `KEBOOLA_STACK_URL` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stack_url: Option<String>,
    /// Name of the variable with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_env: Option<String>,
    /// The project the token has to belong to.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text_or_number")]
    pub(crate) project_id: Option<String>,
    /// Only these buckets are looked into for tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) buckets: Vec<String>,
    /// Exports at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parallelism: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) export_timeout_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) poll_interval_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice_timeout_seconds: Option<f64>,
    /// What local tables are exported as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_type: Option<FileType>,
    /// Where the object stores are, when not at their public addresses.
    #[serde(skip_serializing_if = "Endpoints::is_default")]
    pub(crate) endpoints: Endpoints,
}

/// Where the object stores are, when not at their public addresses: a private link, a proxy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoints {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) s3: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gcs: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) azure: Option<String>,
}

impl Endpoints {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings of one table, from its registry row.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TableOptions {
    /// Only these columns.
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) file_type: Option<FileType>,
    /// A column that says that a row was deleted at the source.
    pub(crate) deleted_column: Option<String>,
    /// Everything is read again when the last time was longer ago than this many days.
    pub(crate) full_refresh_days: Option<u32>,
}

impl TableOptions {
    pub(crate) fn parse(options: Option<&Value>) -> Result<Self, KeboolaError> {
        match options {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(value) => {
                let object = as_object("options", value)?;
                check_keys("options.", object, &TABLE_KEYS)?;
                read("options", object)
            }
        }
    }
}

impl KeboolaConfig {
    /// Reads and checks the settings.
    pub(crate) fn parse(config: &Value) -> Result<Self> {
        let object = as_object("config", config)?;
        check_keys("", object, &SOURCE_KEYS)?;
        if let Some(endpoints) = object.get("endpoints").filter(|value| !value.is_null()) {
            check_keys("endpoints.", as_object("endpoints", endpoints)?, &ENDPOINT_KEYS)?;
        }
        let mut config: Self = read("config", object)?;
        if let Some(url) = &config.stack_url {
            config.stack_url = Some(origin("stack_url", url)?);
        }
        for (key, url) in [
            ("endpoints.s3", &mut config.endpoints.s3),
            ("endpoints.gcs", &mut config.endpoints.gcs),
            ("endpoints.azure", &mut config.endpoints.azure),
        ] {
            if let Some(text) = url {
                *url = Some(origin(key, text)?);
            }
        }
        if let Some(name) = &config.token_env {
            EnvName::parse(name)
                .map_err(|_| KeboolaError::invalid("token_env", "give the name of a variable, not the token itself"))?;
        }
        if config.parallelism.is_some_and(|n| !(1..=64).contains(&n)) {
            return Err(KeboolaError::invalid("parallelism", "it is 1 to 64").into());
        }
        for (key, seconds) in [
            ("export_timeout_seconds", config.export_timeout_seconds),
            ("poll_interval_seconds", config.poll_interval_seconds),
            ("slice_timeout_seconds", config.slice_timeout_seconds),
        ] {
            if seconds.is_some_and(|seconds| !(0.001..=86_400.0).contains(&seconds)) {
                return Err(KeboolaError::invalid(key, "it is 0.001 to 86400").into());
            }
        }
        Ok(config)
    }

    /// The settings as they should be stored.
    pub(crate) fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Where the stack is.
    pub(crate) fn url(&self, secrets: &dyn SecretSource) -> Result<String, KeboolaError> {
        match (&self.stack_url, secrets.get("KEBOOLA_STACK_URL")) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(url)) => origin("KEBOOLA_STACK_URL", url.expose()),
            (None, None) => Err(KeboolaError::NotConfigured { missing: "no `stack_url` is set".to_owned() }),
        }
    }

    /// Whether files are somewhere else than where the stack says.
    pub(crate) fn has_endpoints(&self) -> bool {
        let Endpoints { s3, gcs, azure } = &self.endpoints;
        s3.is_some() || gcs.is_some() || azure.is_some()
    }

    /// Name of the variable with the token.
    pub(crate) fn token_env(&self) -> &str {
        self.token_env.as_deref().unwrap_or(TOKEN_ENV)
    }

    /// The token.
    pub(crate) fn token(&self, secrets: &dyn SecretSource) -> Result<Secret, KeboolaError> {
        let name = self.token_env();
        // A newline at the end is what `echo > file` leaves.
        let token = secrets.get(name).map(|token| Secret::new(token.expose().trim()));
        let token = token.filter(|token| !token.expose().is_empty());
        token.ok_or_else(|| KeboolaError::NotConfigured { missing: format!("the variable `{name}` is not set") })
    }

    /// Exports at a time.
    pub(crate) fn parallelism(&self, secrets: &dyn SecretSource) -> usize {
        self.parallelism.or_else(|| variable(secrets, "AGNES_KEBOOLA_PARALLELISM")).unwrap_or(8).clamp(1, 64)
    }

    /// How long an export may take in Keboola.
    pub(crate) fn export_timeout(&self, secrets: &dyn SecretSource) -> Duration {
        seconds(self.export_timeout_seconds, secrets, "AGNES_KEBOOLA_EXPORT_TIMEOUT_SEC", 1800.0)
    }

    /// First pause between two looks at a job.
    pub(crate) fn poll_interval(&self, secrets: &dyn SecretSource) -> Duration {
        seconds(self.poll_interval_seconds, secrets, "AGNES_KEBOOLA_POLL_INTERVAL_SEC", 2.0)
    }

    /// How long a manifest, slice or file may take.
    pub(crate) fn slice_timeout(&self, secrets: &dyn SecretSource) -> Duration {
        seconds(self.slice_timeout_seconds, secrets, "AGNES_KEBOOLA_SLICE_TIMEOUT_SEC", 300.0)
    }
}

/// A setting, else a variable, else what is usual. A variable that is no number is as if it were not set.
fn seconds(setting: Option<f64>, secrets: &dyn SecretSource, name: &str, usual: f64) -> Duration {
    let given = setting.or_else(|| variable(secrets, name));
    Duration::from_secs_f64(given.filter(|seconds| (0.001..=86_400.0).contains(seconds)).unwrap_or(usual))
}

pub(crate) fn variable<T: std::str::FromStr>(secrets: &dyn SecretSource, name: &str) -> Option<T> {
    let value = secrets.get(name)?;
    let parsed = value.expose().trim().parse().ok();
    if parsed.is_none() {
        tracing::warn!(name, "a variable is not a number: the default is used");
    }
    parsed
}

/// An address without path, query or user, and without a slash at its end.
pub(crate) fn origin(key: &str, text: &str) -> Result<String, KeboolaError> {
    let invalid = |reason: &str| KeboolaError::invalid(key, reason);
    let url = url::Url::parse(text.trim())
        .map_err(|_| invalid("give an address such as `https://connection.keboola.com`"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(invalid("it is not an `https` address"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it may hold neither a user nor a query"));
    }
    if !url.path().trim_end_matches('/').is_empty() {
        return Err(invalid("it has a path: give the address of the host alone"));
    }
    Ok(url.origin().ascii_serialization())
}

fn read<T: serde::de::DeserializeOwned>(key: &str, object: &Map<String, Value>) -> Result<T, KeboolaError> {
    let given: Map<_, _> = object.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    // The parser names the key only for some mistakes; trying each alone always does.
    for (name, value) in &given {
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        if let Err(error) = serde_json::from_value::<T>(alone) {
            return Err(KeboolaError::invalid(name.clone(), agnes_core::ident::printable(&error.to_string(), 120)));
        }
    }
    serde_json::from_value(Value::Object(given)).map_err(|_| KeboolaError::invalid(key, "it cannot be read"))
}

fn as_object<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, KeboolaError> {
    value.as_object().ok_or_else(|| KeboolaError::invalid(key, "it is not an object"))
}

fn check_keys(prefix: &str, object: &Map<String, Value>, known: &[&str]) -> Result<(), KeboolaError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(KeboolaError::UnknownSetting {
            key: format!("{prefix}{}", agnes_core::ident::printable(key, 64)),
            suggestion: nearest(key, known.iter().copied()).map(str::to_owned),
        }),
    }
}

/// A project's number, which people write with or without quotes.
fn text_or_number<'de, D: serde::Deserializer<'de>>(de: D) -> std::result::Result<Option<String>, D::Error> {
    match Value::deserialize(de)? {
        Value::String(text) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("it is not a project's number")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use agnes_core::error::Coded as _;

    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_checked_and_kept_short() {
        let config = KeboolaConfig::parse(&json!({
            "stack_url": "https://connection.keboola.com/", "project_id": 42, "buckets": null, "file_type": "parquet",
        }))
        .unwrap();
        let stored = config.to_value();
        assert_eq!(
            stored,
            json!({"stack_url": "https://connection.keboola.com", "project_id": "42", "file_type": "parquet"})
        );
        assert_eq!(KeboolaConfig::parse(&stored).unwrap(), config);
        for (wrong, words) in [
            (json!({"stack_ur": "x"}), "`stack_ur` is not known"),
            (json!({"token": "x"}), "`token` is not known"),
            (json!({"token_env": "123-secret-token"}), "not the token itself"),
            (json!({"stack_url": "ftp://x"}), "`stack_url`"),
            (json!({"stack_url": "https://u:p@x"}), "`stack_url`"),
            (json!({"stack_url": "https://x/v2/storage"}), "`stack_url`"),
            (json!({"parallelism": 0}), "`parallelism`"),
            (json!({"parallelism": "many"}), "`parallelism`"),
            (json!({"file_type": "xlsx"}), "`file_type`"),
            (json!({"endpoints": {"r2": "https://x"}}), "`endpoints.r2`"),
            (json!([]), "`config`"),
        ] {
            let error = KeboolaConfig::parse(&wrong).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(words), "{error} for {wrong}");
        }
    }

    #[test]
    fn a_setting_beats_a_variable_beats_the_default() {
        let secrets = agnes_core::secret::FixedSecrets::new([
            ("AGNES_KEBOOLA_PARALLELISM", "3"),
            ("AGNES_KEBOOLA_POLL_INTERVAL_SEC", "often"),
            ("KEBOOLA_STORAGE_TOKEN", " t \n"),
        ]);
        let mut config = KeboolaConfig::default();
        assert_eq!(config.parallelism(&secrets), 3);
        assert_eq!(config.poll_interval(&secrets), Duration::from_secs(2));
        assert_eq!(config.token(&secrets).unwrap().expose(), "t");
        assert_eq!(config.url(&secrets).unwrap_err().code(), "keboola_not_configured");
        config.parallelism = Some(5);
        assert_eq!(config.parallelism(&secrets), 5);
    }
}
