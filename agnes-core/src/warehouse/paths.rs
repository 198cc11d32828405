//! Full names of tables in a warehouse, as callers write them: `bq.<dataset>.<table>`, and
//! `` `<project>.<dataset>.<table>` `` in backticks. Each stands for a registered table, under
//! whose name it is read from then on.

use serde_json::Value;

use super::tree::{everything, list, text};
use crate::connector::WarehousePath;
use crate::ident::{GcpProject, RelaxedName, quote_ident};

/// The catalog of short paths.
const PREFIX: &str = "bq";

/// A path in a query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// The project, where one is named.
    pub(crate) project: Option<String>,
    /// The dataset.
    pub(crate) dataset: String,
    /// The table.
    pub(crate) table: String,
}

impl Found {
    /// As its writer knows it.
    pub(crate) fn text(&self) -> String {
        let project = self.project.as_deref().unwrap_or(PREFIX);
        crate::ident::printable(&format!("{project}.{}.{}", self.dataset, self.table), 256)
    }

    /// Whether it is that table; `home` is the project of short paths.
    pub(crate) fn is(&self, path: &WarehousePath, home: &str) -> bool {
        self.project.as_deref().unwrap_or(home).eq_ignore_ascii_case(&path.project)
            && self.dataset.eq_ignore_ascii_case(&path.dataset)
            && self.table.eq_ignore_ascii_case(&path.table)
    }
}

/// What stands between backticks, as a name the parser reads; none where it is no full path.
pub(crate) fn unquoted(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let [project, dataset, table] = parts.as_slice() else { return None };
    let named = |name: &str| RelaxedName::parse(name).is_ok();
    (GcpProject::parse(project).is_ok() && named(dataset) && named(table)).then(|| {
        let catalog = quote_ident(&format!("{PREFIX}:{project}"));
        format!("{catalog}.{}.{}", quote_ident(dataset), quote_ident(table))
    })
}

fn path_of(value: &Value) -> Option<Found> {
    if text(value, "type") != "BASE_TABLE" {
        return None;
    }
    let catalog = text(value, "catalog_name");
    let (dataset, table) = (text(value, "schema_name").to_owned(), text(value, "table_name").to_owned());
    if dataset.is_empty() {
        return None;
    }
    if catalog.eq_ignore_ascii_case(PREFIX) {
        return Some(Found { project: None, dataset, table });
    }
    let (prefix, project) = catalog.split_once(':')?;
    prefix.eq_ignore_ascii_case(PREFIX).then(|| Found { project: Some(project.to_owned()), dataset, table })
}

/// The paths of a statement, each once.
pub(crate) fn find(statement: &Value) -> Vec<Found> {
    let mut found: Vec<Found> = everything(statement).filter_map(path_of).collect();
    found.sort();
    found.dedup();
    found
}

/// Puts registered names in the place of paths.
pub(crate) fn rename(statement: &mut Value, names: &dyn Fn(&Found) -> Option<String>) {
    let mut work = vec![statement];
    while let Some(value) = work.pop() {
        if let Some(path) = path_of(value)
            && let Some(name) = names(&path)
        {
            if text(value, "alias").is_empty() {
                value["alias"] = path.table.clone().into();
            }
            value["catalog_name"] = "".into();
            // Said in full, so that no CTE of that name is meant.
            value["schema_name"] = "main".into();
            value["table_name"] = name.into();
        }
        // `bq.dataset.table.column`
        if text(value, "class") == "COLUMN_REF" && list(value, "column_names").len() > 3 {
            let first = list(value, "column_names")[0].as_str().unwrap_or_default().to_lowercase();
            if (first == PREFIX || first.starts_with("bq:"))
                && let Some(Value::Array(names)) = value.get_mut("column_names")
            {
                names.drain(..2);
            }
        }
        match value {
            Value::Object(map) => work.extend(map.values_mut()),
            Value::Array(items) => work.extend(items),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_paths_are_names() {
        let quoted = unquoted("acme-data.mart.web_sessions");
        assert_eq!(quoted.as_deref(), Some(r#""bq:acme-data"."mart"."web_sessions""#));
        for bad in ["mart.web", "a", "acme-data.mart.web.x", "ACME.mart.web", "acme-data.ma\"rt.web", "acme-data..web"]
        {
            assert_eq!(unquoted(bad), None, "{bad}");
        }
    }
}
