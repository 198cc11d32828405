//! The configuration of a running installation: what admins see of it, and how they change it.
//!
//! Changes go into the overlay beside the state (`instance.yaml`), secrets into
//! `.env_overlay`; the overlay then names a variable. Nothing is written with which the server
//! would not start.

mod address;
mod change;
mod check;
mod configure;
mod error;
mod fields;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub(crate) use self::check::fits;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use serde_json::{Map, Value};

pub use address::AddressRules;
pub use configure::{Configure, Configured};
pub use error::SettingsError;

use self::fields::{DANGER, FIELDS, Field, SECRET_PATTERNS, SECTIONS};
use crate::config::{Config, ConfigError, Environment, Layers, LoadOptions, Loaded};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::mail::{MailError, Mailer};
use crate::secret::{Secret, SecretSource};

/// What stands for a secret that is set.
const MASK: &str = "***";
/// What stands for a secret that is set to nothing.
const EMPTY: &str = "<empty>";

/// Where the configuration of an engine comes from.
#[derive(Debug, Clone)]
pub struct ConfigFiles {
    /// `instance.yaml`, whether it is there or not.
    pub file: PathBuf,
    /// The environment it was read with.
    pub environment: Environment,
    /// Whether unset variables and unknown keys are warnings.
    pub lenient: bool,
}

/// Makes the mailer that a configuration names, if it names one; an error where it names one that could
/// never send anything.
pub type MailerOf = fn(&Config) -> Result<Option<Arc<dyn Mailer>>, MailError>;

/// What an engine keeps to change its configuration.
#[derive(Debug, Default)]
pub(crate) struct SettingsState {
    pub(crate) files: Option<ConfigFiles>,
    pub(crate) addresses: Option<Arc<dyn AddressRules>>,
    pub(crate) mailer_of: Option<MailerOf>,
    /// The configuration as it was last saved.
    live: RwLock<Option<Arc<Config>>>,
    /// The environment with the secrets that were entered since the start.
    entered: RwLock<Option<Environment>>,
    /// Held by who writes.
    writing: tokio::sync::Mutex<()>,
}

/// What admins see.
#[derive(Debug, Clone, Serialize)]
pub struct SettingsView {
    /// What is set, by section; secrets are `***`, or `<empty>`.
    pub sections: Value,
    /// Sections that may be edited.
    pub editable_sections: Vec<&'static str>,
    /// Sections that ask for a confirmation.
    pub danger_sections: Vec<&'static str>,
    /// Keys with one of these in their name hold a secret.
    pub secret_key_patterns: Vec<&'static str>,
    /// Fields by section: `key`, `type`, `default`, `help`, and `env_override` where a variable
    /// of the environment beats it now.
    pub known_fields: BTreeMap<&'static str, Vec<Value>>,
    /// Dotted keys that the overlay sets.
    pub overlay_keys: Vec<String>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingsChanged {
    /// Whether something of it applies after a restart only.
    pub restart_required: bool,
    /// Sections that changed.
    pub sections_updated: Vec<String>,
    /// Keys that changed.
    pub diff_count: usize,
}

/// The configuration of an engine, for those who may change it.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// The configuration, for those who may change it.
    #[must_use]
    pub fn settings(&self) -> Settings<'_> {
        Settings { engine: self }
    }

    /// The configuration as it was last saved, for what applies at once: names and texts of the
    /// installation, its theme, access requests. The rest is as at the start
    /// ([`Engine::config`]).
    #[must_use]
    pub fn live_config(&self) -> Arc<Config> {
        let live = self.settings_state().live.read().unwrap_or_else(PoisonError::into_inner).clone();
        live.unwrap_or_else(|| Arc::new(self.config().clone()))
    }

    /// The secrets of sources: what admins enter holds at once, the rest is as at the start.
    pub(crate) fn source_secrets(&self) -> Arc<dyn SecretSource> {
        let entered = self.settings_state().entered.read().unwrap_or_else(PoisonError::into_inner).clone();
        entered.map_or_else(|| self.secrets().clone(), |entered| Arc::new(entered) as _)
    }
}

