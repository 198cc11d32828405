//! Settings of a database and of its tables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agnes_core::error::Result;
use agnes_core::ident::{EnvName, TableName, nearest, printable};
use agnes_core::orchestrator::RemoteAttach;
use agnes_core::registry::QueryMode;
use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::error::SqlError;

const SERVER_KEYS: [&str; 6] = ["host", "port", "database", "user", "password_env", "tls"];
const FILE_KEYS: [&str; 2] = ["path", "all_text"];
const COMMON_KEYS: [&str; 4] = ["schemas", "include", "exclude", "tables"];
const TABLE_KEYS: [&str; 9] =
    ["schema", "table", "mode", "query", "cursor_column", "overlap", "primary_key", "reconcile_hours", "description"];

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tls {
    /// Where the server can.
    #[default]
    Prefer,
    /// Else not at all.
    Require,
    /// Never.
    Disable,
}

/// Settings of one table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TableOptions {
    /// Schema at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<String>,
    /// Its name at the source; `schema.table` where `schema` is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<QueryMode>,
    /// SQL of a materialized table, in the source's own language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor_column: Option<String>,
    /// See [`agnes_core::increment::Rule::overlap`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overlap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) primary_key: Option<Vec<String>>,
    /// Hours between two comparisons of all keys; 0 never compares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reconcile_hours: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
}

/// Settings of a source.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SqlConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) all_text: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) schemas: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    include: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tables: BTreeMap<String, TableOptions>,
}

impl SqlConfig {
    /// Reads and checks the settings.
    pub(crate) fn parse(dialect: Dialect, config: &Value) -> Result<Self> {
        let object = object("config", config)?;
        let own: &[&str] = if dialect == Dialect::Sqlite { &FILE_KEYS } else { &SERVER_KEYS };
        if ["password", "passwd"].iter().any(|key| object.contains_key(*key)) {
            return Err(SqlError::invalid("password", "name the variable that holds it in `password_env`").into());
        }
        check_keys("", object, &[own, &COMMON_KEYS].concat())?;
        for (name, options) in
            present(object, "tables").map(|tables| self::object("tables", tables)).transpose()?.into_iter().flatten()
        {
            TableName::parse(name)?;
            check_keys(&format!("tables.{name}."), self::object(&format!("tables.{name}"), options)?, &TABLE_KEYS)?;
        }
        let mut parsed: Self = each(object, "")?;
        parsed.tables = parsed.tables.into_iter().map(|(name, options)| (name.to_lowercase(), options)).collect();
        parsed.check(dialect)?;
        Ok(parsed)
    }

