//! Asking for access: who may ask, what a reviewer sees, what an approval gives.

use agnes_core::CallContext;
use agnes_core::identity::{Given, RequestStatus};
use agnes_core::rbac::{AuthMethod, ClientKind, Principal, ResourceType};

use crate::support::{Site, on_both_stores, owner, refused};

on_both_stores! { asking answering what_an_approval_gives }

const TABLE: ResourceType = ResourceType::Table;

/// The tables `orders` with 3 rows and `teams` with 1.
async fn publish(site: &Site) {
    let folder = site.root.path().join("extracts/shop");
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let conn = duckdb::Connection::open(folder.join("extract.duckdb")).unwrap();
    conn.execute_batch(
        "CREATE TABLE _meta(table_name VARCHAR NOT NULL, description VARCHAR, rows BIGINT, size_bytes BIGINT, \
         extracted_at TIMESTAMP, query_mode VARCHAR)",
    )
    .unwrap();
    for (name, rows) in [("orders", 3), ("teams", 1)] {
        let file = folder.join(format!("data/{name}.parquet"));
        let file = file.to_string_lossy();
        conn.execute_batch(&format!(
            "COPY (SELECT i FROM range({rows}) t(i)) TO '{file}' (FORMAT parquet); \
             INSERT INTO _meta VALUES ('{name}', NULL, {rows}, 0, TIMESTAMP '2026-01-01', 'local'); \
             CREATE VIEW {name} AS SELECT * FROM read_parquet('{file}')"
        ))
        .unwrap();
    }
    conn.execute_batch("CHECKPOINT").unwrap();
    drop(conn);
    site.engine.orchestrator().rebuild(&owner()).await.unwrap();
}

async fn as_user(site: &Site, email: &str) -> CallContext {
    site.user(email).await;
    CallContext::new(site.engine.identity().principal_of(&owner(), email, ClientKind::Api).await.unwrap())
}

async fn asking(site: Site) {
    publish(&site).await;
    let (ann, bob) = (as_user(&site, "ann@acme.example").await, as_user(&site, "bob@acme.example").await);
    let requests = site.engine.access_requests();
    let orders = requests.ask(&ann, TABLE, " Orders ", Some(" for the report ")).await.unwrap();
    assert_eq!((orders.status, orders.reason.as_deref()), (RequestStatus::Pending, Some("for the report")));
    // What exists and what does not is answered alike, and kept as it was written.
    let nothing = requests.ask(&ann, TABLE, "No Such Table", None).await.unwrap();
    assert_eq!((orders.resource_id.as_str(), nothing.resource_id.as_str()), ("Orders", "No Such Table"));
    refused(requests.ask(&ann, TABLE, "ORDERS", None).await, "already_pending");
    refused(requests.ask(&ann, TABLE, "no such table", None).await, "already_pending");
    refused(requests.ask(&ann, TABLE, "  ", None).await, "resource_id_required");
    refused(requests.ask(&ann, TABLE, "x", Some(&"x".repeat(2001))).await, "reason_too_long");
    refused(requests.ask(&ann, TABLE, "agnes_audit", None).await, "already_granted");
    refused(requests.ask(&owner(), TABLE, "orders", None).await, "already_granted");
    for n in 0..18 {
        requests.ask(&ann, TABLE, &format!("t{n}"), None).await.unwrap();
    }
    refused(requests.ask(&ann, TABLE, "one more", None).await, "too_many_requests_pending");
    // One's own, and nobody else's.
    assert_eq!(requests.mine(&ann, None, 5, 18).await.unwrap().len(), 2);
    assert!(requests.mine(&bob, None, 50, 0).await.unwrap().is_empty());
    refused(requests.cancel(&bob, &orders.id).await, "request_not_found");
    refused(requests.pending(&bob, 50, 0).await, "admin_required");
    refused(requests.preview(&bob, &orders.id, "Everyone").await, "admin_required");
    refused(requests.approve(&bob, &orders.id, "Everyone", None).await, "admin_required");
    refused(requests.deny(&bob, &orders.id, None).await, "admin_required");
    assert_eq!(requests.cancel(&ann, &orders.id).await.unwrap().status, RequestStatus::Cancelled);
    refused(requests.cancel(&ann, &orders.id).await, "not_pending");
    requests.ask(&ann, TABLE, "orders", None).await.unwrap();
    let stranger = CallContext::new(Principal::user("nobody", AuthMethod::Pat, ClientKind::Api));
    refused(requests.ask(&stranger, TABLE, "orders", None).await, "inactive_user");
    let seen = site.engine.identity().see_as(&owner(), "bob@acme.example").await.unwrap();
    refused(requests.ask(&seen, TABLE, "orders", None).await, "read_only_view");
}

