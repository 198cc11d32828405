//! How the configuration is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};

use super::fields::{DANGER, Field, Kind, LIVE, SECTIONS};
use super::{EMPTY, MASK, Settings, SettingsChanged, SettingsError, address, check, fields};
use crate::config::{Config, Layers, at, keys, replace, set, write_secrets};
use crate::context::CallContext;
use crate::error::{Coded as _, Error, Result};
use crate::ident::{nearest, printable};
use crate::identity::SignInError;
use crate::secret::Secret;

/// A change that was found to be one.
#[derive(Default)]
struct Change {
    /// By dotted key.
    keys: BTreeMap<String, Sides>,
}

/// A value before and after, `None` for not set.
struct Sides {
    before: Option<Value>,
    after: Option<Value>,
}

impl Settings<'_> {
    /// Changes what differs from what is set. `***` and `<empty>` leave a secret as it is,
    /// `null` unsets a key.
    ///
    /// # Errors
    /// [`SettingsError`]; `admin_required`, `access_admin_required`. Nothing is written then.
    pub async fn update(&self, ctx: &CallContext, sections: &Value, confirm_danger: bool) -> Result<SettingsChanged> {
        self.admin(ctx).await?;
        let _only_one = self.engine.settings_state().writing.lock().await;
        self.update_held(ctx, sections, confirm_danger).await
    }

    /// As [`Settings::update`], for whoever holds the turn to write.
    pub(super) async fn update_held(
        &self,
        ctx: &CallContext,
        sections: &Value,
        confirm_danger: bool,
    ) -> Result<SettingsChanged> {
        let layers = self.layers().await?;
        let mut change = Change::default();
        for (section, value) in sections.as_object().into_iter().flatten() {
            if !SECTIONS.contains(&section.as_str()) {
                return Err(SettingsError::UnknownSection {
                    section: printable(section, 80),
                    suggestion: nearest(section, SECTIONS.iter().copied()).map(str::to_owned),
                }
                .into());
            }
            self.read(section, value, &layers.merged(), &mut change)?;
        }
        let touched: BTreeSet<&str> = change.keys.keys().filter_map(|key| key.split('.').next()).collect();
        if let Some(section) = touched.iter().find(|section| DANGER.contains(section) && !confirm_danger) {
            return Err(SettingsError::ConfirmDanger { section: (*section).to_owned() }.into());
        }
        for (key, Sides { after, .. }) in &change.keys {
            if let (Some(Kind::Url), Some(Value::String(url))) = (Field::of(key).map(|field| field.kind), after) {
                self.check_url(key, url).await?;
            }
        }
        let done = SettingsChanged {
            restart_required: touched.iter().any(|section| !LIVE.contains(section))
                || change.keys.keys().any(|key| fields::is_secret(key)),
            sections_updated: touched.iter().map(|section| (*section).to_owned()).collect(),
            diff_count: change.keys.len(),
        };
        if !change.keys.is_empty() {
            self.write(&layers, &change).await?;
            let side = |pick: fn(&Sides) -> &Option<Value>| {
                let shown = change.keys.iter().map(|(key, sides)| {
                    (key.clone(), pick(sides).as_ref().map_or(Value::Null, |value| super::masked(key, value)))
                });
                Value::Object(shown.collect())
            };
            let event = self.engine.audit().event(ctx, "instance_config.update").resource("instance_config");
            event.before(side(|sides| &sides.before)).params(side(|sides| &sides.after)).record().await;
        }
        Ok(done)
    }

    /// Refuses an address that this server may not ask.
    pub(crate) async fn check_url(&self, key: &str, url: &str) -> Result<()> {
        let private = |reason: String| SettingsError::PrivateUrl { key: key.to_owned(), reason }.into();
        if url.is_empty() {
            return Ok(());
        }
        // Names are resolved, and private hosts known that the operator allows, where the frontend
        // brought the rules; the text alone decides otherwise.
        match &self.engine.settings_state().addresses {
            Some(rules) => rules.check(url).await.map_err(private),
            None => address::refused(url).map_or(Ok(()), |reason| Err(private(reason.to_owned()))),
        }
    }

    /// Finds what differs below `key`.
    fn read(&self, key: &str, given: &Value, merged: &Value, change: &mut Change) -> Result<()> {
        let invalid = |reason: String| SettingsError::Invalid { key: printable(key, 120), reason };
        let field = Field::of(key).filter(|field| field.kind != Kind::Any || !given.is_object());
        let Some(field) = field else {
            let Value::Object(map) = given else {
                let known = Field::is_group(key) || Field::of(key).is_some();
                let near = keys::nearest(key).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                let words = if known { "an object".to_owned() } else { format!("a key that exists{near}") };
                return Err(invalid(words).into());
            };
            if !Field::is_group(key) && Field::of(key).is_none() {
                return Err(invalid("a key that exists".to_owned()).into());
            }
            for (name, below) in map {
                let plain =
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
                if !plain {
                    return Err(invalid("an object whose keys are plain names".to_owned()).into());
                }
                self.read(&format!("{key}.{name}"), below, merged, change)?;
            }
            return Ok(());
        };
        let current = at(merged, key).filter(|value| !value.is_null());
        let shown = current.map(|value| super::masked(key, value));
        let secret = fields::is_secret(key);
        let as_it_is = match given {
            Value::String(text) if secret => text == MASK || text == EMPTY,
            Value::Null => current.is_none(),
            given => shown.as_ref() == Some(given),
        };
        if as_it_is {
            return Ok(());
        }
        if let Some(variable) = fields::overriding(key, &self.is_set()?) {
            return Err(SettingsError::SetByEnvironment { key: key.to_owned(), variable }.into());
        }
        let after = match given {
            Value::Null => None,
            // A secret of nothing is none.
            Value::String(text) if secret && text.is_empty() => None,
            given => {
                if let Some(name) = check::secret_in_list(given) {
                    let words = format!("free of lists with secrets: `{name}` has to be below a key of its own");
                    return Err(invalid(words).into());
                }
                check::check(if secret { Kind::Secret } else { field.kind }, given).map_err(invalid)?;
                Some(given.clone())
            }
        };
        if current.is_some() || after.is_some() {
            change.keys.insert(key.to_owned(), Sides { before: current.cloned(), after });
        }
        Ok(())
    }

    /// Writes a change, unless the server would not start with it.
    async fn write(&self, layers: &Layers, change: &Change) -> Result<()> {
        let mut overlay = layers.overlay();
        let mut secrets: BTreeMap<String, Option<Secret>> = BTreeMap::new();
        for (key, Sides { after, .. }) in &change.keys {
            let variable = fields::is_secret(key).then(|| match Field::of(key).filter(|field| field.key == key) {
                Some(field) => field.variable(),
                None => format!("AGNES_SECRET_{}", key.replace(['.', '-'], "_").to_uppercase()),
            });
            let value = match after {
                None => {
                    // What the file below says has to be taken back, the rest is just left out.
                    match layers.is_in_file(key) {
                        true => set(&mut overlay, key, Value::Null),
                        false => unset(&mut overlay, key),
                    }
                    secrets.extend(variable.map(|variable| (variable, None)));
                    continue;
                }
                Some(Value::String(text)) if variable.is_some() => {
                    let variable = variable.unwrap_or_default();
                    secrets.insert(variable.clone(), Some(Secret::new(text.as_str())));
                    Value::from(format!("${{{variable}}}"))
                }
                Some(value) => literal(value),
            };
            set(&mut overlay, key, value);
        }
        let files = self.files()?;
        let (environment, folder) = (files.environment.clone(), self.engine.folder().clone());
        // With what was entered since the start.
        let environment = crate::duck::blocking(move || environment.reloaded(&folder)).await?;
        let assemble = |layers: &Layers, secrets: &BTreeMap<String, Option<Secret>>| {
            Self::assemble(layers, &environment, secrets, files.lenient)
        };
        let before = assemble(layers, &BTreeMap::new()).map(|loaded| loaded.warnings).unwrap_or_default();
        let loaded = assemble(&layers.with_overlay(overlay.clone()), &secrets)
            .map_err(|error| SettingsError::WouldNotStart { reason: error.to_string(), hint: error.hint() })?;
        if let Some(warning) = loaded.warnings.iter().find(|warning| !before.contains(warning)) {
            return Err(SettingsError::WouldNotStart { reason: warning.clone(), hint: None }.into());
        }
        self.would_start(&loaded.config).await?;
        let text = serde_saphyr::to_string(&overlay).map_err(|e| Error::internal("write the configuration", e))?;
        let (folder, now) = (self.engine.folder().clone(), self.engine.clock().now());
        crate::duck::blocking(move || {
            // What is written has to be read as what was meant.
            if serde_saphyr::from_str::<Value>(&text).ok().as_ref() != Some(&overlay) {
                return Err(SettingsError::WouldNotStart {
                    reason: "a value cannot be kept in YAML".to_owned(),
                    hint: None,
                }
                .into());
            }
            // Whatever ends this half way: the overlay never names a secret that is not there.
            let (new, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
                secrets.into_iter().partition(|(_, secret)| secret.is_some());
            if !new.is_empty() {
                write_secrets(&folder, &new, now)?;
            }
            replace(&folder.config_overlay(), text.as_bytes(), 0o600)?;
            if !gone.is_empty()
                && let Err(error) = write_secrets(&folder, &gone, now)
            {
                // The change holds; a secret that nobody names does no harm.
                tracing::warn!(code = error.code(), "secrets that are not named any more were not taken out: {error}");
            }
            Ok(())
        })
        .await?;
        self.reload_secrets().await?;
        let state = self.engine.settings_state();
        self.engine.keep_configured_sources(&loaded.config.data_source).await;
        *state.live.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(loaded.config));
        Ok(())
    }

    /// Has what was entered into `.env_overlay` hold from now on.
    ///
    /// # Errors
    /// `settings_not_kept`, `config_secrets_unreadable`, I/O errors.
    pub(crate) async fn reload_secrets(&self) -> Result<()> {
        let (environment, folder) = (self.files()?.environment.clone(), self.engine.folder().clone());
        let entered = crate::duck::blocking(move || environment.reloaded(&folder)).await?;
        *self.engine.settings_state().entered.write().unwrap_or_else(PoisonError::into_inner) = Some(entered);
        Ok(())
    }

    /// Refuses a configuration that can be read and with which a start ends all the same: mails
    /// that could never leave, nobody who could administer.
    async fn would_start(&self, config: &Config) -> Result<()> {
        let refused = |error: Error| SettingsError::WouldNotStart { reason: error.to_string(), hint: error.hint() };
        let mails = match self.engine.settings_state().mailer_of {
            Some(mailer_of) => mailer_of(config).map_err(|error| refused(error.into()))?.is_some(),
            None => self.engine.mails().is_on(),
        };
        if !self.engine.sign_in().has_provider_left(config, mails).await? {
            return Err(refused(SignInError::NoProviderLeft.into()).into());
        }
        Ok(())
    }
}

