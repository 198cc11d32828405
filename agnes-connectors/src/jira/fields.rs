//! Which field of the site each column comes from. Settings name fields by name or id; names
//! are looked up at the site and kept beside the documents.

use std::collections::BTreeMap;

use agnes_core::error::Result;
use agnes_core::push::Documents;
use serde_json::{Value, json};

use super::api::Api;
use super::config::{JiraConfig, KNOWN_FIELDS};

/// The note with what names mean.
const NOTE: &str = "fields";

/// Columns and the ids of their fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Columns of further fields in the order of the table, whether or not the field was found.
    further: Vec<String>,
    ids: BTreeMap<String, String>,
}

fn is_id(text: &str) -> bool {
    text.strip_prefix("customfield_").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Fields of the settings that are named, not numbered.
fn names(config: &JiraConfig) -> impl Iterator<Item = &String> {
    config.fields.values().flatten().filter(|field| !is_id(field))
}

/// Columns of further fields.
pub(crate) fn further(config: &JiraConfig) -> Vec<String> {
    let known = |column: &&String| !KNOWN_FIELDS.iter().any(|(name, _)| *name == column.as_str());
    config.fields.keys().filter(known).cloned().collect()
}

impl Fields {
    /// Those of the settings, with what names were found to mean.
    pub(crate) fn of(config: &JiraConfig, meanings: &Value) -> Self {
        let mut ids: BTreeMap<String, String> =
            KNOWN_FIELDS.iter().map(|(column, id)| ((*column).to_owned(), (*id).to_owned())).collect();
        for (column, field) in &config.fields {
            let id = match field {
                Some(id) if is_id(id) => Some(id.clone()),
                Some(name) => meanings[name].as_str().map(str::to_owned),
                None => None,
            };
            match id {
                Some(id) => drop(ids.insert(column.clone(), id)),
                None => drop(ids.remove(column)),
            }
        }
        Self { further: further(config), ids }
    }

    /// Those of the settings, with what was last found. Blocks.
    pub(crate) fn kept(config: &JiraConfig, documents: &Documents) -> Result<Self> {
        let meanings = match names(config).next() {
            Some(_) => documents.note(NOTE)?.unwrap_or_default(),
            None => Value::Null,
        };
        Ok(Self::of(config, &meanings))
    }

    /// Columns of further fields.
    pub(crate) fn further(&self) -> Vec<String> {
        self.further.clone()
    }

    /// The value of a column's field.
    pub(crate) fn value<'v>(&self, fields: &'v Value, column: &str) -> &'v Value {
        self.ids.get(column).map_or(&Value::Null, |id| &fields[id.as_str()])
    }

    /// The id of a column's field.
    pub(crate) fn id(&self, column: &str) -> Option<&str> {
        self.ids.get(column).map(String::as_str)
    }

    /// Changes when rows of the same documents would be others.
    pub(crate) fn signature(&self) -> Value {
        json!({"further": self.further, "ids": self.ids})
    }
}

/// Whether names of the settings were never looked up.
pub(crate) fn is_new(config: &JiraConfig, documents: &Documents) -> Result<bool> {
    if names(config).next().is_none() {
        return Ok(false);
    }
    let known = documents.note(NOTE)?.unwrap_or_default();
    Ok(names(config).any(|name| known.get(name).is_none()))
}

/// Looks up the names in the settings; what is wrong with some of them, in words.
pub(crate) async fn look_up(api: &Api, config: &JiraConfig) -> Result<(Value, Vec<String>)> {
    if names(config).next().is_none() {
        return Ok((json!({}), Vec::new()));
    }
    let listed = api.fields().await?;
    let (mut meanings, mut wrong) = (json!({}), Vec::new());
    for name in names(config) {
        let named: Vec<&str> = listed
            .as_array()
            .into_iter()
            .flatten()
            .filter(|field| {
                let same = |text: &Value| text.as_str().is_some_and(|text| text.eq_ignore_ascii_case(name));
                same(&field["name"]) || field["id"] == name.as_str()
            })
            .filter_map(|field| field["id"].as_str())
            .collect();
        let shown = agnes_core::ident::printable(name, 80);
        match named.as_slice() {
            [id] => meanings[name] = (*id).into(),
            others => {
                // Known to mean nothing.
                meanings[name] = Value::Null;
                wrong.push(match others {
                    [] => format!("the site has no field `{shown}`"),
                    several => format!("`{shown}` is the name of several fields: {}", several.join(", ")),
                });
            }
        }
    }
    Ok((meanings, wrong))
}

/// Keeps what names mean. Blocks.
pub(crate) fn keep(documents: &Documents, meanings: &Value) -> Result<()> {
    let known = documents.note(NOTE)?;
    let nothing = meanings.as_object().is_none_or(serde_json::Map::is_empty);
    if nothing && known.is_none() || known.as_ref() == Some(meanings) {
        return Ok(());
    }
    documents.set_note(NOTE, meanings)
}
