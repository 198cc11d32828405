//! Types of columns: what Keboola's metadata says, and how text becomes it. Keboola keeps text;
//! a value that is none of its type becomes null, and the run says so.

use std::collections::BTreeMap;

use agnes_core::ident::{quote_ident, quote_literal};

use super::model::{Metadata, Table};

/// Whose word counts, the first that says anything.
const PROVIDERS: [&str; 4] = ["user", "ai-metadata-enrichment", "keboola.snowflake-transformation", "storage"];

/// What a column is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Double,
    /// Digits in all, and after the point.
    Decimal(u8, u8),
    Boolean,
    Date,
    Timestamp,
    TimestampTz,
}

/// A column of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl Kind {
    /// Its type in DuckDB, as `DESCRIBE` shows it.
    pub(crate) fn sql(self) -> String {
        match self {
            Self::Text => "VARCHAR".to_owned(),
            Self::Integer => "BIGINT".to_owned(),
            Self::Double => "DOUBLE".to_owned(),
            Self::Decimal(precision, scale) => format!("DECIMAL({precision},{scale})"),
            Self::Boolean => "BOOLEAN".to_owned(),
            Self::Date => "DATE".to_owned(),
            Self::Timestamp => "TIMESTAMP".to_owned(),
            Self::TimestampTz => "TIMESTAMP WITH TIME ZONE".to_owned(),
        }
    }

    fn of(name: &str, length: Option<&str>) -> Self {
        match name {
            "INTEGER" | "BIGINT" => Self::Integer,
            "NUMERIC" | "DECIMAL" => length.and_then(decimal).unwrap_or(Self::Double),
            "FLOAT" | "DOUBLE" => Self::Double,
            "BOOLEAN" => Self::Boolean,
            "DATE" => Self::Date,
            "TIMESTAMP" | "TIMESTAMP_NTZ" => Self::Timestamp,
            "TIMESTAMP_TZ" => Self::TimestampTz,
            _ => Self::Text,
        }
    }

    /// The value of the text `column` (SQL), null where it is none of this type.
    pub(crate) fn value(self, column: &str) -> String {
        match self {
            Self::Text => column.to_owned(),
            // The engine would round `1.5`, and read `1e3` and `0x10`.
            Self::Integer => format!(
                "CASE WHEN regexp_full_match({column}, '\\s*[-+]?[0-9]+(\\.0*)?\\s*') THEN TRY_CAST({column} AS BIGINT) END"
            ),
            Self::Boolean => format!(
                "CASE WHEN {column} IN ('true', 'True', 'TRUE', '1', 'yes', 'Yes', 'YES') THEN true \
                 WHEN {column} IN ('false', 'False', 'FALSE', '0', 'no', 'No', 'NO') THEN false END"
            ),
            Self::Double | Self::Decimal(..) | Self::Date | Self::Timestamp | Self::TimestampTz => {
                format!("TRY_CAST({column} AS {})", self.sql())
            }
        }
    }
}

/// `12,2` as digits in all and after the point; `12` has none after it.
fn decimal(length: &str) -> Option<Kind> {
    let (precision, scale) = length.split_once(',').unwrap_or((length, "0"));
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    ((1..=38).contains(&precision) && scale <= precision).then_some(Kind::Decimal(precision, scale))
}

/// The columns `names` of a table with their types. An alias has those of its source.
pub(crate) fn columns(table: &Table, names: &[String]) -> Vec<Column> {
    let metadata: &BTreeMap<String, Vec<Metadata>> = if table.is_alias && !table.source_table.column_metadata.is_empty()
    {
        &table.source_table.column_metadata
    } else {
        &table.column_metadata
    };
    let kind = |name: &String| metadata.get(name).map_or(Kind::Text, |said| kind_of(said));
    names.iter().map(|name| Column { name: name.clone(), kind: kind(name) }).collect()
}

