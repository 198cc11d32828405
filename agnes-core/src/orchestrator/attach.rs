//! The trust boundary of `_remote_attach`: what an extract may ask the engine to attach,
//! and the attaching itself.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::RemoteAttach;
use super::extension::{Engine, checked_files, load};
use crate::duck::{ScratchDb, ScratchLimits};
use crate::error::{Coded, ErrorKind, Result};
use crate::extract::ExtractAttach;
use crate::ident::{EnvName, StrictName, quote_ident, quote_literal};
use crate::secret::{Secret, SecretSource};

/// What extracts may ask to attach. Lists that an operator sets replace the defaults.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct AttachPolicy {
    /// Extensions that may be used.
    pub extensions: Vec<String>,
    /// Environment variables that may be named.
    pub token_envs: Vec<String>,
    /// Hosts of URLs; where none is listed, an extract may name that of its source's own connection.
    pub hosts: Vec<String>,
    /// `host:port` of databases.
    pub database_hosts: Vec<String>,
    /// Folders in which SQLite files may lie.
    pub sqlite_folders: Vec<PathBuf>,
    /// Folder with extension files, searched before what is installed.
    pub extension_folder: Option<PathBuf>,
    /// Whether `INSTALL` from the network is allowed.
    pub allow_install: bool,
}

impl Default for AttachPolicy {
    /// `keboola` and `bigquery`, their tokens, no database host and no folder.
    fn default() -> Self {
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect();
        Self {
            extensions: list(&["keboola", "bigquery"]),
            token_envs: list(&[
                "KBC_TOKEN",
                "KBC_STORAGE_TOKEN",
                "KEBOOLA_STORAGE_TOKEN",
                "GOOGLE_APPLICATION_CREDENTIALS",
            ]),
            hosts: Vec::new(),
            database_hosts: Vec::new(),
            sqlite_folders: Vec::new(),
            extension_folder: None,
            allow_install: false,
        }
    }
}

/// Why something is not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AttachError {
    #[error("alias `{alias}` or its extension is not an identifier")]
    BadName { alias: String },
    #[error("extension `{extension}` is not on the operator's list")]
    ExtensionNotAllowed { extension: String },
    #[error("variable `{name}` is not on the operator's list of token variables")]
    TokenEnvNotAllowed { name: String },
    #[error("variable `{name}` is not set")]
    TokenUnset { name: String },
    #[error("host `{host}` is not on the operator's list")]
    HostNotAllowed { host: String },
    #[error("the address of `{alias}` is not usable: {reason}")]
    BadUrl { alias: String, reason: &'static str },
    #[error("extension `{extension}` is not installed")]
    ExtensionMissing { extension: String },
    #[error("the source behind `{alias}` does not answer")]
    Unreachable { alias: String },
    #[error("the source behind `{alias}` does not accept the user or its password")]
    Credentials { alias: String },
    #[error("the engine could not attach `{alias}`")]
    Failed { alias: String },
}

impl Coded for AttachError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed { .. } | Self::Unreachable { .. } => ErrorKind::Unavailable,
            Self::ExtensionMissing { .. } | Self::TokenUnset { .. } | Self::Credentials { .. } => {
                ErrorKind::ConfigInvalid
            }
            _ => ErrorKind::Forbidden,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::BadName { .. } => "attach_bad_name",
            Self::ExtensionNotAllowed { .. } => "attach_extension_not_allowed",
            Self::TokenEnvNotAllowed { .. } => "attach_token_env_not_allowed",
            Self::TokenUnset { .. } => "attach_token_unset",
            Self::HostNotAllowed { .. } => "attach_host_not_allowed",
            Self::BadUrl { .. } => "attach_bad_url",
            Self::ExtensionMissing { .. } => "attach_extension_missing",
            Self::Unreachable { .. } => "attach_unreachable",
            Self::Credentials { .. } => "attach_credentials",
            Self::Failed { .. } => "attach_failed",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::ExtensionNotAllowed { .. } => "an operator can allow it with `AGNES_REMOTE_ATTACH_EXTENSIONS`",
                Self::TokenEnvNotAllowed { .. } => "an operator can allow it with `AGNES_REMOTE_ATTACH_TOKEN_ENVS`",
                Self::TokenUnset { .. } => "set the variable for the process that runs Agnes",
                Self::HostNotAllowed { .. } => "an operator can allow it with `AGNES_REMOTE_ATTACH_HOST_ALLOWLIST`",
                Self::ExtensionMissing { .. } => "put its file into the configured extension folder",
                Self::Unreachable { .. } => "check host and port, and that the server runs; it is tried again",
                Self::Credentials { .. } => "correct the user, the database or the variable with the password",
                Self::Failed { .. } => "check that the source answers and that its credentials are right",
                Self::BadName { .. } | Self::BadUrl { .. } => "correct the extract's `_remote_attach`",
            }
            .to_owned(),
        )
    }
}

