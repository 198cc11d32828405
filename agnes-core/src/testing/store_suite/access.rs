//! Users, groups, members, grants.

use super::{at, refused};
use crate::identity::User;
use crate::rbac::{ADMIN_GROUP, DirectoryGroup, EVERYONE_GROUP, Grant, Group, Member, MemberSource, ResourceType};
use crate::store::Store;

pub(super) fn user(id: &str, email: &str) -> User {
    User {
        id: id.into(),
        email: email.into(),
        name: Some("A \"Person\" — ž".into()),
        active: true,
        deactivated_at: None,
        deactivated_by: None,
        created_at: Some(at(0)),
        updated_at: None,
        onboarded: false,
        last_pull_at: None,
    }
}

pub(super) fn group(id: &str, name: &str) -> Group {
    Group {
        id: id.into(),
        name: name.into(),
        description: None,
        is_system: false,
        created_at: Some(at(1)),
        created_by: Some("u1".into()),
    }
}

pub(super) fn member(group: &str, user: &str, source: MemberSource) -> Member {
    Member { group_id: group.into(), user_id: user.into(), source, added_at: Some(at(2)), added_by: None }
}

pub(super) fn grant(id: &str, group: &str, resource_type: ResourceType, resource: &str) -> Grant {
    Grant {
        id: id.into(),
        group_id: group.into(),
        resource_type,
        resource_id: resource.into(),
        assigned_at: Some(at(3)),
        assigned_by: Some("u1".into()),
    }
}

