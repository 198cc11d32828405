//! What the policies leave of a table for one caller: pure, values in, values out.
//!
//! | Caller's granting groups | Rows | A column |
//! |---|---|---|
//! | one without a policy | all (restrictive filters still close) | visible |
//! | permissive filters `a`, `b` | `a OR b` | the least masked of the groups' rules |
//! | a restrictive filter `r` in any group of theirs | `... AND r` | |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ColumnRule, Distribution, FilterMode, Policy};
use crate::rbac::{AccessSnapshot, EVERYONE_GROUP, Principal, ResourceType};

/// What is left of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Narrowing {
    /// A row passes one of these; empty: every row does.
    pub any_of: BTreeSet<String>,
    /// A row passes all of these.
    pub all_of: BTreeSet<String>,
    /// Columns that are not shown as they are, by case-folded name.
    pub columns: BTreeMap<String, ColumnRule>,
    /// Tables that the expressions may read, case-folded.
    pub mapping_tables: BTreeSet<String>,
    /// What leaves the server.
    pub distribution: Distribution,
    /// `(id, version)` of the policies that count, whether or not they change anything.
    pub policies: BTreeSet<(String, u32)>,
}

impl Narrowing {
    /// Whether the table is read as it is.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.filters_rows() && self.columns.is_empty()
    }

    /// Whether rows may be missing.
    #[must_use]
    pub fn filters_rows(&self) -> bool {
        !(self.any_of.is_empty() && self.all_of.is_empty())
    }

    /// The rule of a column; none for one that is visible.
    #[must_use]
    pub fn rule(&self, column: &str) -> Option<&ColumnRule> {
        self.columns.get(&column.to_lowercase())
    }

    /// Whether a column exists for the caller.
    #[must_use]
    pub fn shows(&self, column: &str) -> bool {
        self.rule(column) != Some(&ColumnRule::Hidden)
    }
}

/// The groups whose policies count for a caller, and whether the caller passes as an admin.
/// The owner of the data folder counts as a member of `Admin` and `Everyone`.
pub(super) fn groups_of<'s>(snapshot: &'s AccessSnapshot, principal: &Principal) -> (BTreeSet<&'s str>, bool) {
    let admin = snapshot.is_admin(principal);
    if principal.is_trusted_owner() {
        let everyone = snapshot.groups.values().find(|group| group.is_system && group.name == EVERYONE_GROUP);
        let everyone = everyone.map(|group| group.id.as_str());
        return (snapshot.admin_group.as_deref().into_iter().chain(everyone).collect(), admin);
    }
    let mine = snapshot.groups_of.get(principal.user_id()).into_iter().flatten().map(String::as_str);
    (mine.collect(), admin)
}

/// What the policies of `snapshot` leave for `principal` of every table that has any: one
/// question, not one per table. A table that is not listed is not narrowed. It says
/// nothing about who may read a table; grants do.
#[must_use]
pub fn narrowings(snapshot: &AccessSnapshot, principal: &Principal) -> BTreeMap<String, Narrowing> {
    let (mine, admin) = groups_of(snapshot, principal);
    let narrow = |(table, policies): (&String, &Vec<Policy>)| {
        let found = narrow(snapshot, &mine, admin, table, policies);
        (found != Narrowing::default()).then(|| (table.clone(), found))
    };
    snapshot.policies.iter().filter_map(narrow).collect()
}

/// What `policies`, all of the table with this id, leave of it for `principal`.
#[must_use]
pub fn effective(policies: &[Policy], snapshot: &AccessSnapshot, principal: &Principal, table_id: &str) -> Narrowing {
    let (mine, admin) = groups_of(snapshot, principal);
    narrow(snapshot, &mine, admin, &table_id.to_lowercase(), policies)
}