impl Settings<'_> {
    async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())
    }

    fn files(&self) -> Result<&ConfigFiles> {
        Ok(self.engine.settings_state().files.as_ref().ok_or(SettingsError::NoFiles)?)
    }

    /// What the files hold now.
    async fn layers(&self) -> Result<Layers> {
        let (file, overlay) = (self.files()?.file.clone(), self.engine.folder().config_overlay());
        // A damaged overlay is told apart from a damaged file: only the overlay is ours to write.
        crate::duck::blocking(move || {
            Layers::read(None, Some(overlay.as_path())).map_err(|_| SettingsError::OverlayCorrupt)?;
            Ok(Layers::read(Some(file.as_path()), Some(overlay.as_path()))?)
        })
        .await
    }

    fn is_set(&self) -> Result<impl Fn(&str) -> bool + use<>> {
        let environment = self.files()?.environment.clone();
        Ok(move |name: &str| environment.var(name).is_some_and(|value| !value.trim().is_empty()))
    }

    /// What is set, secrets masked.
    ///
    /// # Errors
    /// `admin_required`, `access_admin_required`, `settings_not_kept`, `overlay_corrupt`.
    pub async fn view(&self, ctx: &CallContext) -> Result<SettingsView> {
        self.admin(ctx).await?;
        let (layers, is_set) = (self.layers().await?, self.is_set()?);
        let merged = layers.merged();
        let sections = SECTIONS.iter().map(|section| {
            let set = merged.get(*section).filter(|value| value.is_object());
            ((*section).to_owned(), masked(section, set.unwrap_or(&Value::Object(Map::new()))))
        });
        let mut known: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
        for field in FIELDS {
            let section = field.key.split('.').next().unwrap_or(field.key);
            if field.key != section {
                known.entry(section).or_default().push(field.described(&is_set));
            }
        }
        let mut overlay_keys = Vec::new();
        leaves("", &layers.overlay(), &mut |key, _| overlay_keys.push(key.to_owned()));
        Ok(SettingsView {
            sections: Value::Object(sections.collect()),
            editable_sections: SECTIONS.to_vec(),
            danger_sections: DANGER.to_vec(),
            secret_key_patterns: SECRET_PATTERNS.to_vec(),
            known_fields: known,
            overlay_keys,
        })
    }

    /// Whether these files and this environment make a configuration; what it is.
    fn assemble(
        layers: &Layers,
        environment: &Environment,
        secrets: &BTreeMap<String, Option<Secret>>,
        lenient: bool,
    ) -> Result<Loaded, ConfigError> {
        let env = |name: &str| match secrets.get(name) {
            Some(changed) => changed.as_ref().map(|secret| secret.expose().to_owned()),
            None => environment.var(name),
        };
        layers.assemble(&LoadOptions { file: None, overlay: None, env: &env, lenient })
    }
}

/// `value` with its secrets masked.
fn masked(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().map(|(name, value)| (name.clone(), masked(&format!("{key}.{name}"), value))).collect(),
        ),
        Value::Array(items) if !fields::is_secret(key) => {
            Value::Array(items.iter().map(|item| masked(key, item)).collect())
        }
        Value::Null => Value::Null,
        Value::String(text) if fields::is_secret(key) && text.is_empty() => Value::from(EMPTY),
        _ if fields::is_secret(key) => Value::from(MASK),
        Value::String(text) => Value::from(change::meant(text)),
        other => other.clone(),
    }
}

/// Calls `each` with every dotted key and value that is no section.
fn leaves(key: &str, value: &Value, each: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(map) if key.is_empty() || Field::of(key).is_none() => {
            for (name, below) in map {
                leaves(&if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, below, each);
            }
        }
        other => each(key, other),
    }
}