/// A caller who stops waiting neither takes a change back nor hides it.
async fn abandoned(store: &dyn Store) {
    let (users, before) = (store.users(), store.revision());
    let late = user("late", "late@acme.example");
    let mut insert = users.insert(&late);
    _ = futures::poll!(insert.as_mut());
    drop(insert);
    for _ in 0..500 {
        if store.revision() != before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_ne!(store.revision(), before);
    users.delete("late").await.unwrap();
}

pub(super) async fn run(store: &dyn Store) {
    let (users, access) = (store.users(), store.access());
    abandoned(store).await;

    // System groups: made once, promoted by name, filled with active users.
    users.insert(&user("early", "early@acme.example")).await.unwrap();
    access.insert_group(&Group { description: Some("kept".into()), ..group("ev", EVERYONE_GROUP) }).await.unwrap();
    access.seed_system_groups(at(0)).await.unwrap();
    access.seed_system_groups(at(1)).await.unwrap();
    let groups = access.groups().await.unwrap();
    assert_eq!(
        groups.iter().map(|g| (g.name.as_str(), g.is_system)).collect::<Vec<_>>(),
        [(ADMIN_GROUP, true), (EVERYONE_GROUP, true)]
    );
    assert_eq!(access.group("ev").await.unwrap().unwrap().description.as_deref(), Some("kept"));
    let admin = groups[0].id.clone();
    assert_eq!(access.group_by_name("Admin").await.unwrap().unwrap().id, admin);
    assert_eq!(access.members("ev").await.unwrap()[0].source, MemberSource::SystemSeed);
    assert_eq!(access.group_by_name(" aDmIn ").await.unwrap().unwrap().id, admin);
    users.delete("early").await.unwrap();
    assert!(access.members("ev").await.unwrap().is_empty());

    // Users.
    let before = store.revision();
    users.insert(&user("u1", "ana@acme.example")).await.unwrap();
    assert!(store.revision() > before);
    users.insert(&user("u2", "bob@acme.example")).await.unwrap();
    refused(users.insert(&user("u3", "ANA@acme.example")).await, "user_exists");
    let ana = users.by_email(" ANA@ACME.example").await.unwrap().unwrap();
    assert_eq!(ana, User { email: "ana@acme.example".into(), ..user("u1", "") });
    assert_eq!(users.get("u1").await.unwrap(), Some(ana));
    assert_eq!(users.get("nobody").await.unwrap(), None);
    assert_eq!(users.list().await.unwrap().iter().map(|u| u.id.as_str()).collect::<Vec<_>>(), ["u1", "u2"]);
    assert_eq!(access.members("ev").await.unwrap().len(), 2);
    users.touch_last_pull("u1", at(9)).await.unwrap();
    assert_eq!(users.get("u1").await.unwrap().unwrap().last_pull_at, Some(at(9)));
    refused(users.set_active("nobody", true, "u1", at(0)).await, "user_not_found");
    refused(users.delete("nobody").await, "user_not_found");

    // Groups.
    access.insert_group(&group("fin", " Finance ")).await.unwrap();
    refused(access.insert_group(&group("x", "FINANCE")).await, "group_exists");
    access.insert_group(&group("ops", "Ops")).await.unwrap();
    // With groups at once, or not at all.
    let of = |id: &str| [member("fin", id, MemberSource::Admin), member("ops", id, MemberSource::Admin)];
    let half = [member("fin", "half", MemberSource::Admin), member("none", "half", MemberSource::Admin)];
    refused(users.insert_with(&user("half", "half@acme.example"), &half).await, "group_not_found");
    assert!(users.by_email("half@acme.example").await.unwrap().is_none());
    users.insert_with(&user("whole", "whole@acme.example"), &of("whole")).await.unwrap();
    assert_eq!(access.snapshot().await.unwrap().groups_of["whole"].len(), 3, "Everyone is one of them");
    users.delete("whole").await.unwrap();
    refused(access.update_group("ops", "finance", None).await, "group_exists");
    refused(access.update_group("none", "finance", None).await, "group_not_found");
    refused(access.update_group(&admin, "Boss", None).await, "system_group_rename");
    access.update_group(&admin, ADMIN_GROUP, Some("new words")).await.unwrap();
    let renamed = access.update_group("ops", "OPS", Some("d")).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.description.as_deref()), ("OPS", Some("d")));
    access.update_group("ops", "Ops", None).await.unwrap();
    refused(access.delete_group("ev").await, "system_group_delete");
    refused(access.delete_group("none").await, "group_not_found");
    assert_eq!(access.group("none").await.unwrap(), None);

    // Members, again and again: a removed row can come back.
    for _ in 0..3 {
        assert!(access.add_member(&member("fin", "u2", MemberSource::Admin)).await.unwrap());
        assert!(!access.add_member(&member("fin", "u2", MemberSource::GoogleSync)).await.unwrap());
        assert_eq!(access.members("fin").await.unwrap(), [member("fin", "u2", MemberSource::Admin)]);
        let groups: Vec<String> = access.memberships("u2").await.unwrap().into_iter().map(|m| m.group_id).collect();
        assert_eq!(groups, ["fin", "ev"], "by name, and this one begins with a space");
        access.remove_member("fin", "u2").await.unwrap();
    }
    refused(access.remove_member("fin", "u2").await, "no_removable_membership");
    refused(access.add_member(&member("none", "u2", MemberSource::Admin)).await, "group_not_found");
    refused(access.add_member(&member("fin", "nobody", MemberSource::Admin)).await, "user_not_found");
    access.add_member(&member("fin", "u1", MemberSource::GoogleSync)).await.unwrap();
    refused(access.remove_member("fin", "u1").await, "no_removable_membership");
    access.add_member(&member("fin", "u2", MemberSource::Admin)).await.unwrap();

    last_admin(store, &admin).await;
    directory(store, &admin).await;
    grants(store, &admin).await;
    parallel(store).await;
}