/// What a text of a file means, where it names no variable; else the text itself.
pub(super) fn meant(text: &str) -> String {
    let plain = text.replace("$${", "");
    if plain.contains("${") { text.to_owned() } else { text.replace("$${", "${") }
}

/// The text that is read as `value`: what an admin enters never names a variable.
fn literal(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(text.replace("${", "$${")),
        Value::Array(items) => Value::Array(items.iter().map(literal).collect()),
        Value::Object(map) => Value::Object(map.iter().map(|(name, value)| (name.clone(), literal(value))).collect()),
        other => other.clone(),
    }
}

/// Removes a dotted key, and the sections that are empty then.
fn unset(root: &mut Value, key: &str) {
    fn below(map: &mut Map<String, Value>, key: &str) {
        match key.split_once('.') {
            None => drop(map.shift_remove(key)),
            Some((name, rest)) => {
                if let Some(Value::Object(inner)) = map.get_mut(name) {
                    below(inner, rest);
                    if inner.is_empty() {
                        map.shift_remove(name);
                    }
                }
            }
        }
    }
    if let Value::Object(map) = root {
        below(map, key);
    }
}

/// The sections of a request that configures an installation for the first time.
pub(super) fn sections(keys: &[(&str, Option<&str>)]) -> Value {
    let mut sections = json!({});
    for (key, value) in keys {
        if let Some(value) = value {
            set(&mut sections, key, Value::from(*value));
        }
    }
    sections
}