async fn answering(site: Site) {
    publish(&site).await;
    let identity = site.engine.identity();
    let ann = as_user(&site, "ann@acme.example").await;
    site.user("bob@acme.example").await;
    for group in ["eu", "us"] {
        identity.create_group(&owner(), group, None).await.unwrap();
    }
    identity.add_member(&owner(), "eu", "bob@acme.example").await.unwrap();
    identity.grant(&owner(), "eu", TABLE, "orders").await.unwrap();
    let requests = site.engine.access_requests();
    let known = requests.ask(&ann, TABLE, "ORDERS", Some("why")).await.unwrap();
    let unknown = requests.ask(&ann, TABLE, "nothing", None).await.unwrap();
    let (rows, total) = requests.pending(&owner(), 50, 0).await.unwrap();
    assert_eq!((rows.len(), total), (2, 2));
    let row = rows.iter().find(|row| row.request.id == known.id).unwrap();
    assert_eq!((row.user_email.as_str(), row.resource_exists), ("ann@acme.example", true));
    assert_eq!(row.user_groups.iter().map(|g| g.group_name.as_str()).collect::<Vec<_>>(), ["Everyone"]);
    let having: Vec<_> = row.groups_with_grant.iter().map(|g| (g.name.as_str(), g.member_count)).collect();
    assert_eq!(having, [("eu", 1)]);
    assert!(!rows.iter().find(|row| row.request.id == unknown.id).unwrap().resource_exists);
    assert_eq!(requests.pending(&owner(), 1, 1).await.unwrap().0.len(), 1);
    // Refused, with words that who asked may read.
    requests.deny(&owner(), &unknown.id, Some("there is no such table")).await.unwrap();
    let mine = requests.mine(&ann, Some(RequestStatus::Denied), 50, 0).await.unwrap();
    assert_eq!(mine[0].review_note.as_deref(), Some("there is no such table"));
    refused(requests.deny(&owner(), &unknown.id, None).await, "not_pending");
    refused(requests.approve(&owner(), &unknown.id, "eu", None).await, "not_pending");
    refused(requests.approve(&owner(), "none", "eu", None).await, "request_not_found");
    refused(requests.approve(&owner(), &known.id, "none", None).await, "group_not_found");
    assert_eq!(site.audit("access_request.").await.len(), 4);
}

async fn what_an_approval_gives(site: Site) {
    publish(&site).await;
    let identity = site.engine.identity();
    let ann = as_user(&site, "ann@acme.example").await;
    let bob = as_user(&site, "bob@acme.example").await;
    identity.create_group(&owner(), "eu", None).await.unwrap();
    identity.add_member(&owner(), "eu", "bob@acme.example").await.unwrap();
    identity.grant(&owner(), "eu", TABLE, "teams").await.unwrap();
    let requests = site.engine.access_requests();
    let asked = requests.ask(&ann, TABLE, "orders", None).await.unwrap();
    let reads = async |who: &CallContext, table: &str| {
        let query = agnes_core::query::Query::new(format!("SELECT count(*) FROM {table}"));
        site.engine.query(who, query).await.is_ok()
    };
    let preview = requests.preview(&owner(), &asked.id, "eu").await.unwrap();
    assert_eq!(preview.approval.given, Given { membership_added: true, grant_added: true });
    assert_eq!(
        (preview.approval.people_gaining_access, &preview.approval.other_tables),
        (2, &vec!["teams".to_owned()])
    );
    let shown = preview.preview.unwrap();
    let rows: Vec<_> =
        shown.changes.iter().map(|c| (c.email.as_str(), c.before.is_none(), c.after.as_ref().unwrap().rows)).collect();
    assert_eq!(rows, [("ann@acme.example", true, Some(3)), ("bob@acme.example", true, Some(3))]);
    assert!(!reads(&ann, "orders").await && !reads(&bob, "orders").await, "looking changes nothing");
    // Just that happens, once, whoever presses the button at the same time.
    let by = owner();
    let (x, y) = futures::join!(
        requests.approve(&by, &asked.id, "eu", Some("welcome")),
        requests.approve(&by, &asked.id, "eu", None)
    );
    assert!(x.is_ok() != y.is_ok());
    let (request, done) = x.or(y).unwrap();
    assert_eq!(request.status, RequestStatus::Approved);
    assert_eq!(done.given, preview.approval.given);
    assert!(reads(&ann, "orders").await && reads(&bob, "orders").await && reads(&ann, "teams").await);
    assert_eq!(identity.grants(&owner(), Some("eu")).await.unwrap().len(), 2);
    refused(requests.ask(&ann, TABLE, "Orders", None).await, "already_granted");
    // Everything there already: the request is answered, nothing more is added.
    let cy = as_user(&site, "cy@acme.example").await;
    let asked = requests.ask(&cy, TABLE, "orders", None).await.unwrap();
    identity.add_member(&owner(), "eu", "cy@acme.example").await.unwrap();
    let (_, done) = requests.approve(&owner(), &asked.id, "eu", None).await.unwrap();
    assert_eq!(done.given, Given { membership_added: false, grant_added: false });
    assert_eq!(done.people_gaining_access, 0);
}