impl AttachPolicy {
    /// The policy that a configuration describes.
    #[must_use]
    pub fn of(config: &crate::config::Config) -> Self {
        let (attach, default) = (&config.attach, Self::default());
        Self {
            extensions: attach.extensions.clone().unwrap_or(default.extensions),
            token_envs: attach.token_envs.clone().unwrap_or(default.token_envs),
            hosts: attach.hosts.clone(),
            database_hosts: attach.database_hosts.clone(),
            sqlite_folders: attach.sqlite_folders.clone(),
            extension_folder: attach.extension_folder.clone(),
            allow_install: attach.allow_install,
        }
    }

    /// The same for the extract of a source whose own connection is at `address`.
    pub(super) fn of_source(&self, address: Option<&str>) -> Cow<'_, Self> {
        match address.and_then(authority).filter(|_| self.hosts.is_empty()) {
            Some(host) => Cow::Owned(Self { hosts: vec![host.to_owned()], ..self.clone() }),
            None => Cow::Borrowed(self),
        }
    }

    fn lists(list: &[String], wanted: &str) -> bool {
        list.iter().any(|item| item.eq_ignore_ascii_case(wanted))
    }

    /// Checks one row of an extract's `_remote_attach`: names, extension, token variable,
    /// address. Reads no secret and touches no network.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, row: &ExtractAttach) -> Result<RemoteAttach, AttachError> {
        let shown = || crate::ident::printable(&row.alias, 64);
        let names = (StrictName::parse(&row.alias), StrictName::parse(&row.extension));
        let (Ok(alias), Ok(extension)) = names else { return Err(AttachError::BadName { alias: shown() }) };
        if !Self::lists(&self.extensions, extension.as_str()) {
            return Err(AttachError::ExtensionNotAllowed { extension: extension.to_string() });
        }
        if !row.token_env.is_empty() {
            let name = crate::ident::printable(&row.token_env, 64);
            if EnvName::parse(&row.token_env).is_err() || !self.token_envs.contains(&row.token_env) {
                return Err(AttachError::TokenEnvNotAllowed { name });
            }
        }
        let attach = RemoteAttach {
            alias: alias.to_string(),
            extension: extension.to_string(),
            url: row.url.clone(),
            token_env: row.token_env.clone(),
        };
        self.check_place(&attach)?;
        Ok(attach)
    }

    /// Checks only where a source is: host and port, or the folder of its file. For sources
    /// that an admin added, whose extension and variable Agnes's own connector names.
    ///
    /// # Errors
    /// `attach_host_not_allowed`, `attach_bad_url`.
    pub fn check_place(&self, attach: &RemoteAttach) -> Result<(), AttachError> {
        let bad = |reason| AttachError::BadUrl { alias: attach.alias.clone(), reason };
        let engine = Engine::of(&attach.extension);
        match engine {
            Engine::Postgres | Engine::MySql => self.check_dsn(&attach.url, engine).map_err(|e| match e {
                DsnError::Host(host) => AttachError::HostNotAllowed { host },
                DsnError::Bad(reason) => bad(reason),
            }),
            Engine::Sqlite => self.check_sqlite(Path::new(&attach.url)).map_err(bad),
            Engine::Other => self.check_url(&attach.url).map_err(|host| match host {
                Some(host) => AttachError::HostNotAllowed { host },
                None => bad("it is neither `https://HOST` nor `project=PROJECT`"),
            }),
        }
    }

    fn check_url(&self, url: &str) -> Result<(), Option<String>> {
        if let Some(project) = url.strip_prefix("project=") {
            return crate::ident::GcpProject::parse(project).map(drop).map_err(|_| None);
        }
        let host = authority(url).ok_or(None)?;
        if host.is_empty() || host.contains('@') || host.chars().any(char::is_whitespace) {
            return Err(None);
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if Self::lists(&self.hosts, name) || Self::lists(&self.hosts, host) {
            Ok(())
        } else {
            Err(Some(crate::ident::printable(host, 120)))
        }
    }

    fn check_dsn(&self, dsn: &str, engine: Engine) -> Result<(), DsnError> {
        const KEYS: [&str; 8] =
            ["host", "port", "dbname", "database", "user", "connect_timeout", "sslmode", "ssl_mode"];
        let mut host = None;
        let mut port = if engine == Engine::Postgres { "5432" } else { "3306" };
        for pair in dsn.split_ascii_whitespace() {
            let (key, value) = pair.split_once('=').ok_or(DsnError::Bad("it is not `key=value` pairs"))?;
            // A quote could hide a second key; nothing honest needs one.
            if value.contains(['\'', '"', '\\', ';']) {
                return Err(DsnError::Bad("its values may not be quoted"));
            }
            match key {
                "password" | "passwd" => {
                    return Err(DsnError::Bad("it holds a password: name a token variable instead"));
                }
                "host" => host = Some(value),
                "port" => port = value,
                key if KEYS.contains(&key) => {}
                _ => {
                    return Err(DsnError::Bad(
                        "it has a key other than host, port, dbname, database, user, connect_timeout, sslmode, ssl_mode",
                    ));
                }
            }
        }
        let host = host.ok_or(DsnError::Bad("it names no host"))?;
        let address = format!("{host}:{port}");
        if Self::lists(&self.database_hosts, &address) {
            Ok(())
        } else {
            Err(DsnError::Host(crate::ident::printable(&address, 120)))
        }
    }

    fn check_sqlite(&self, path: &Path) -> Result<(), &'static str> {
        let real = path.canonicalize().map_err(|_| "the file is not there")?;
        let inside =
            self.sqlite_folders.iter().filter_map(|f| f.canonicalize().ok()).any(|folder| real.starts_with(folder));
        if inside { Ok(()) } else { Err("the file is not in a folder that the operator listed") }
    }
}