/// What the directory says replaces what it said before, and nothing else.
async fn directory(store: &dyn Store, admin: &str) {
    use DirectoryGroup::{Admin, Everyone, Named};
    let (users, access) = (store.users(), store.access());
    let set = async |groups: &[DirectoryGroup]| access.replace_directory_groups("u2", groups, at(7)).await;
    let of = async |source| {
        let mine = access.memberships("u2").await.unwrap();
        let mine = mine.into_iter().filter(|member| member.source == source);
        let mut names = Vec::new();
        for member in mine {
            names.push(access.group(&member.group_id).await.unwrap().unwrap().name);
        }
        names
    };
    let named = |name: &str| Named(name.to_owned());
    // The only Admin is u1; u2 is in `Finance` by an admin and in Everyone.
    let others = of(MemberSource::Admin).await;
    let revision = store.revision();
    let change = set(&[named("b@acme.example"), named("a@acme.example"), Everyone, named("ops")]).await.unwrap();
    assert_eq!(
        (change.added.as_slice(), change.removed.len()),
        (["a@acme.example".to_owned(), "b@acme.example".to_owned()].as_slice(), 0)
    );
    assert_eq!(change.ignored, ["ops"], "a group that an admin made stays theirs");
    assert!(store.revision() > revision);
    let made = access.group_by_name("A@acme.example").await.unwrap().unwrap();
    assert!(made.is_from_directory() && !made.is_system);
    assert_eq!(of(MemberSource::GoogleSync).await, ["a@acme.example", "b@acme.example"]);
    assert_eq!(of(MemberSource::SystemSeed).await, [EVERYONE_GROUP], "the first source stays");
    let revision = store.revision();
    assert!(set(&[named("a@acme.example"), named("B@acme.example")]).await.unwrap().is_empty());
    assert_eq!(store.revision(), revision, "nothing changed");
    let change = set(&[named("b@acme.example"), Admin]).await.unwrap();
    assert_eq!((change.added, change.removed), (vec![ADMIN_GROUP.to_owned()], vec!["a@acme.example".to_owned()]));
    // Another Admin is there: it may go, and come back.
    assert_eq!(set(&[named("a@acme.example")]).await.unwrap().removed, [ADMIN_GROUP, "b@acme.example"]);
    assert_eq!(set(&[Admin]).await.unwrap().added, [ADMIN_GROUP]);
    // Now u2 is the last one: all of it is refused, and nothing is changed.
    access.remove_member(admin, "u1").await.unwrap();
    refused(set(&[named("b@acme.example"), named("new@acme.example")]).await, "last_admin");
    assert_eq!(of(MemberSource::GoogleSync).await, [ADMIN_GROUP]);
    assert_eq!(access.group_by_name("new@acme.example").await.unwrap(), None);
    refused(users.set_active("u2", false, "u1", at(7)).await, "last_admin");
    // Two at once, each the only other Admin: one of them must stay.
    access.replace_directory_groups("u1", &[Admin], at(7)).await.unwrap();
    let (a, b) = futures::join!(set(&[]), access.replace_directory_groups("u1", &[], at(7)));
    assert!(a.is_ok() != b.is_ok());
    access.add_member(&member(admin, "u1", MemberSource::Admin)).await.unwrap();
    set(&[]).await.unwrap();
    assert_eq!(of(MemberSource::GoogleSync).await, [""; 0]);
    assert_eq!(of(MemberSource::Admin).await, others);
    refused(access.replace_directory_groups("nobody", &[], at(7)).await, "user_not_found");
    // An Admin by the directory who is put there by hand keeps the first source.
    access.replace_directory_groups("u1", &[], at(7)).await.ok();
    let source = access.members(admin).await.unwrap().remove(0);
    if source.source == MemberSource::GoogleSync {
        access.add_member(&member(admin, "u2", MemberSource::Admin)).await.unwrap();
        access.replace_directory_groups("u1", &[], at(7)).await.unwrap();
        access.add_member(&member(admin, "u1", MemberSource::Admin)).await.unwrap();
        access.remove_member(admin, "u2").await.unwrap();
    }
    for name in ["a@acme.example", "b@acme.example"] {
        let group = access.group_by_name(name).await.unwrap().unwrap();
        access.delete_group(&group.id).await.unwrap();
    }
}

/// Nothing takes the last active Admin away.
async fn last_admin(store: &dyn Store, admin: &str) {
    let (users, access) = (store.users(), store.access());
    access.add_member(&member(admin, "u1", MemberSource::Admin)).await.unwrap();
    refused(access.remove_member(admin, "u1").await, "last_admin");
    refused(users.set_active("u1", false, "u2", at(5)).await, "last_admin");
    refused(users.delete("u1").await, "last_admin");
    access.add_member(&member(admin, "u2", MemberSource::Admin)).await.unwrap();
    let gone = users.set_active("u1", false, "u2", at(5)).await.unwrap();
    assert_eq!((gone.active, gone.deactivated_at, gone.deactivated_by.as_deref()), (false, Some(at(5)), Some("u2")));
    // An inactive Admin does not count.
    refused(access.remove_member(admin, "u2").await, "last_admin");
    access.remove_member("ev", "u1").await.unwrap();
    let back = users.set_active("u1", true, "u2", at(6)).await.unwrap();
    assert_eq!((back.active, back.deactivated_at, back.updated_at), (true, None, Some(at(6))));
    assert_eq!(access.members("ev").await.unwrap().len(), 2);
    // Two at once: one of them must stay.
    let (a, b) = futures::join!(access.remove_member(admin, "u1"), access.remove_member(admin, "u2"));
    assert!(a.is_ok() != b.is_ok());
    assert_eq!(access.members(admin).await.unwrap().len(), 1);
    let left = access.members(admin).await.unwrap()[0].user_id.clone();
    if left != "u1" {
        access.add_member(&member(admin, "u1", MemberSource::Admin)).await.unwrap();
        access.remove_member(admin, "u2").await.unwrap();
    }
}

