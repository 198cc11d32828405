//! The columns of a table, agreed over all its files.

use std::collections::HashMap;

use agnes_core::ident::{nearest, printable};

use super::config::TableOptions;
use super::formats::FileColumn;
use super::infer::types;

/// One column of the table.
#[derive(Debug, Clone)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    /// None while every file showed nothing but nulls.
    data_type: Option<String>,
    /// Whether the settings say the type.
    pub(crate) declared: bool,
}

impl TableColumn {
    /// Its type: text, when nothing is known.
    pub(crate) fn data_type(&self) -> &str {
        self.data_type.as_deref().unwrap_or("VARCHAR")
    }
}

/// The columns of a table.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) columns: Vec<TableColumn>,
    by_name: HashMap<String, usize>,
    declared: HashMap<String, String>,
}

impl Schema {
    /// Starts with the columns of parts that are kept.
    pub(crate) fn new(options: &TableOptions, kept: &[(String, String)]) -> Self {
        let declared = options
            .columns
            .iter()
            .filter_map(|(name, wanted)| Some((name.to_lowercase(), types::parse(wanted).ok()?)))
            .collect();
        let mut schema = Self { declared, ..Self::default() };
        for (name, data_type) in kept {
            schema.push(name, Some(data_type.clone()), None);
        }
        schema
    }

    fn push(&mut self, name: &str, found: Option<String>, source: Option<&str>) {
        let declared = self
            .declared
            .get(&name.to_lowercase())
            .or_else(|| source.and_then(|source| self.declared.get(&source.trim().to_lowercase())))
            .cloned();
        self.by_name.insert(name.to_lowercase(), self.columns.len());
        self.columns.push(TableColumn {
            name: name.to_owned(),
            declared: declared.is_some(),
            data_type: declared.or(found),
        });
    }

    /// Takes the columns of one file in; types become wide enough for both.
    pub(crate) fn add(&mut self, columns: &[FileColumn]) {
        for column in columns {
            let Some(index) = self.index(&column.name) else {
                self.push(&column.name, column.data_type.clone(), Some(&column.source));
                continue;
            };
            let known = &mut self.columns[index];
            if known.declared {
                continue;
            }
            known.data_type = match (known.data_type.take(), &column.data_type) {
                (Some(a), Some(b)) => Some(types::unify(&a, b)),
                (a, b) => a.or_else(|| b.clone()),
            };
        }
    }

    /// Gives columns that hold nothing but nulls now the types they had.
    pub(crate) fn remember(&mut self, before: &[(String, String)]) {
        for (name, data_type) in before {
            if let Some(index) = self.index(name) {
                self.columns[index].data_type.get_or_insert_with(|| data_type.clone());
            }
        }
    }

    /// The column with this name, case-folded.
    pub(crate) fn get(&self, name: &str) -> Option<&TableColumn> {
        self.index(name).map(|index| &self.columns[index])
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    /// Makes a column text, unless its type was declared or is text already.
    pub(crate) fn widen(&mut self, name: &str) -> bool {
        let Some(index) = self.index(name) else { return false };
        let column = &mut self.columns[index];
        if column.declared || column.data_type() == "VARCHAR" {
            return false;
        }
        column.data_type = Some("VARCHAR".to_owned());
        true
    }

    /// Names and types.
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        self.columns.iter().map(|column| (column.name.clone(), column.data_type().to_owned())).collect()
    }

    /// Columns of `before` that have another type now.
    pub(crate) fn changed(&self, before: &[(String, String)]) -> Vec<String> {
        let changed = before.iter().filter_map(|(name, old)| {
            let now = self.get(name)?;
            (now.data_type() != old)
                .then(|| format!("column `{}` is {} now, was {old}", printable(name, 60), now.data_type()))
        });
        changed.collect()
    }

    /// Declared columns that no file has.
    pub(crate) fn missing(&self, options: &TableOptions, files: &[&[FileColumn]]) -> Vec<String> {
        let has = |wanted: &str| {
            self.get(wanted).is_some()
                || files
                    .iter()
                    .flat_map(|columns| columns.iter())
                    .any(|column| column.source.trim().eq_ignore_ascii_case(wanted))
        };
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let missing = options.columns.keys().filter(|name| !has(name)).map(|name| {
            let near =
                nearest(name, names.iter().copied()).map(|near| format!("; did you mean `{}`?", printable(near, 60)));
            format!("`columns` names `{}`, which no file has{}", printable(name, 60), near.unwrap_or_default())
        });
        missing.collect()
    }
}
