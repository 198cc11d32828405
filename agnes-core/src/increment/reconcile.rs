//! Comparing the keys of a source with those here, range by range: finds rows that were
//! deleted, or changed without moving their cursor into the window.

use super::Rule;
use crate::duck::ScratchDb;
use crate::error::Result;
use crate::ident::quote_ident;

/// Ranges that a table's keys are cut into.
const RANGES: u64 = 256;
/// More differing ranges than this are not worth reading one by one.
const MAX_DIFFERING: usize = 64;

/// Where two sets of keys differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differing {
    /// Nowhere.
    Nowhere,
    /// Somewhere that cannot be told, or nearly everywhere: everything has to be read.
    Everywhere,
    /// In rows whose first key column lies in one of these ranges, both ends included.
    Ranges(Vec<(String, String)>),
}

impl Differing {
    /// SQL predicate of the rows to read again; none where there are none.
    #[must_use]
    pub fn scope(&self, rule: &Rule) -> Option<String> {
        match self {
            Self::Nowhere => None,
            Self::Everywhere => Some("true".to_owned()),
            Self::Ranges(ranges) => {
                let column = quote_ident(rule.key.first()?);
                let all: Vec<_> = ranges.iter().map(|(a, b)| format!("({column} BETWEEN {a} AND {b})")).collect();
                Some(all.join(" OR "))
            }
        }
    }
}

/// Compares key and cursor of all rows of two relations. The ranges are of the first key
/// column when it is a whole number; other keys differ [`Differing::Everywhere`] or not at all.
/// Blocks.
///
/// # Errors
/// What the engine said.
pub fn differing(db: &ScratchDb, rule: &Rule, source: &str, here: &str) -> Result<Differing> {
    let Some(first) = rule.key.first().map(|column| quote_ident(column)) else { return Ok(Differing::Everywhere) };
    let key = rule.key.iter().map(|column| quote_ident(column)).collect::<Vec<_>>().join(", ");
    let both = [("agnes_keys_there", source), ("agnes_keys_here", here)];
    for (name, relation) in both {
        db.execute(&format!(
            "CREATE OR REPLACE TEMP TABLE {name} AS SELECT {first} AS k, hash({key}, {}) AS h FROM {relation}",
            quote_ident(&rule.cursor)
        ))?;
    }
    let found = compare(db);
    for (name, _) in both {
        db.execute(&format!("DROP TABLE {name}"))?;
    }
    found
}

fn compare(db: &ScratchDb) -> Result<Differing> {
    let kind =
        db.rows("SELECT typeof(k) FROM agnes_keys_there UNION ALL SELECT typeof(k) FROM agnes_keys_here LIMIT 1")?;
    let kind = kind.into_iter().flatten().flatten().next().unwrap_or_default();
    let whole = kind.ends_with("INT") || kind.ends_with("INTEGER");
    let sum =
        |name: &str, range: &str| format!("SELECT {range} AS r, count(*) AS n, bit_xor(h) AS x FROM {name} GROUP BY 1");
    let range = if whole { "(k::HUGEINT - low) // width" } else { "0" };
    let bounds = format!(
        "SELECT min(k)::HUGEINT AS low, (max(k)::HUGEINT - min(k)::HUGEINT) // {RANGES} + 1 AS width FROM \
         (SELECT k FROM agnes_keys_there UNION ALL SELECT k FROM agnes_keys_here)"
    );
    let bounds = if whole { bounds } else { "SELECT 0 AS low, 1 AS width".to_owned() };
    let rows = db.rows(&format!(
        "WITH b AS ({bounds}), there AS ({}), here AS ({}) \
         SELECT (b.low + r * b.width) AS from_key, (b.low + (r + 1) * b.width - 1) AS to_key \
         FROM there FULL JOIN here USING (r), b WHERE there.n IS DISTINCT FROM here.n OR there.x IS DISTINCT FROM here.x \
         ORDER BY r",
        sum("agnes_keys_there, b", range),
        sum("agnes_keys_here, b", range),
    ))?;
    if rows.is_empty() {
        return Ok(Differing::Nowhere);
    }
    // A key that is null lies in no range.
    let ranges: Option<Vec<(String, String)>> = rows
        .into_iter()
        .map(|row| match row.as_slice() {
            [Some(from), Some(to)] => Some((from.clone(), to.clone())),
            _ => None,
        })
        .collect();
    Ok(match ranges {
        Some(ranges) if whole && ranges.len() <= MAX_DIFFERING => Differing::Ranges(ranges),
        _ => Differing::Everywhere,
    })
}