fn kind_of(said: &[Metadata]) -> Kind {
    let find = |provider: &str, key: &str| {
        said.iter().find(|m| m.provider == provider && m.key == key && !m.value.is_empty()).map(|m| m.value.as_str())
    };
    PROVIDERS
        .iter()
        .find_map(|provider| {
            let name = find(provider, "KBC.datatype.basetype").or_else(|| find(provider, "KBC.datatype.type"))?;
            Some(Kind::of(&name.trim().to_uppercase(), find(provider, "KBC.datatype.length")))
        })
        .unwrap_or(Kind::Text)
}

/// The list of values of text columns, typed. `strict` stops at the first value that is none
/// of its type; else such values are null. Columns named in `text` stay text.
pub(crate) fn select_list(columns: &[Column], text: &[String], strict: bool) -> String {
    let typed = columns.iter().map(|column| {
        let name = quote_ident(&column.name);
        match column.kind {
            kind if kind == Kind::Text || text.contains(&column.name) => name,
            kind if strict => format!(
                "CASE WHEN {name} IS NULL OR {name} = '' THEN NULL ELSE coalesce({}, error({})) END AS {name}",
                kind.value(&name),
                quote_literal(NOT_ITS_TYPE)
            ),
            kind => format!("CASE WHEN {name} <> '' THEN {} END AS {name}", kind.value(&name)),
        }
    });
    typed.collect::<Vec<_>>().join(", ")
}

/// What the engine says when a value is none of its type.
pub(crate) const NOT_ITS_TYPE: &str = "agnes: a value is not of its type";

/// For each column that has a type, as one row: values that are there, values that are none of
/// its type, and three examples of those.
pub(crate) fn count_list(columns: &[Column]) -> String {
    let counts = columns.iter().filter(|column| column.kind != Kind::Text).enumerate().map(|(n, column)| {
        let name = quote_ident(&column.name);
        let bad = format!("{name} <> '' AND ({}) IS NULL", column.kind.value(&name));
        let example = |function: &str| format!("{function}(left({name}, 60)) FILTER ({bad})");
        format!(
            "count(*) FILTER ({name} <> '') AS there{n}, count(*) FILTER ({bad}) AS bad{n}, \
             {} AS a{n}, {} AS b{n}, {} AS c{n}",
            example("min"),
            example("max"),
            example("any_value")
        )
    });
    counts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(provider: &str, key: &str, value: &str) -> serde_json::Value {
        json!({"provider": provider, "key": key, "value": value})
    }

    #[test]
    fn the_first_provider_that_says_anything_counts() {
        let table: Table = serde_json::from_value(json!({
            "id": "in.c-a.t",
            "columnMetadata": {
                "a": [meta("storage", "KBC.datatype.basetype", "STRING"), meta("user", "KBC.datatype.basetype", "integer")],
                "b": [meta("storage", "KBC.datatype.type", "NUMERIC"), meta("storage", "KBC.datatype.length", "12,2")],
                "c": [meta("somebody", "KBC.datatype.basetype", "DATE")],
                "d": [meta("user", "KBC.description", "x"), meta("storage", "KBC.datatype.basetype", "TIMESTAMP_TZ")],
                "e": [meta("storage", "KBC.datatype.basetype", "DECIMAL"), meta("storage", "KBC.datatype.length", "99")],
            },
        }))
        .unwrap();
        let names = ["a", "b", "c", "d", "e", "f"].map(str::to_owned);
        let kinds: Vec<Kind> = columns(&table, &names).into_iter().map(|column| column.kind).collect();
        assert_eq!(
            kinds,
            [Kind::Integer, Kind::Decimal(12, 2), Kind::Text, Kind::TimestampTz, Kind::Double, Kind::Text]
        );
    }

    #[test]
    fn an_alias_has_the_types_of_its_source() {
        let table: Table = serde_json::from_value(json!({
            "id": "in.c-a.t", "isAlias": true, "columnMetadata": [],
            "sourceTable": {"id": "x", "columnMetadata": {"a": [meta("user", "KBC.datatype.basetype", "BOOLEAN")]}},
        }))
        .unwrap();
        assert_eq!(columns(&table, &["a".to_owned()])[0].kind, Kind::Boolean);
    }
}
