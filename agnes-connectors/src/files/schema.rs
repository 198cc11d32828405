//! The columns of a table, agreed over all its files.

use std::collections::HashMap;

use agnes_core::ident::{nearest, printable};

use super::config::TableOptions;
use super::formats::{FileColumn, Inspected};
use super::infer::shape::Shape;
use super::infer::types;

/// One column of the table.
#[derive(Debug, Clone)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    /// None while every file showed nothing but nulls.
    shape: Option<Shape>,
    data_type: String,
    /// Whether the settings say the type.
    pub(crate) declared: bool,
    /// Whether a file has it that is not JSON, so that its values have to be cast.
    cast: bool,
    /// Whether files disagree on its parts.
    torn: bool,
}

impl TableColumn {
    /// Its type: text, when nothing is known.
    pub(crate) fn data_type(&self) -> &str {
        &self.data_type
    }

    /// The type to read a column of a JSON file under, where the reader has to be told.
    pub(crate) fn read_as(&self, column: &FileColumn) -> Option<String> {
        let wanted = self.shape.as_ref().filter(|shape| !self.declared && shape.is_nested())?;
        let own = Shape::parse(&column.source_type);
        (own != *wanted).then(|| own.retyped(wanted).to_string())
    }

    fn set(&mut self, shape: Option<Shape>) {
        self.data_type = match &shape {
            None | Some(Shape::Unknown | Shape::Empty | Shape::Json) => "VARCHAR".to_owned(),
            Some(shape) => shape.to_string(),
        };
        self.shape = shape;
    }

    /// Has the type of an earlier run, unless it is known already.
    fn remember(&mut self, data_type: &str) {
        if self.shape.is_none() {
            self.set(Some(Shape::parse(data_type)));
        }
    }

    /// Takes the type of one more file in.
    fn add(&mut self, found: Option<&Shape>, json: bool) {
        self.cast |= !json;
        if self.declared {
            return;
        }
        let joined = match (self.shape.take(), found) {
            (Some(a), Some(b)) => {
                // Only a reader of JSON can make JSON text of a part.
                let joined = a.join(b).filter(|joined| !self.cast || a == *b || !joined.has_json());
                self.torn |= joined.is_none() && (a.is_nested() || b.is_nested());
                Some(joined.unwrap_or_else(|| Shape::Leaf("VARCHAR".to_owned())))
            }
            (a, b) => a.or_else(|| b.cloned()),
        };
        self.set(joined);
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
            schema.push(name, None).remember(data_type);
        }
        schema
    }

    fn push(&mut self, name: &str, source: Option<&str>) -> &mut TableColumn {
        let declared = self
            .declared
            .get(&name.to_lowercase())
            .or_else(|| source.and_then(|source| self.declared.get(&source.trim().to_lowercase())))
            .cloned();
        let index = self.columns.len();
        self.by_name.insert(name.to_lowercase(), index);
        let (name, is_declared) = (name.to_owned(), declared.is_some());
        let mut column = TableColumn {
            name,
            shape: None,
            data_type: String::new(),
            declared: is_declared,
            cast: false,
            torn: false,
        };
        column.set(declared.map(Shape::Leaf));
        self.columns.push(column);
        &mut self.columns[index]
    }

    /// Takes the columns of one file in; types become wide enough for both.
    pub(crate) fn add(&mut self, found: &Inspected) {
        for column in &found.columns {
            let known = match self.index(&column.name) {
                Some(index) => &mut self.columns[index],
                None => self.push(&column.name, Some(&column.source)),
            };
            known.add(column.data_type.as_ref(), found.is_json());
        }
    }

    /// Columns with parts on which the files disagree.
    pub(crate) fn torn(&self) -> impl Iterator<Item = String> {
        self.columns.iter().filter(|column| column.torn).map(|column| {
            format!("column `{}` is JSON text: its files disagree on what it holds", printable(&column.name, 60))
        })
    }

    /// Gives columns that hold nothing but nulls now the types they had.
    pub(crate) fn remember(&mut self, before: &[(String, String)]) {
        for (name, data_type) in before {
            if let Some(index) = self.index(name) {
                self.columns[index].remember(data_type);
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
        column.set(Some(Shape::Leaf("VARCHAR".to_owned())));
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
            (now.data_type() != old).then(|| {
                let (now, old) = (printable(now.data_type(), 200), printable(old, 200));
                format!("column `{}` is {now} now, was {old}", printable(name, 60))
            })
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
