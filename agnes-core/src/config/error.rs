//! What can be wrong with a configuration.

use crate::error::{Coded, ErrorKind};

/// What can be wrong with a configuration. Every message names the file and the key.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("`{file}` cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("`{file}` is not valid YAML: {reason}")]
    NotYaml { file: String, reason: String },
    #[error("`{key}` in `{file}` uses the variable `{variable}`, which is not set")]
    UnsetVariable { file: String, key: String, variable: String },
    #[error("`{key}` in `{file}` has a `${{` without a `}}`")]
    OpenVariable { file: String, key: String },
    #[error("`{file}` has an unknown key `{key}`")]
    UnknownKey { file: String, key: String, suggestion: Option<String> },
    #[error("`{key}` in `{file}` is not valid: {reason}")]
    InvalidValue { file: String, key: String, reason: String },
    #[error("line {line} of `.env_overlay` is not `NAME=value`")]
    SecretsUnreadable { line: usize },
    #[error("required keys are missing: {}", keys.join(", "))]
    Missing { keys: Vec<String> },
}

impl Coded for ConfigError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ConfigInvalid
    }
    fn code(&self) -> &str {
        match self {
            Self::Unreadable { .. } => "config_unreadable",
            Self::NotYaml { .. } => "config_not_yaml",
            Self::UnsetVariable { .. } => "config_unset_variable",
            Self::OpenVariable { .. } => "config_open_variable",
            Self::UnknownKey { .. } => "config_unknown_key",
            Self::InvalidValue { .. } => "config_invalid_value",
            Self::SecretsUnreadable { .. } => "config_secrets_unreadable",
            Self::Missing { .. } => "config_missing_keys",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnsetVariable { variable, .. } => {
                Some(format!("set `{variable}`, or give a default: `${{{variable}:-default}}`"))
            }
            Self::OpenVariable { .. } => Some("write `$${` for a literal `${`".to_owned()),
            Self::UnknownKey { suggestion: Some(near), .. } => Some(format!("did you mean `{near}`?")),
            Self::UnknownKey { .. } => Some("remove it, or start with `--lenient-config`".to_owned()),
            Self::SecretsUnreadable { .. } => {
                Some("correct the line in the state folder, or remove it and enter the secret again".to_owned())
            }
            Self::Missing { .. } => Some("add them to `instance.yaml`".to_owned()),
            _ => None,
        }
    }
}