fn narrow(
    snapshot: &AccessSnapshot,
    mine: &BTreeSet<&str>,
    admin: bool,
    table: &str,
    policies: &[Policy],
) -> Narrowing {
    let counted: Vec<&Policy> = policies
        .iter()
        .filter(|p| mine.contains(p.group_id.as_str()) && (!admin || p.rules.applies_to_admin))
        .collect();
    let mut narrowing = Narrowing::default();
    if counted.is_empty() {
        return narrowing;
    }
    let grants = snapshot.grants.get(&(ResourceType::Table, table.to_owned()));
    let mut granting: BTreeSet<&str> =
        grants.into_iter().flatten().map(|(group, _)| group.as_str()).filter(|group| mine.contains(group)).collect();
    if admin {
        // An admin needs no grant; where a policy applies to them, it does instead of one.
        granting.extend(counted.iter().map(|p| p.group_id.as_str()));
    }
    for policy in &counted {
        narrowing.policies.insert((policy.id.clone(), policy.version));
        narrowing.mapping_tables.extend(policy.rules.mapping_tables.iter().map(|name| name.to_lowercase()));
        narrowing.distribution = narrowing.distribution.max(policy.rules.distribution);
        if let Some(filter) = policy.rules.filter.as_ref().filter(|f| f.mode == FilterMode::Restrictive) {
            narrowing.all_of.insert(filter.predicate.clone());
        }
    }
    let mut rules: Vec<Option<&Policy>> = Vec::new();
    for group in granting {
        let mut of_group = counted.iter().filter(|p| p.group_id == group).peekable();
        if of_group.peek().is_none() {
            rules.push(None);
        }
        rules.extend(of_group.map(|p| Some(*p)));
    }
    let permissive = |policy: &Option<&Policy>| -> Option<String> {
        let filter = policy.as_ref()?.rules.filter.as_ref()?;
        (filter.mode == FilterMode::Permissive).then(|| filter.predicate.clone())
    };
    // One group that sees every row opens every row.
    narrowing.any_of = rules.iter().map(permissive).collect::<Option<BTreeSet<_>>>().unwrap_or_default();
    let of_group = |policy: &Option<&Policy>| -> BTreeMap<String, ColumnRule> {
        let columns = policy.iter().flat_map(|p| &p.rules.columns);
        columns.map(|(name, rule)| (name.to_lowercase(), rule.clone())).collect()
    };
    let mut groups = rules.iter().map(of_group);
    if let Some(first) = groups.next() {
        narrowing.columns = groups.fold(first, |least, other| {
            // A column that one group sees as it is, the caller does.
            least
                .into_iter()
                .filter_map(|(name, rule)| {
                    let rule = other.get(&name)?.clone().min(rule);
                    Some((name, rule))
                })
                .collect()
        });
    }
    narrowing
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Keep, PolicyRules, RowFilter};
    use crate::rbac::{ADMIN_GROUP, AuthMethod, ClientKind, Group};

    fn group(id: &str, name: &str, is_system: bool) -> Group {
        Group { id: id.into(), name: name.into(), description: None, is_system, created_at: None, created_by: None }
    }

    /// Groups `g0` to `g3`, `ga` (Admin), `ge` (Everyone); a user in each set that is asked.
    fn snapshot(member: &[usize], granted: &[usize], admin: bool) -> AccessSnapshot {
        let mut s = AccessSnapshot { admin_group: Some("ga".into()), ..AccessSnapshot::default() };
        s.groups.insert("ga".into(), group("ga", ADMIN_GROUP, true));
        s.groups.insert("ge".into(), group("ge", EVERYONE_GROUP, true));
        s.active_users.insert("u".into(), "u@acme.example".into());
        let mut mine: BTreeSet<String> = member.iter().map(|n| format!("g{n}")).collect();
        mine.insert("ge".into());
        if admin {
            mine.insert("ga".into());
        }
        s.groups_of.insert("u".into(), mine);
        let grants = granted.iter().map(|n| (format!("g{n}"), format!("grant{n}"))).collect();
        s.grants.insert((ResourceType::Table, "t".into()), grants);
        s
    }

    fn policy(group: &str, filter: Option<(&str, FilterMode)>, columns: &[(&str, ColumnRule)]) -> Policy {
        Policy {
            id: format!("p-{group}"),
            group_id: group.into(),
            table_id: "t".into(),
            rules: PolicyRules {
                filter: filter.map(|(predicate, mode)| RowFilter { predicate: predicate.into(), mode }),
                columns: columns.iter().map(|(n, r)| ((*n).to_owned(), r.clone())).collect(),
                ..PolicyRules::default()
            },
            version: 1,
            created_at: None,
            created_by: None,
            updated_at: None,
            updated_by: None,
        }
    }

    fn user() -> Principal {
        Principal::user("u", AuthMethod::Session, ClientKind::Web)
    }

    fn texts(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    use FilterMode::{Permissive, Restrictive};

    #[test]
    fn filters_meet() {
        let check = |member: &[usize], granted: &[usize], policies: &[Policy], any: &[&str], all: &[&str]| {
            let found = effective(policies, &snapshot(member, granted, false), &user(), "T");
            assert_eq!((texts(&found.any_of), texts(&found.all_of)), (any.to_vec(), all.to_vec()));
        };
        let eu = policy("g0", Some(("eu", Permissive)), &[]);
        let us = policy("g1", Some(("us", Permissive)), &[]);
        let live = policy("g2", Some(("live", Restrictive)), &[]);
        let ours = policy("ge", Some(("ours", Restrictive)), &[]);
        let both = [eu.clone(), us.clone()];
        check(&[0], &[0], &both, &["eu"], &[]);
        check(&[0, 1], &[0, 1], &both, &["eu", "us"], &[]);
        // A grant without a filter opens every row.
        check(&[0, 3], &[0, 3], &both, &[], &[]);
        // A permissive filter of a group without a grant opens nothing.
        check(&[0, 1], &[0], &both, &["eu"], &[]);
        check(&[0, 2], &[0, 2], &[eu.clone(), live.clone()], &[], &["live"]);
        check(&[0, 2], &[0], &[eu.clone(), live.clone()], &["eu"], &["live"]);
        // A restrictive one closes whichever group granted.
        check(&[0], &[0], &[eu, ours], &["eu"], &["ours"]);
        check(&[3], &[3], &both, &[], &[]);
    }

    #[test]
    fn the_least_masked_wins() {
        let rule = |a: &[(&str, ColumnRule)], b: Option<&[(&str, ColumnRule)]>| {
            let mut policies = vec![policy("g0", None, a)];
            policies.extend(b.map(|b| policy("g1", None, b)));
            effective(&policies, &snapshot(&[0, 1], &[0, 1], false), &user(), "t").columns
        };
        let (hash, null, hidden) = (ColumnRule::Hash, ColumnRule::Null, ColumnRule::Hidden);
        let partial = ColumnRule::Partial { keep: 2, from: Keep::End };
        assert!(rule(&[("a", hidden.clone())], None).is_empty(), "visible beats hidden");
        assert!(rule(&[("a", hidden.clone())], Some(&[("b", null.clone())])).is_empty());
        let least = rule(&[("A", hidden.clone())], Some(&[("a", null.clone())]));
        assert_eq!(least, [("a".to_owned(), null)].into(), "masked beats hidden");
        let least = rule(&[("a", hash)], Some(&[("a", partial.clone())]));
        assert_eq!(least, [("a".to_owned(), partial)].into());
    }

    #[test]
    fn admins_are_narrowed_by_what_says_so() {
        let mut own = policy("ga", Some(("safe", Permissive)), &[("a", ColumnRule::Hidden)]);
        let admin = snapshot(&[], &[], true);
        assert_eq!(effective(std::slice::from_ref(&own), &admin, &user(), "t"), Narrowing::default());
        own.rules.applies_to_admin = true;
        let found = effective(std::slice::from_ref(&own), &admin, &user(), "t");
        assert_eq!(texts(&found.any_of), ["safe"]);
        assert!(!found.shows("A"));
        let owner = Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api);
        assert_eq!(effective(std::slice::from_ref(&own), &admin, &owner, "t"), found);
        // Not a member of the group: it is not theirs.
        own.group_id = "g3".into();
        assert_eq!(effective(&[own], &admin, &owner, "t"), Narrowing::default());
    }

    fn rules() -> impl Strategy<Value = Policy> {
        let filter = prop::option::of((0..3_usize, any::<bool>()));
        let column = prop_oneof![
            Just(ColumnRule::Hidden),
            Just(ColumnRule::Null),
            Just(ColumnRule::Hash),
            (1..5_u32).prop_map(|keep| ColumnRule::Partial { keep, from: Keep::Start }),
        ];
        let columns = prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), column, 0..3);
        (filter, columns, any::<bool>(), any::<bool>()).prop_map(|(filter, columns, admin, server)| {
            let columns: Vec<_> = columns.into_iter().collect();
            let text = |n| ["x", "y", "z"][n];
            let mode = |restrictive| if restrictive { Restrictive } else { Permissive };
            let mut policy = policy("", filter.map(|(n, r)| (text(n), mode(r))), &columns);
            policy.rules.applies_to_admin = admin;
            policy.rules.distribution = if server { Distribution::ServerOnly } else { Distribution::Slice };
            policy
        })
    }

    /// At most one policy for each of `g0` to `g3`, `ge`, `ga`.
    fn policies() -> impl Strategy<Value = Vec<Policy>> {
        prop::collection::vec(prop::option::of(rules()), 6).prop_map(|all| {
            let named = all.into_iter().zip(["g0", "g1", "g2", "g3", "ge", "ga"]);
            named
                .filter_map(|(policy, group)| {
                    policy.map(|p| Policy { id: format!("p-{group}"), group_id: group.into(), ..p })
                })
                .collect()
        })
    }

    /// Whether a row that passes just the predicates in `row` is read.
    fn reads(narrowing: &Narrowing, row: &[&str]) -> bool {
        let passes = |p: &String| row.contains(&p.as_str());
        (narrowing.any_of.is_empty() || narrowing.any_of.iter().any(passes)) && narrowing.all_of.iter().all(passes)
    }

    proptest! {
        #[test]
        fn one_table_is_what_the_set_says(
            policies in policies(), member in prop::collection::btree_set(0..4_usize, 0..4),
            granted in prop::collection::btree_set(0..4_usize, 0..4), admin in any::<bool>(),
        ) {
            let (member, granted): (Vec<_>, Vec<_>) = (member.into_iter().collect(), granted.into_iter().collect());
            let mut s = snapshot(&member, &granted, admin);
            s.policies.insert("t".into(), policies.clone());
            let set = narrowings(&s, &user());
            let one = effective(&policies, &s, &user(), "t");
            prop_assert_eq!(set.get("t").cloned().unwrap_or_default(), one.clone());
            // The order in which policies are kept changes nothing.
            let mut turned = policies;
            turned.reverse();
            prop_assert_eq!(effective(&turned, &s, &user(), "t"), one);
        }

        /// As the words say it, computed the slow way: row by row, group by group.
        #[test]
        fn it_means_what_the_words_say(
            policies in policies(), member in prop::collection::btree_set(0..4_usize, 1..4),
            granted in prop::collection::btree_set(0..4_usize, 1..4),
            row in prop::sample::subsequence(vec!["x", "y", "z"], 0..=3),
        ) {
            let (member, granted): (Vec<_>, Vec<_>) = (member.into_iter().collect(), granted.into_iter().collect());
            let s = snapshot(&member, &granted, false);
            let granting: Vec<String> =
                member.iter().filter(|n| granted.contains(n)).map(|n| format!("g{n}")).collect();
            prop_assume!(!granting.is_empty());
            let mine: Vec<String> = member.iter().map(|n| format!("g{n}")).chain(["ge".to_owned()]).collect();
            let of = |group: &String| policies.iter().find(|p| p.group_id == *group);
            let opens = granting.iter().any(|group| match of(group).and_then(|p| p.rules.filter.as_ref()) {
                Some(f) if f.mode == Permissive => row.contains(&f.predicate.as_str()),
                _ => true,
            });
            let closed = mine.iter().filter_map(of).filter_map(|p| p.rules.filter.as_ref())
                .any(|f| f.mode == Restrictive && !row.contains(&f.predicate.as_str()));
            let found = effective(&policies, &s, &user(), "t");
            prop_assert_eq!(reads(&found, &row), opens && !closed);
            for column in ["a", "b", "c"] {
                let least = granting.iter().map(|g| of(g).and_then(|p| p.rules.columns.get(column)).cloned()).min();
                prop_assert_eq!(found.rule(column).cloned(), least.flatten());
            }
            let server = mine.iter().filter_map(of).any(|p| p.rules.distribution == Distribution::ServerOnly);
            prop_assert_eq!(found.distribution == Distribution::ServerOnly, server);
        }

        /// One more granting group never takes anything, as long as it brings no restrictive filter.
        #[test]
        fn another_grant_only_opens(
            policies in policies(), granted in prop::collection::btree_set(0..3_usize, 1..3),
            row in prop::sample::subsequence(vec!["x", "y", "z"], 0..=3),
        ) {
            let closes = |p: &Policy| p.rules.filter.as_ref().is_some_and(|f| f.mode == Restrictive);
            prop_assume!(!policies.iter().any(|p| p.group_id == "g3" && closes(p)));
            let granted: Vec<usize> = granted.into_iter().collect();
            let more: Vec<usize> = granted.iter().copied().chain([3]).collect();
            let before = effective(&policies, &snapshot(&granted, &granted, false), &user(), "t");
            let after = effective(&policies, &snapshot(&more, &more, false), &user(), "t");
            prop_assert!(!reads(&before, &row) || reads(&after, &row));
            for column in ["a", "b", "c"] {
                prop_assert!(after.rule(column) <= before.rule(column));
            }
        }
    }
}
