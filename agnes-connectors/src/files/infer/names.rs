//! Names: columns keep what the file says as far as it can be shown and told apart; tables
//! get names of the strict grammar.

use std::collections::HashSet;

use agnes_core::ident::printable;
use unicode_normalization::UnicodeNormalization;

/// Longest column name, in characters; longer ones are cut.
pub(crate) const MAX_COLUMN: usize = 255;
/// Longest table name made from a file name: `<table>_rejected` must fit into 64.
const MAX_TABLE: usize = 55;

/// The names columns are published under, and a sentence for each that differs.
///
/// Surrounding blanks go, control characters become `_`, an empty name becomes `column_<n>`
/// (counted from 1), a name over 255 characters is cut, and a name that (case-folded) was
/// there already gets the lowest free `_2`, `_3`, ...
pub(crate) fn columns(raw: &[String]) -> (Vec<String>, Vec<String>) {
    let mut taken: HashSet<String> = HashSet::new();
    let wished: HashSet<String> = raw.iter().map(|name| name.trim().to_lowercase()).collect();
    let mut notes = Vec::new();
    let names = raw
        .iter()
        .enumerate()
        .map(|(index, raw)| {
            let clean: String =
                raw.trim().chars().map(|c| if is_shown(c) { c } else { '_' }).take(MAX_COLUMN).collect();
            let clean = clean.trim().to_owned();
            let base = if clean.is_empty() { format!("column_{}", index + 1) } else { clean };
            let mut name = base.clone();
            let mut suffix = 2;
            // A made-up name must not take one that a later column really has.
            while taken.contains(&name.to_lowercase()) || (name != raw.trim() && wished.contains(&name.to_lowercase()))
            {
                let end = format!("_{suffix}");
                name = base.chars().take(MAX_COLUMN - end.len()).collect::<String>() + &end;
                suffix += 1;
            }
            taken.insert(name.to_lowercase());
            if name != *raw {
                notes.push(format!(
                    "column {} `{}` is named `{}`",
                    index + 1,
                    printable(raw, 60),
                    printable(&name, 60)
                ));
            }
            name
        })
        .collect();
    (names, notes)
}

/// Whether a character can be seen (or is a plain blank) in a name.
fn is_shown(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
}

/// `text` as a table name: lower case, accents dropped, everything else `_`.
pub(crate) fn table(text: &str) -> String {
    let mut out = String::new();
    for c in text.nfkd().filter(|c| !unicode_normalization::char::is_combining_mark(*c)).flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "t_");
    }
    out.truncate(MAX_TABLE);
    let out = out.trim_end_matches('_');
    match out {
        "" => "table".to_owned(),
        // That ending belongs to the tables of rejected rows.
        _ if out.ends_with("_rejected") => format!("{}_file", &out[..out.len().min(MAX_TABLE - 5)]),
        _ => out.to_owned(),
    }
}

/// Makes `name` differ from all in `taken`, and takes it.
pub(crate) fn free(name: &str, taken: &mut HashSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut suffix = 2;
    while !taken.insert(candidate.clone()) {
        let end = format!("_{suffix}");
        candidate = format!("{}{end}", &name[..name.len().min(MAX_TABLE - end.len())]);
        suffix += 1;
    }
    candidate
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_renamed_the_same_way_each_time() {
        let raw: Vec<String> =
            ["id", "", "ID", "name", "name", "na\u{0}me", " x ", "column_2", "id_2"].map(str::to_owned).to_vec();
        let (names, notes) = columns(&raw);
        assert_eq!(names, ["id", "column_2_2", "ID_3", "name", "name_2", "na_me", "x", "column_2", "id_2"]);
        assert_eq!(notes.len(), 5);
        let (long, _) = columns(&["x".repeat(300), "x".repeat(300)]);
        assert_eq!(long[0].chars().count(), MAX_COLUMN);
        assert!(long[1].ends_with("_2") && long[1].chars().count() == MAX_COLUMN);
        let odd = r#"a"b'; DROP TABLE x --"#.to_owned();
        assert_eq!(columns(std::slice::from_ref(&odd)).0, [odd]);
    }

    #[test]
    fn table_names_fit_the_strict_grammar() {
        for (text, name) in [
            ("Objednávky 2024", "objednavky_2024"),
            ("2024", "t_2024"),
            ("--", "table"),
            ("日本", "table"),
            ("a.b-c", "a_b_c"),
            ("orders_rejected", "orders_rejected_file"),
        ] {
            assert_eq!(table(text), name);
            assert!(agnes_core::ident::TableName::parse(&table(text)).is_ok());
        }
        assert!(table(&"x".repeat(300)).len() <= 55);
        let mut taken = HashSet::new();
        assert_eq!([free("a", &mut taken), free("a", &mut taken), free("a", &mut taken)], ["a", "a_2", "a_3"]);
    }
}