/// Host and port of an `https` address.
fn authority(url: &str) -> Option<&str> {
    url.strip_prefix("https://")?.split(['/', '?', '#']).next()
}

enum DsnError {
    Host(String),
    Bad(&'static str),
}

/// Loads the extension and attaches, read-only. The engine's own words stay in the log at
/// debug level, scrubbed: these extensions print DSNs and passwords. Blocks.
///
/// # Errors
/// [`AttachError`].
pub(crate) fn attach(
    conn: &::duckdb::Connection,
    attach: &RemoteAttach,
    policy: &AttachPolicy,
    secrets: &dyn SecretSource,
) -> Result<(), AttachError> {
    load(conn, &attach.extension, policy)?;
    let token = match attach.token_env.as_str() {
        "" => None,
        name => Some(secrets.get(name).ok_or_else(|| AttachError::TokenUnset { name: name.to_owned() })?),
    };
    let run = |sql: &str| {
        conn.execute_batch(sql).map_err(|error| {
            let words = token.as_ref().map_or_else(|| error.to_string(), |t: &Secret| t.scrub(&error.to_string()));
            tracing::debug!(
                alias = attach.alias,
                "the engine refused to attach: {}",
                words.replace(&attach.url, "***")
            );
            refused(&attach.alias, &words)
        })
    };
    let (alias, url) = (quote_ident(&attach.alias), quote_literal(&attach.url));
    let kind = match Engine::of(&attach.extension) {
        Engine::Postgres => "postgres",
        Engine::MySql => "mysql",
        Engine::Sqlite => return run(&format!("ATTACH {url} AS {alias} (TYPE sqlite, READ_ONLY)")),
        Engine::Other => {
            let extension = quote_ident(&attach.extension);
            let token = token.as_ref().map(|t| format!(", TOKEN {}", quote_literal(t.expose()))).unwrap_or_default();
            return run(&format!("ATTACH {url} AS {alias} (TYPE {extension}, READ_ONLY{token})"));
        }
    };
    let secret = quote_ident(&format!("{}_secret", attach.alias));
    let password = token.as_ref().map(|t| format!(", PASSWORD {}", quote_literal(t.expose()))).unwrap_or_default();
    // Also without a password: looking for a default secret fails where none may be kept.
    run(&format!("CREATE TEMPORARY SECRET {secret} (TYPE {kind}{password})"))?;
    run(&format!("ATTACH {url} AS {alias} (TYPE {kind}, READ_ONLY, SECRET {secret})"))
}

/// What the words of an extension say about who has to act.
fn refused(alias: &str, words: &str) -> AttachError {
    let (words, alias) = (words.to_lowercase(), alias.to_owned());
    let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    if says(&["authentication failed", "access denied", "no password supplied", "no pg_hba.conf entry"])
        || (words.contains("fatal:") && words.contains("does not exist"))
    {
        AttachError::Credentials { alias }
    } else if says(&[
        "connection refused",
        "can't connect",
        "could not translate host name",
        "timeout expired",
        "timed out",
        "no route to host",
        "starting up",
        "shutting down",
        "too many connections",
        "too many clients",
        "closed the connection",
        "lost connection",
    ]) {
        AttachError::Unreachable { alias }
    } else {
        AttachError::Failed { alias }
    }
}

/// Whether the operator lets `extension` ask sources, and its file is there. Blocks.
///
/// # Errors
/// `attach_extension_not_allowed`, `attach_extension_missing`.
pub(crate) fn can_attach(extension: &str, policy: &AttachPolicy, scratch: &Path) -> Result<()> {
    if !AttachPolicy::lists(&policy.extensions, extension) {
        return Err(AttachError::ExtensionNotAllowed { extension: extension.to_owned() }.into());
    }
    let db = ScratchDb::open(scratch, &ScratchLimits::default())?;
    Ok(load(db.conn(), extension, policy)?)
}

/// Whether a source compares texts otherwise than the engine does, in filters that the extension
/// hands on to it: MySQL by the collation of each column, for which `Ada` may be `ada`.
pub(crate) fn compares_texts_its_way(row: &RemoteAttach) -> bool {
    Engine::of(&row.extension) == Engine::MySql
}

/// TCP ports and files that a process needs which asks this source.
pub(crate) fn reach(row: &RemoteAttach) -> (Vec<u16>, Vec<PathBuf>) {
    let engine = Engine::of(&row.extension);
    match engine {
        Engine::Postgres | Engine::MySql => {
            let port = row.url.split_ascii_whitespace().find_map(|pair| pair.strip_prefix("port=")?.parse().ok());
            (vec![port.unwrap_or(if engine == Engine::Postgres { 5432 } else { 3306 })], Vec::new())
        }
        Engine::Sqlite => {
            let files = ["", "-wal", "-shm", "-journal"].map(|end| PathBuf::from(format!("{}{end}", row.url)));
            (Vec::new(), files.to_vec())
        }
        Engine::Other => {
            let port = authority(&row.url).and_then(|host| host.rsplit_once(':')?.1.parse().ok());
            (vec![port.unwrap_or(443)], Vec::new())
        }
    }
}

/// A scratch database that the source is attached to, as [`AttachPolicy::check_place`] allows.
/// Blocks.
///
/// # Errors
/// [`AttachError`], the extension's own words being in the log only; I/O errors.
pub fn attach_source(
    source: &RemoteAttach,
    policy: &AttachPolicy,
    secrets: &dyn SecretSource,
    scratch: &Path,
    limits: &ScratchLimits,
) -> Result<ScratchDb> {
    policy.check_place(source)?;
    let db = if checked_files(std::slice::from_ref(&source.extension), policy).is_some() {
        ScratchDb::open_unsigned(scratch, limits)?
    } else {
        ScratchDb::open(scratch, limits)?
    };
    attach(db.conn(), source, policy, secrets)?;
    Ok(db)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::remote_view::remote_view;
    use super::*;

    fn row(extension: &str, url: &str, token_env: &str) -> ExtractAttach {
        ExtractAttach { alias: "src".into(), extension: extension.into(), url: url.into(), token_env: token_env.into() }
    }

    fn policy() -> AttachPolicy {
        let mut policy = AttachPolicy { hosts: vec!["connection.example.com".into()], ..AttachPolicy::default() };
        policy.extensions.extend(["postgres".to_owned(), "sqlite".to_owned()]);
        policy.token_envs.push("SHOP_PASSWORD".into());
        policy.database_hosts.push("127.0.0.1:54329".into());
        policy
    }

    #[test]
    fn rows_are_refused_by_the_first_rule_they_break() {
        let code = |row: &ExtractAttach| policy().check(row).err().map(|e| e.code().to_owned());
        assert_eq!(code(&row("keboola", "https://connection.example.com", "KBC_TOKEN")), None);
        assert_eq!(code(&row("bigquery", "project=my-proj-1", "")), None);
        let refused = [
            (row("keboola; DROP", "https://connection.example.com", ""), "attach_bad_name"),
            (row("httpfs", "https://connection.example.com", ""), "attach_extension_not_allowed"),
            (row("keboola", "https://connection.example.com", "PATH"), "attach_token_env_not_allowed"),
            (row("keboola", "https://connection.example.com", "kbc token"), "attach_token_env_not_allowed"),
            (row("keboola", "https://evil.example", "KBC_TOKEN"), "attach_host_not_allowed"),
            (row("keboola", "http://connection.example.com", "KBC_TOKEN"), "attach_bad_url"),
            (row("keboola", "https://connection.example.com@evil.example", "KBC_TOKEN"), "attach_bad_url"),
            (row("postgres", "host=10.0.0.1 port=5432 dbname=x", ""), "attach_host_not_allowed"),
            (row("postgres", "host=127.0.0.1 port=54329 password=x", ""), "attach_bad_url"),
            (row("postgres", "host=127.0.0.1 port=54329 dbname='a host=b'", ""), "attach_bad_url"),
            (row("postgres", "host=127.0.0.1 port=54329 sslkey=/etc/passwd", ""), "attach_bad_url"),
            (row("sqlite", "/etc/passwd", ""), "attach_bad_url"),
        ];
        for (row, wanted) in refused {
            assert_eq!(code(&row).as_deref(), Some(wanted), "{row:?}");
        }
        assert_eq!(code(&row("postgres", "host=127.0.0.1 port=54329 dbname=shop user=agnes", "SHOP_PASSWORD")), None);
    }

    #[test]
    fn remote_views_are_one_select_of_one_relation() {
        let aliases = ["kbc".to_owned()];
        let good = remote_view(r#"CREATE VIEW orders AS SELECT * FROM kbc."in.c-main"."orders";"#, &aliases).unwrap();
        assert_eq!(good.select, r#"SELECT * FROM "kbc"."in.c-main"."orders""#);
        let named = remote_view("CREATE VIEW x AS SELECT id, \"full name\" AS who FROM kbc.b", &aliases).unwrap();
        assert_eq!(named.select, r#"SELECT "id", "full name" AS "who" FROM "kbc"."b""#);
        for bad in [
            "CREATE VIEW x AS SELECT * FROM read_text('/etc/passwd')",
            "CREATE VIEW x AS SELECT * FROM other.main.t",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b, kbc.a.c",
            "CREATE VIEW x AS SELECT getenv('HOME') FROM kbc.a.b",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b WHERE 1 = (SELECT 1)",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b; ATTACH 'x'",
            "CREATE VIEW x AS WITH a AS (SELECT 1) SELECT * FROM kbc.a.b",
            "DROP TABLE x",
            // Each of these shows less than the relation holds.
            "CREATE VIEW x AS SELECT * EXCLUDE (ssn) FROM kbc.a.b",
            "CREATE VIEW x AS SELECT * REPLACE (0 AS ssn) FROM kbc.a.b",
            "CREATE VIEW x AS SELECT name FROM kbc.a.b GROUP BY name",
            "CREATE VIEW x AS SELECT DISTINCT name FROM kbc.a.b",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b WHERE id > 3",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b LIMIT 3",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b TABLESAMPLE 10 PERCENT",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b AS t(p, q)",
            "CREATE VIEW x(p, q) AS SELECT * FROM kbc.a.b",
            "CREATE VIEW x AS SELECT * FROM kbc.a.b QUALIFY row_number() OVER () = 1",
        ] {
            assert_eq!(remote_view(bad, &aliases), None, "{bad}");
        }
    }
}