    fn check(&mut self, dialect: Dialect) -> Result<(), SqlError> {
        if dialect == Dialect::Sqlite {
            let path = self.path.as_ref().filter(|path| !path.as_os_str().is_empty());
            let path = path.ok_or_else(|| SqlError::invalid("path", "give the database's file"))?;
            self.path =
                Some(std::path::absolute(path).map_err(|_| SqlError::invalid("path", "it cannot be made absolute"))?);
        } else {
            for (key, value) in [("host", &self.host), ("database", &self.database), ("user", &self.user)] {
                let value = value.as_deref().unwrap_or_default();
                if value.is_empty() {
                    return Err(SqlError::invalid(key, "it is needed"));
                }
                // They become `key=value` pairs.
                if value.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"\\;=".contains(c)) {
                    return Err(SqlError::invalid(key, "it may not hold spaces, quotes, `\\`, `;` or `=`"));
                }
            }
            if let Some(name) = &self.password_env
                && (EnvName::parse(name).is_err() || name.starts_with("AGNES_"))
            {
                return Err(SqlError::invalid("password_env", "it is not the name of a variable for this source"));
            }
            if self.port == Some(0) {
                return Err(SqlError::invalid("port", "use 1 to 65535"));
            }
        }
        for (key, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            globs(patterns).map_err(|reason| SqlError::invalid(key, reason))?;
        }
        for (name, options) in &self.tables {
            options.check(&format!("tables.{name}."))?;
            if options.table.is_none() && options.query.is_none() {
                return Err(SqlError::invalid(format!("tables.{name}.table"), "say which table or `query` it is"));
            }
        }
        Ok(())
    }

    /// The settings as they should be stored.
    pub(crate) fn to_value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| agnes_core::Error::internal("write the settings of a source", e))
    }

    /// How the engine attaches the source, under `alias`.
    pub(crate) fn attach(&self, dialect: Dialect, alias: &str) -> RemoteAttach {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (host, user, database) = (text(&self.host), text(&self.user), text(&self.database));
        let port = self.port.unwrap_or(dialect.default_port());
        let url = match (dialect, self.tls.unwrap_or_default()) {
            (Dialect::Sqlite, _) => {
                self.path.as_deref().unwrap_or(std::path::Path::new("")).to_string_lossy().into_owned()
            }
            (Dialect::Postgres, tls) => {
                let tls = match tls {
                    Tls::Prefer => "prefer",
                    Tls::Require => "require",
                    Tls::Disable => "disable",
                };
                format!("host={host} port={port} dbname={database} user={user} connect_timeout=10 sslmode={tls}")
            }
            (Dialect::MySql, tls) => {
                let tls = match tls {
                    Tls::Prefer => "preferred",
                    Tls::Require => "required",
                    Tls::Disable => "disabled",
                };
                format!("host={host} port={port} database={database} user={user} ssl_mode={tls}")
            }
        };
        RemoteAttach {
            alias: alias.to_owned(),
            extension: dialect.kind().to_owned(),
            url,
            token_env: self.password_env.clone().unwrap_or_default(),
        }
    }

    /// Host and port of a server; none for a file or a socket.
    pub(crate) fn address(&self, dialect: Dialect) -> Option<(String, u16)> {
        let host = self.host.as_ref().filter(|host| dialect != Dialect::Sqlite && !host.starts_with('/'))?;
        Some((host.clone(), self.port.unwrap_or(dialect.default_port())))
    }

    /// Texts that no message may hold.
    pub(crate) fn places(&self, dialect: Dialect) -> Vec<String> {
        let mut places = vec![self.attach(dialect, "").url];
        places.extend(self.host.clone());
        places
    }

    /// Whether a table of the source is wanted.
    pub(crate) fn wants(&self, schema: &str, table: &str) -> bool {
        let matches = |patterns: &[String]| {
            globs(patterns).is_ok_and(|set| set.is_match(table) || set.is_match(format!("{schema}.{table}")))
        };
        (self.schemas.is_empty() || self.schemas.iter().any(|wanted| wanted == schema))
            && (self.include.is_empty() || matches(&self.include))
            && !matches(&self.exclude)
    }

    /// What holds for one table: the settings of the source, then `own`, its registry row's.
    pub(crate) fn options_of(&self, table: &str, own: Option<&Value>) -> Result<TableOptions> {
        let mut merged = match self.tables.get(&table.to_lowercase()) {
            Some(options) => {
                serde_json::to_value(options).ok().and_then(|v| v.as_object().cloned()).unwrap_or_default()
            }
            None => Map::new(),
        };
        if let Some(own) = own.filter(|own| !own.is_null()) {
            let own = object("options", own)?;
            check_keys("options.", own, &TABLE_KEYS)?;
            merged.extend(own.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())));
        }
        let options: TableOptions = each(&merged, "options.")?;
        options.check("options.")?;
        Ok(options)
    }
}

impl TableOptions {
    fn check(&self, prefix: &str) -> Result<(), SqlError> {
        let mode = self.mode.unwrap_or(if self.query.is_some() { QueryMode::Materialized } else { QueryMode::Local });
        let bad = |key: &str, reason: &str| Err(SqlError::invalid(format!("{prefix}{key}"), reason));
        match mode {
            QueryMode::Internal => return bad("mode", "it is `local`, `materialized` or `remote`"),
            QueryMode::Materialized if self.query.as_deref().is_none_or(|query| query.trim().is_empty()) => {
                return bad("query", "a materialized table needs one");
            }
            QueryMode::Local | QueryMode::Remote if self.query.is_some() => {
                return bad("query", "only materialized tables have one");
            }
            _ => {}
        }
        if self.primary_key.as_ref().is_some_and(|key| key.is_empty() || key.iter().any(String::is_empty)) {
            return bad("primary_key", "name at least one column");
        }
        Ok(())
    }

