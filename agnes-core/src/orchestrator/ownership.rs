//! Who owns a view's name: first come, first served. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ident::SourceName;

/// What to write to `view_ownership`, and who must hide what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// `(name, source)` to insert.
    pub(super) claimed: Vec<(String, String)>,
    /// `(name, source)` to delete.
    pub(super) released: Vec<(String, String)>,
    /// `(source, name)` that another source owns, with that source.
    pub(super) collisions: BTreeMap<(SourceName, String), String>,
}

/// Decides for the names that each source that was read publishes now. `settled` are
/// sources that were read completely: names that they own and no longer publish, and names
/// of sources in `removed`, are released before anybody claims.
pub(super) fn decide(
    owners: &[(String, String)],
    published: &BTreeMap<SourceName, BTreeSet<String>>,
    removed: &BTreeSet<String>,
    all_readable: bool,
) -> Claims {
    let mut claims = Claims::default();
    let mut owner: HashMap<String, String> = HashMap::new();
    for (name, source) in owners {
        let gone = removed.contains(source)
            || published.get(source.as_str()).is_some_and(|names| !names.contains(&name.to_lowercase()));
        // A name is not released on a transient failure of anybody.
        if gone && all_readable {
            claims.released.push((name.clone(), source.clone()));
        } else {
            owner.insert(name.to_lowercase(), source.clone());
        }
    }
    for (source, names) in published {
        for name in names {
            match owner.get(name) {
                Some(other) if other != source.as_str() => {
                    claims.collisions.insert((source.clone(), name.clone()), other.clone());
                }
                Some(_) => {}
                None => {
                    owner.insert(name.clone(), source.to_string());
                    claims.claimed.push((name.clone(), source.to_string()));
                }
            }
        }
    }
    claims
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn published(sources: &[(&str, &[&str])]) -> BTreeMap<SourceName, BTreeSet<String>> {
        sources
            .iter()
            .map(|(source, names)| {
                (SourceName::parse(source).unwrap(), names.iter().map(ToString::to_string).collect())
            })
            .collect()
    }

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn the_first_keeps_the_name() {
        let claims =
            decide(&[], &published(&[("a", &["orders"]), ("b", &["orders", "other"])]), &BTreeSet::new(), true);
        assert_eq!(claims.claimed, own(&[("orders", "a"), ("other", "b")]));
        assert_eq!(claims.collisions.len(), 1);
    }

    #[test]
    fn a_dropped_name_goes_to_the_other_in_the_same_rebuild() {
        let owners = own(&[("orders", "a")]);
        let now = published(&[("a", &[]), ("b", &["orders"])]);
        let claims = decide(&owners, &now, &BTreeSet::new(), true);
        assert_eq!((claims.released, claims.claimed), (own(&[("orders", "a")]), own(&[("orders", "b")])));
        let unreadable = decide(&owners, &now, &BTreeSet::new(), false);
        assert!(unreadable.released.is_empty() && unreadable.collisions.len() == 1);
    }

    #[test]
    fn an_unreadable_owner_keeps_its_names() {
        let claims = decide(&own(&[("orders", "a")]), &published(&[("b", &["orders"])]), &BTreeSet::new(), false);
        assert_eq!(claims.collisions.values().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_second_time_changes_nothing() {
        let claims = decide(&own(&[("orders", "a")]), &published(&[("a", &["orders"])]), &BTreeSet::new(), true);
        assert_eq!(claims, Claims::default());
    }
}
