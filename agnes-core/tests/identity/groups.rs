//! Groups and memberships as admins see and change them, and what each person may use.

use agnes_core::CallContext;
use agnes_core::rbac::{ClientKind, ResourceType};

use crate::support::{Site, on_both_stores, owner, refused};

on_both_stores! { names_and_members who_may_what the_last_admin }

async fn names_and_members(site: Site) {
    let identity = site.engine.identity();
    site.user("ann@acme.example").await;
    identity.create_group(&owner(), "fin", Some("Finance")).await.unwrap();
    identity.add_member(&owner(), "fin", "ann@acme.example").await.unwrap();
    let group = identity.update_group(&owner(), "fin", Some(" Finance "), None).await.unwrap();
    assert_eq!((group.name.as_str(), group.description.as_deref()), ("Finance", Some("Finance")));
    let group = identity.update_group(&owner(), "Finance", None, Some("money")).await.unwrap();
    assert_eq!((group.name.as_str(), group.description.as_deref()), ("Finance", Some("money")));
    refused(identity.update_group(&owner(), "Finance", Some(" "), None).await, "name_required");
    refused(identity.update_group(&owner(), "Finance", Some("everyone"), None).await, "group_exists");
    refused(identity.update_group(&owner(), "Admin", Some("Boss"), None).await, "system_group_rename");
    refused(identity.update_group(&owner(), "none", Some("x"), None).await, "group_not_found");
    let mine = identity.memberships(&owner(), "ann@acme.example").await.unwrap();
    let mine: Vec<_> = mine.iter().map(|m| (m.group_name.as_str(), m.origin.as_str(), m.source.as_str())).collect();
    assert_eq!(mine, [("Everyone", "system", "system_seed"), ("Finance", "custom", "admin")]);
    assert_eq!(identity.rename_user(&owner(), "ann@acme.example", " Ann ").await.unwrap().name.as_deref(), Some("Ann"));
    assert_eq!(site.audit("user_group.updated").await.len(), 4);
}

async fn who_may_what(site: Site) {
    let identity = site.engine.identity();
    site.user("ann@acme.example").await;
    let ann = identity.principal_of(&owner(), "ann@acme.example", ClientKind::Api).await.unwrap();
    let ann = CallContext::new(ann);
    identity.grant(&owner(), "Everyone", ResourceType::Table, "orders").await.unwrap();
    identity.grant(&owner(), "Admin", ResourceType::Table, "salaries").await.unwrap();
    let mine = identity.my_access(&ann).await.unwrap();
    assert_eq!(mine, identity.effective_access(&owner(), "ann@acme.example").await.unwrap());
    assert!(!mine.is_admin);
    assert_eq!(mine.items.iter().map(|item| item.resource_id.as_str()).collect::<Vec<_>>(), ["orders"]);
    assert_eq!(mine.items[0].via_groups[0].group_name, "Everyone");
    refused(identity.effective_access(&ann, "ann@acme.example").await, "admin_required");
    refused(identity.memberships(&ann, "ann@acme.example").await, "admin_required");
    identity.set_active(&owner(), "ann@acme.example", false).await.unwrap();
    refused(identity.my_access(&ann).await, "inactive_user");
    assert!(identity.effective_access(&owner(), "ann@acme.example").await.unwrap().items.is_empty());
}

/// On every path; the service does not count.
async fn the_last_admin(site: Site) {
    site.engine.sign_in().start().await.unwrap();
    let identity = site.engine.identity();
    site.admin("ann@acme.example").await;
    let ann = site.signed_in("ann@acme.example").await;
    for by in [&owner(), &ann] {
        let itself = if std::ptr::eq(by, &ann) { "self_target" } else { "last_admin" };
        refused(identity.set_active(by, "ann@acme.example", false).await, itself);
        refused(identity.remove_user(by, "ann@acme.example").await, itself);
        refused(identity.remove_member(by, "Admin", "ann@acme.example").await, "last_admin");
        refused(identity.delete_group(by, "Admin").await, "system_group_delete");
    }
    site.admin("bob@acme.example").await;
    let by = owner();
    let (x, y) = futures::join!(
        identity.set_active(&by, "ann@acme.example", false),
        identity.remove_member(&ann, "Admin", "bob@acme.example"),
    );
    let both = (x.is_ok(), y.is_ok());
    assert!(both == (true, false) || both == (false, true), "{both:?}");
}