    /// Schema and table at the source.
    pub(crate) fn place(&self, default_schema: &str) -> Option<(String, String)> {
        let table = self.table.clone()?;
        Some(match (&self.schema, table.split_once('.')) {
            (Some(schema), _) => (schema.clone(), table),
            (None, Some((schema, table))) => (schema.to_owned(), table.to_owned()),
            (None, None) => (default_schema.to_owned(), table),
        })
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|e| e.kind().to_string())?);
    }
    set.build().map_err(|e| e.kind().to_string())
}

fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn object<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, SqlError> {
    value.as_object().ok_or_else(|| SqlError::invalid(key, "it is not an object"))
}

/// Reads an object one key at a time, so that a message can name the key and no value.
fn each<T: serde::de::DeserializeOwned>(from: &Map<String, Value>, prefix: &str) -> Result<T, SqlError> {
    let given: Map<String, Value> =
        from.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (key, value) in &given {
        let one = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        if serde_json::from_value::<T>(one).is_err() {
            return Err(SqlError::invalid(format!("{prefix}{key}"), "it has another type or value than it should"));
        }
    }
    serde_json::from_value(Value::Object(given))
        .map_err(|e| SqlError::invalid(prefix.trim_end_matches('.'), e.to_string()))
}

fn check_keys(prefix: &str, object: &Map<String, Value>, known: &[&'static str]) -> Result<(), SqlError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(SqlError::UnknownSetting {
            key: format!("{prefix}{}", printable(key, 80)),
            suggestion: nearest(key, known.iter().copied()).map(str::to_owned),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bad_settings_are_refused_by_name_and_never_echoed() {
        let good = json!({"host": "db.example", "database": "shop", "user": "agnes"});
        SqlConfig::parse(Dialect::Postgres, &good).unwrap();
        for (key, value, named) in [
            ("password", json!("hunter2"), "`password`"),
            ("hots", json!("hunter2"), "`hots`"),
            ("host", json!("a host=hunter2"), "`host`"),
            ("port", json!("hunter2"), "`port`"),
            ("password_env", json!("hunter 2"), "`password_env`"),
            ("password_env", json!("AGNES_SECRET"), "`password_env`"),
            ("tls", json!("hunter2"), "`tls`"),
            ("tables", json!({"a": {"mode": "local"}}), "`tables.a.table`"),
            ("tables", json!({"a": {"mode": "materialized", "table": "x"}}), "`tables.a.query`"),
            ("tables", json!({"a": {"table": "x", "curser_column": "c"}}), "`tables.a.curser_column`"),
        ] {
            let mut config = good.clone();
            config[key] = value;
            let error = SqlConfig::parse(Dialect::Postgres, &config).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(named) && !error.to_string().contains("hunter2"), "{error}");
        }
        assert!(SqlConfig::parse(Dialect::Sqlite, &good).is_err());
    }

    #[test]
    fn settings_are_stable_and_addresses_hold_no_password() {
        let config = json!({"host": "db.example", "port": 6543, "database": "shop", "user": "agnes", "tls": "require",
            "password_env": "SHOP_PASSWORD", "exclude": ["audit_*"],
            "tables": {"Orders": {"table": "public.orders", "cursor_column": "updated_at"}}});
        let parsed = SqlConfig::parse(Dialect::Postgres, &config).unwrap();
        let stored = parsed.to_value().unwrap();
        assert_eq!(SqlConfig::parse(Dialect::Postgres, &stored).unwrap().to_value().unwrap(), stored);
        let attach = parsed.attach(Dialect::Postgres, "a");
        assert_eq!(attach.url, "host=db.example port=6543 dbname=shop user=agnes connect_timeout=10 sslmode=require");
        assert!(parsed.wants("public", "orders") && !parsed.wants("public", "audit_2024"));
        let options = parsed.options_of("orders", Some(&json!({"overlap": 7}))).unwrap();
        assert_eq!((options.overlap, options.cursor_column.as_deref()), (Some(7), Some("updated_at")));
        assert_eq!(options.place("x"), Some(("public".to_owned(), "orders".to_owned())));
    }
}
