//! Which tables go together, by their registered primary keys and the names of columns.

use super::tables::{Found, View};
use crate::orchestrator::Column;
use crate::profile::{Direction, RelatedTable};

/// Longest list.
const MOST: usize = 50;

/// What one caller sees of a table.
struct Side<'a> {
    name: &'a str,
    columns: Vec<&'a Column>,
    /// Column that identifies a row, where one alone does.
    key: Option<&'a Column>,
}

impl<'a> Side<'a> {
    /// None for a table without columns that the caller sees as they are.
    fn of(found: &'a Found<'_>) -> Option<Self> {
        let plain = |column: &&Column| found.narrowed.is_none_or(|part| part.mask(&column.name).is_none());
        let columns: Vec<_> = found.published?.columns.iter().filter(plain).collect();
        let named = match found.row.and_then(|row| row.primary_key.as_deref()) {
            Some([only]) => Some(only),
            _ => None,
        };
        let key = named.and_then(|name| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)).copied());
        Some(Self { name: found.name(), columns, key })
    }

    /// The column of this table that names rows of `other`.
    fn reference_to(&self, other: &Side<'_>) -> Option<(&'a Column, String)> {
        let key = other.key?;
        let names = reference_names(other.name, &key.name);
        let found = self
            .columns
            .iter()
            .find(|column| names.iter().any(|name| column.name.eq_ignore_ascii_case(name)) && same_kind(column, key))?;
        // Its own key names its own rows.
        let own = self.key.is_some_and(|own| own.name == found.name);
        (!own).then(|| (*found, key.name.clone()))
    }
}

/// What a column is called that refers to the key of a table: `customer_id` of `customers`, or
/// as the key itself where that says more than `id`.
fn reference_names(table: &str, key: &str) -> Vec<String> {
    let mut names = Vec::new();
    if !key.eq_ignore_ascii_case("id") {
        names.push(key.to_owned());
    }
    let table = table.to_lowercase();
    let mut stems = vec![table.clone()];
    stems.extend(table.strip_suffix("ies").map(|stem| format!("{stem}y")));
    stems.extend(table.strip_suffix("es").map(str::to_owned));
    stems.extend(table.strip_suffix('s').map(str::to_owned));
    names.extend(stems.iter().map(|stem| format!("{stem}_{key}")));
    names
}

/// Whether values of both can be equal.
fn same_kind(a: &Column, b: &Column) -> bool {
    let whole = |column: &Column| {
        let name = column.data_type.as_str();
        name.ends_with("INT") || name.ends_with("INTEGER")
    };
    a.data_type == b.data_type || whole(a) && whole(b)
}

/// Tables that the caller may read and that go with `found`.
pub(super) fn related(view: &View, found: &Found<'_>) -> Vec<RelatedTable> {
    let Some(this) = Side::of(found) else { return Vec::new() };
    let all = view.all();
    let others = all.iter().filter_map(Side::of).filter(|other| !other.name.eq_ignore_ascii_case(this.name));
    others.flat_map(|other| between(&this, &other)).take(MOST).collect()
}

fn between(this: &Side<'_>, other: &Side<'_>) -> Vec<RelatedTable> {
    let (mine, theirs) = (this.name, other.name);
    let up = this.reference_to(other).map(|(column, key)| RelatedTable {
        table: theirs.to_owned(),
        join_column: column.name.clone(),
        foreign_column: key,
        direction: Direction::BelongsTo,
        description: format!("a row of `{mine}` names one row of `{theirs}`"),
    });
    let down = other.reference_to(this).map(|(column, key)| RelatedTable {
        table: theirs.to_owned(),
        join_column: key,
        foreign_column: column.name.clone(),
        direction: Direction::HasMany,
        description: format!("rows of `{theirs}` name one row of `{mine}`"),
    });
    up.into_iter().chain(down).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str) -> Column {
        Column { name: name.to_owned(), data_type: data_type.to_owned(), nullable: true }
    }

    fn check(this: (&str, &[Column], Option<usize>), other: (&str, &[Column], Option<usize>), expected: &[&str]) {
        fn side<'a>((name, columns, key): (&'a str, &'a [Column], Option<usize>)) -> Side<'a> {
            Side { name, columns: columns.iter().collect(), key: key.map(|at| &columns[at]) }
        }
        let found = between(&side(this), &side(other));
        let said: Vec<_> =
            found.iter().map(|r| format!("{:?} {}={}", r.direction, r.join_column, r.foreign_column)).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn keys_and_names_say_what_goes_together() {
        let orders = [column("id", "BIGINT"), column("Customer_ID", "INTEGER"), column("country", "VARCHAR")];
        let customers = [column("id", "BIGINT"), column("name", "VARCHAR")];
        let countries = [column("country", "VARCHAR")];
        let (o, c) = (("orders", &orders[..], Some(0)), ("customers", &customers[..], Some(0)));
        check(o, c, &["BelongsTo Customer_ID=id"]);
        check(c, o, &["HasMany id=Customer_ID"]);
        check(o, ("countries", &countries, Some(0)), &["BelongsTo country=country"]);
        // No key, another type, two tables of one key: nothing is known.
        check(o, ("customers", &customers, None), &[]);
        check(o, ("customers", &[column("id", "VARCHAR")], Some(0)), &[]);
        check(("more", &countries, Some(0)), ("countries", &countries, Some(0)), &[]);
    }

    #[test]
    fn many_become_one() {
        for (table, key, name) in
            [("customers", "id", "customer_id"), ("Cities", "id", "city_id"), ("boxes", "id", "box_id")]
        {
            assert!(reference_names(table, key).contains(&name.to_owned()), "{table}");
        }
        assert!(!reference_names("orders", "id").contains(&"id".to_owned()));
    }
}