async fn grants(store: &dyn Store, admin: &str) {
    use ResourceType::{MemoryDomain, Table};
    let access = store.access();
    access.insert_grant(&grant("g1", "fin", Table, "Orders")).await.unwrap();
    refused(access.insert_grant(&grant("g9", "fin", Table, "oRDERS")).await, "grant_exists");
    refused(access.insert_grant(&grant("g9", "none", Table, "orders")).await, "group_not_found");
    access.insert_grant(&grant("g2", "ops", Table, "orders")).await.unwrap();
    access.insert_grant(&grant("g3", "fin", MemoryDomain, "Finance")).await.unwrap();
    access.insert_grant(&grant("g4", "fin", MemoryDomain, "finance")).await.unwrap();
    let ids = |grants: Vec<Grant>| grants.into_iter().map(|g| g.id).collect::<Vec<_>>();
    assert_eq!(ids(access.grants(None).await.unwrap()), ["g3", "g4", "g1", "g2"]);
    assert_eq!(ids(access.grants(Some("ops")).await.unwrap()), ["g2"]);
    assert_eq!(access.grants(Some("ops")).await.unwrap(), [grant("g2", "ops", Table, "orders")]);

    let revision = store.revision();
    let snapshot = access.snapshot().await.unwrap();
    assert_eq!(snapshot.revision, revision);
    assert_eq!(snapshot.admin_group.as_deref(), Some(admin));
    assert_eq!(snapshot.active_users.get("u2").map(String::as_str), Some("bob@acme.example"));
    assert!(snapshot.groups_of["u2"].contains("fin") && !snapshot.groups_of["u2"].contains(admin));
    assert_eq!(snapshot.grants[&(Table, "orders".into())].len(), 2);
    assert!(snapshot.granted_to[&("fin".into(), Table)].contains("orders"));
    assert!(snapshot.granted_to[&("fin".into(), MemoryDomain)].contains("Finance"));
    assert_eq!(store.revision(), revision, "reading changes nothing");

    assert_eq!(access.delete_grant("g2").await.unwrap().group_id, "ops");
    refused(access.delete_grant("g2").await, "grant_not_found");
    access.insert_grant(&grant("g2", "ops", Table, "orders")).await.unwrap();
    assert_eq!(access.delete_grants_of(MemoryDomain, "FINANCE").await.unwrap(), 0);
    assert_eq!(access.delete_grants_of(Table, "ORDERS").await.unwrap(), 2);
    assert!(store.revision() > revision);
    // A group takes members and grants along.
    access.delete_group("fin").await.unwrap();
    assert!(access.grants(None).await.unwrap().is_empty());
    assert!(access.members("fin").await.unwrap().is_empty());
}

/// Readers with open snapshots do not disturb a row that goes and comes.
async fn parallel(store: &dyn Store) {
    let access = store.access();
    let write = async {
        for _ in 0..20 {
            access.add_member(&member("ops", "u2", MemberSource::Admin)).await.unwrap();
            access.remove_member("ops", "u2").await.unwrap();
        }
    };
    let read = async {
        for _ in 0..40 {
            access.snapshot().await.unwrap();
        }
    };
    futures::join!(write, read);
    access.add_member(&member("ops", "u2", MemberSource::Admin)).await.unwrap();
    assert!(access.snapshot().await.unwrap().groups_of["u2"].contains("ops"));
}
