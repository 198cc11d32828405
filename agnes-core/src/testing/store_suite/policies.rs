//! Policies.

use super::{at, refused};
use crate::policy::{ColumnRule, FilterMode, Policy, PolicyRules, RowFilter};
use crate::rbac::Group;
use crate::store::Store;

fn policy(id: &str, group: &str, table: &str) -> Policy {
    Policy {
        id: id.into(),
        group_id: group.into(),
        table_id: table.into(),
        rules: PolicyRules {
            filter: Some(RowFilter { predicate: "region = 'it''s \"EU\"'".into(), mode: FilterMode::Restrictive }),
            columns: [("email".to_owned(), ColumnRule::Hash)].into(),
            ..PolicyRules::default()
        },
        version: 1,
        created_at: Some(at(0)),
        created_by: Some("ann".into()),
        updated_at: None,
        updated_by: None,
    }
}

pub(super) async fn run(store: &dyn Store) {
    let (access, policies) = (store.access(), store.policies());
    for id in ["g1", "g2"] {
        let group = Group {
            id: id.into(),
            name: format!("group {id}"),
            description: None,
            is_system: false,
            created_at: None,
            created_by: None,
        };
        access.insert_group(&group).await.unwrap();
    }
    assert!(policies.list().await.unwrap().is_empty());
    let first = policy("p1", "g1", "orders");
    let before = store.revision();
    policies.insert(&first).await.unwrap();
    assert!(store.revision() > before, "decisions depend on it");
    assert_eq!(policies.get("p1").await.unwrap(), Some(first.clone()));
    refused(policies.insert(&policy("p2", "g1", "ORDERS")).await, "policy_exists");
    refused(policies.insert(&policy("p2", "nobody", "orders")).await, "group_not_found");
    policies.insert(&policy("p2", "g2", "Orders")).await.unwrap();
    assert_eq!(policies.get("p2").await.unwrap().unwrap().table_id, "orders");

    let snapshot = access.snapshot().await.unwrap();
    assert_eq!(snapshot.revision, store.revision());
    assert_eq!(snapshot.policies["orders"].iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["p1", "p2"]);

    // A change names the version it was made from.
    let changed = Policy {
        rules: PolicyRules { columns: [("email".to_owned(), ColumnRule::Hidden)].into(), ..PolicyRules::default() },
        version: 2,
        updated_at: Some(at(5)),
        updated_by: Some("bob".into()),
        ..first.clone()
    };
    let before = store.revision();
    policies.update(&changed).await.unwrap();
    assert!(store.revision() > before);
    assert_eq!(policies.get("p1").await.unwrap(), Some(changed.clone()));
    refused(policies.update(&changed).await, "policy_changed");
    refused(policies.update(&Policy { id: "p9".into(), ..changed.clone() }).await, "policy_not_found");

    let before = store.revision();
    assert_eq!(policies.delete("p1", at(9), "cy").await.unwrap(), changed);
    assert!(store.revision() > before);
    refused(policies.delete("p1", at(9), "cy").await, "policy_not_found");
    assert_eq!(policies.get("p1").await.unwrap(), None);
    let history = policies.history("p1").await.unwrap();
    assert_eq!(history.iter().map(|v| v.version).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!((history[0].rules.as_ref(), history[0].changed_by.as_deref()), (None, Some("cy")));
    assert_eq!((history[2].rules.as_ref(), history[2].changed_at), (Some(&first.rules), Some(at(0))));

    // With a group go its policies.
    access.delete_group("g2").await.unwrap();
    assert!(policies.list().await.unwrap().is_empty());
    assert!(access.snapshot().await.unwrap().policies.is_empty());
}
