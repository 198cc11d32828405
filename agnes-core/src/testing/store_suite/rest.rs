//! Registry, sources, ownership, audit, internal tables.

use serde_json::json;

use super::{at, refused};
use crate::audit::{AuditEvent, AuditFigures, AuditFilter, AuditRepository, FacetValue, SavedView};
use crate::ident::{SourceName, TableName};
use crate::rbac::{Grant, ResourceType};
use crate::registry::{ColumnMetadata, QueryMode, RegisteredSource, RegisteredTable, SyncStrategy};
use crate::store::{InternalScope, STATE_SCHEMA_VERSION, Store};
use crate::templates::StoredTemplate;

pub(super) async fn run(store: &dyn Store) {
    store.access().seed_system_groups(at(0)).await.unwrap();
    let info = store.schema().await.unwrap();
    assert_eq!((info.version, info.writable), (STATE_SCHEMA_VERSION, true));
    tables(store).await;
    sources(store).await;
    ownership(store).await;
    audit(store).await;
    views(store).await;
    templates(store).await;
    internal(store).await;
    store.checkpoint().await.unwrap();
}

async fn tables(store: &dyn Store) {
    let tables = store.tables();
    // The internal tables are there from the start.
    let names: Vec<_> = tables.list().await.unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["agnes_audit", "agnes_sessions", "agnes_telemetry"]);
    let internal = tables.find("AGNES_AUDIT").await.unwrap().unwrap();
    assert_eq!((internal.query_mode, internal.registered_by.as_deref()), (QueryMode::Internal, Some("system_seed")));
    assert_eq!(
        (internal.source_type.as_deref(), internal.bucket.as_deref()),
        (Some("internal"), Some("Agnes Internal"))
    );

    let mut row =
        RegisteredTable::new(&TableName::parse("orders").unwrap(), "files", &SourceName::parse("sales").unwrap());
    row.sync_strategy = SyncStrategy::Partitioned;
    row.primary_key = Some(vec!["id".into(), "day, month".into()]);
    row.description = Some("it's \"all\" — ž\n".into());
    row.where_filters = Some(json!([{"column": "a", "values": ["x"]}]));
    row.options = Some(json!({"header": true}));
    row.server_only = true;
    row.max_history_days = Some(30);
    row.registered_by = Some("ana".into());
    row.registered_at = Some(at(0));
    tables.upsert(&row).await.unwrap();
    assert_eq!(tables.find("orders").await.unwrap(), Some(row.clone()));
    let changed = RegisteredTable {
        registered_by: Some("bob".into()),
        registered_at: Some(at(99)),
        query_mode: QueryMode::Remote,
        primary_key: None,
        ..row.clone()
    };
    tables.upsert(&changed).await.unwrap();
    let found = tables.find("ORDERS").await.unwrap().unwrap();
    assert_eq!(
        found,
        RegisteredTable { registered_by: row.registered_by.clone(), registered_at: row.registered_at, ..changed }
    );
    // An id wins over a name.
    let other = RegisteredTable { id: "In.C-Old.Orders2".into(), name: "old_orders".into(), ..row.clone() };
    tables.upsert(&other).await.unwrap();
    tables.upsert(&RegisteredTable { id: "old_orders".into(), name: "zz".into(), ..row.clone() }).await.unwrap();
    assert_eq!(tables.find("in.c-old.orders2").await.unwrap().unwrap().name, "old_orders");
    assert_eq!(tables.find("Old_Orders").await.unwrap().unwrap().name, "zz");
    assert_eq!(tables.find("none").await.unwrap(), None);

    // One more row is no other row's id nor name.
    for (id, name) in [("ORDERS", "free"), ("free", "Zz"), ("old_ORDERS", "free")] {
        let taken = RegisteredTable { id: id.into(), name: name.into(), ..row.clone() };
        assert!(!tables.insert(&taken).await.unwrap(), "{id} {name}");
    }
    let free = RegisteredTable { id: "free".into(), name: "free".into(), ..row.clone() };
    assert!(tables.insert(&free).await.unwrap() && !tables.insert(&free).await.unwrap());
    assert_eq!(tables.find("free").await.unwrap(), Some(free.clone()));
    assert!(tables.delete("free").await.unwrap());

    let column = |name: &str, text: &str, written: i64| ColumnMetadata {
        column_name: name.into(),
        basetype: None,
        description: Some(text.into()),
        confidence: "manual".into(),
        updated_at: Some(at(written)),
    };
    tables.set_column_metadata("orders", &[column("b", "1", 9), column("a", "2", 9)], at(0)).await.unwrap();
    tables.set_column_metadata("orders", &[column("b", "3", 9)], at(1)).await.unwrap();
    assert_eq!(tables.column_metadata("orders").await.unwrap(), [column("a", "2", 0), column("b", "3", 1)]);

    // Deleting takes everything of the table along.
    let everyone = store.access().groups().await.unwrap()[1].id.clone();
    let grant = Grant {
        id: "t1".into(),
        group_id: everyone,
        resource_type: ResourceType::Table,
        resource_id: "Orders".into(),
        assigned_at: None,
        assigned_by: None,
    };
    store.access().insert_grant(&grant).await.unwrap();
    store.sync().set_error("orders", "x", at(0)).await.unwrap();
    store.profiles().put("orders", "h", &json!({}), at(0)).await.unwrap();
    store.ownership().apply(&[("orders".into(), "sales".into())], &[], at(0)).await.unwrap();
    let revision = store.revision();
    assert!(tables.delete("orders").await.unwrap());
    assert!(!tables.delete("orders").await.unwrap());
    assert!(store.revision() > revision);
    assert!(store.access().grants(None).await.unwrap().is_empty());
    assert_eq!(store.sync().get("orders").await.unwrap(), None);
    assert!(store.sync().history("orders", 9).await.unwrap().is_empty());
    assert!(store.profiles().get("orders").await.unwrap().is_none());
    assert!(store.ownership().all().await.unwrap().is_empty());
    assert!(tables.column_metadata("orders").await.unwrap().is_empty());
    assert!(tables.delete(&other.id).await.unwrap() && tables.delete("old_orders").await.unwrap());
}

async fn sources(store: &dyn Store) {
    let sources = store.sources();
    let source = RegisteredSource {
        name: SourceName::parse("sales").unwrap(),
        kind: "files".into(),
        config: json!({"path": "/data/ž", "n": 1}),
        schedule: Some("every 15m".into()),
        created_at: Some(at(0)),
        created_by: Some("ana".into()),
    };
    sources.insert(&source).await.unwrap();
    refused(
        sources.insert(&RegisteredSource { name: SourceName::parse("SALES").unwrap(), ..source.clone() }).await,
        "source_exists",
    );
    assert_eq!(sources.get("Sales").await.unwrap(), Some(source.clone()));
    let changed = RegisteredSource { config: json!({}), schedule: None, ..source.clone() };
    sources.update(&changed).await.unwrap();
    assert_eq!(sources.list().await.unwrap(), std::slice::from_ref(&changed));
    let missing = RegisteredSource { name: SourceName::parse("none").unwrap(), ..source };
    refused(sources.update(&missing).await, "source_not_found");
    assert!(sources.delete("SALES").await.unwrap());
    assert!(!sources.delete("sales").await.unwrap());
    assert_eq!(sources.get("sales").await.unwrap(), None);
}

async fn ownership(store: &dyn Store) {
    let owners = store.ownership();
    let pair = |view: &str, source: &str| (view.to_owned(), source.to_owned());
    owners.apply(&[pair("v", "a"), pair("w", "a")], &[], at(0)).await.unwrap();
    owners.apply(&[pair("v", "b"), pair("v", "a")], &[pair("w", "b")], at(1)).await.unwrap();
    assert_eq!(owners.all().await.unwrap(), [pair("v", "a"), pair("w", "a")]);
    // One call hands a name over.
    owners.apply(&[pair("v", "b")], &[pair("v", "a")], at(2)).await.unwrap();
    assert_eq!(owners.all().await.unwrap(), [pair("v", "b"), pair("w", "a")]);
    owners.apply(&[], &[pair("v", "b"), pair("w", "a"), pair("x", "a")], at(3)).await.unwrap();
    assert!(owners.all().await.unwrap().is_empty());
}

fn event(id: &str, seconds: i64, user: &str, action: &str) -> AuditEvent {
    AuditEvent {
        id: id.into(),
        timestamp: at(seconds),
        user_id: Some(user.into()),
        action: action.into(),
        resource: Some("table:orders".into()),
        params: Some(json!({"sql": "select '\u{1}'", "n": null})),
        params_before: None,
        result: Some("success".into()),
        duration_ms: Some(3),
        client_ip: None,
        client_kind: Some("cli".into()),
        correlation_id: Some("r1".into()),
    }
}

async fn audit(store: &dyn Store) {
    let audit = store.audit();
    audit.append(&[]).await.unwrap();
    let one = event("a1", 1, "u1", "query.local");
    let denied = AuditEvent { result: Some("denied".into()), resource: None, ..event("a3", 2, "u2", "query.local") };
    audit.append(&[one.clone(), event("a2", 2, "u1", "group.created"), denied]).await.unwrap();
    let list = async |filter: AuditFilter| {
        let rows = audit.list(&filter).await.unwrap();
        rows.into_iter().map(|e| e.id).collect::<Vec<_>>().join(" ")
    };
    let all = AuditFilter { limit: 9, ..AuditFilter::default() };
    assert_eq!(list(all.clone()).await, "a3 a2 a1");
    assert_eq!(
        audit.list(&AuditFilter { since: None, before: Some((at(2), "a2".into())), ..all.clone() }).await.unwrap(),
        [one]
    );
    assert_eq!(list(AuditFilter { limit: 1, ..all.clone() }).await, "a3");
    assert_eq!(list(AuditFilter { since: Some(at(2)), ..all.clone() }).await, "a3 a2");
    assert_eq!(list(AuditFilter { user_id: Some("u1".into()), ..all.clone() }).await, "a2 a1");
    assert_eq!(list(AuditFilter { action_prefix: Some("query.".into()), ..all.clone() }).await, "a3 a1");
    assert_eq!(list(AuditFilter { action_prefix: Some("q%".into()), ..all.clone() }).await, "");
    assert_eq!(list(AuditFilter { resource: Some("table:orders".into()), ..all.clone() }).await, "a2 a1");
    assert_eq!(list(AuditFilter { result_prefix: Some("den".into()), ..all.clone() }).await, "a3");
    assert_eq!(list(AuditFilter { before: Some((at(2), "a3".into())), ..all.clone() }).await, "a2 a1");
    let told = AuditEvent {
        params: Some(serde_json::json!({"sql": "SELECT 100% _Orders"})),
        client_kind: Some("cli".into()),
        ..event("a4", 3, "u3", "query.local")
    };
    audit.append(&[told]).await.unwrap();
    let text = |text: &str| AuditFilter { text: Some(text.into()), ..all.clone() };
    assert_eq!(list(text("select 100% _orders")).await, "a4");
    assert_eq!(list(text("1000")).await, "", "a text, not a pattern");
    let several = vec!["group.".to_owned(), "query.loc".to_owned()];
    assert_eq!(list(AuditFilter { actions: several, since: Some(at(2)), ..all.clone() }).await, "a4 a3 a2");
    assert_eq!(
        list(AuditFilter { client_kind: Some("cli".into()), user_id: Some("u3".into()), ..all.clone() }).await,
        "a4"
    );
    counted(&*audit, all).await;
}

async fn counted(audit: &dyn AuditRepository, all: AuditFilter) {
    let one = |value: &str, count| FacetValue { value: value.into(), count };
    let [users, actions, results, resources, clients] = audit.facets(at(1), 2).await.unwrap();
    assert_eq!(users, [one("u1", 2), one("u2", 1)]);
    assert_eq!(actions, [one("query.local", 3), one("group.created", 1)]);
    assert_eq!(results, [one("success", 3), one("denied", 1)]);
    assert_eq!((resources, clients), (vec![one("table:orders", 3)], vec![one("cli", 4)]));
    assert!(audit.facets(at(9), 2).await.unwrap().iter().all(Vec::is_empty));
    let figures = audit.figures(&AuditFilter { limit: 1, before: Some((at(0), "x".into())), ..all.clone() }).await;
    let expected = AuditFigures { events_total: 4, active_users: 3, errors: 0, p95_duration_ms: Some(3.0) };
    assert_eq!(figures.unwrap(), expected, "limit and cursor do not matter");
    let none = audit.figures(&AuditFilter { user_id: Some("nobody".into()), ..all }).await.unwrap();
    assert_eq!(none, AuditFigures::default());
    let seen = audit.last_seen(None).await.unwrap();
    assert_eq!(audit.last_seen(Some("u3")).await.unwrap(), [("u3".to_owned(), at(3))].into());
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [("u1", 2), ("u2", 2), ("u3", 3)].map(|(u, s)| (u.into(), at(s))));
}

async fn views(store: &dyn Store) {
    let views = store.views();
    let view = |id: &str, name: &str, seconds| SavedView {
        id: id.into(),
        name: name.into(),
        query: json!({"q": "ž"}),
        created_at: Some(at(seconds)),
    };
    views.insert("u1", &view("v1", "mine", 1), 2).await.unwrap();
    refused(views.insert("u1", &view("v2", "mine", 2), 2).await, "view_exists");
    views.insert("u1", &view("v3", "other", 3), 2).await.unwrap();
    refused(views.insert("u1", &view("v4", "third", 4), 2).await, "too_many_views");
    views.insert("u2", &view("v5", "mine", 5), 2).await.unwrap();
    assert_eq!(views.list("u1").await.unwrap(), [view("v3", "other", 3), view("v1", "mine", 1)]);
    assert!(!views.delete("u2", "v1").await.unwrap(), "somebody else's");
    assert!(views.delete("u1", "v1").await.unwrap());
    assert_eq!(views.list("u1").await.unwrap(), [view("v3", "other", 3)]);
}

async fn templates(store: &dyn Store) {
    let templates = store.templates();
    for key in ["welcome", "a key of tomorrow"] {
        assert_eq!(templates.find(key).await.unwrap(), StoredTemplate::default());
        templates.put(key, Some("it's {{ instance.name }} — ž\n"), "u1", at(1)).await.unwrap();
        templates.put(key, Some("another"), "u2", at(2)).await.unwrap();
        let kept = templates.find(key).await.unwrap();
        let told = (kept.content.as_deref(), kept.updated_at, kept.updated_by.as_deref());
        assert_eq!(told, (Some("another"), Some(at(2)), Some("u2")));
        templates.put(key, None, "u3", at(3)).await.unwrap();
        let kept = templates.find(key).await.unwrap();
        assert_eq!((kept.content, kept.updated_by.as_deref()), (None, Some("u3")));
    }
    assert_eq!(templates.find("claude_md").await.unwrap(), StoredTemplate::default(), "another is left alone");
}

async fn internal(store: &dyn Store) {
    let count = async |table: &str, user: Option<&str>| {
        let scope = user.map(|id| InternalScope { user_id: id.into(), email: Some("bob@acme.example".into()) });
        let batches = store.internal_rows(table, scope).await.unwrap();
        assert!(!batches.is_empty(), "the columns are known without rows too");
        batches.iter().map(|b| b.num_rows()).sum::<usize>()
    };
    assert_eq!(count("agnes_audit", None).await, 4);
    assert_eq!(count("agnes_audit", Some("u1")).await, 2);
    assert_eq!(count("agnes_audit", Some("bob")).await, 0);
    assert_eq!(count("agnes_sessions", None).await, 0);
    assert_eq!(count("agnes_telemetry", Some("u1")).await, 0);
    assert!(store.internal_rows("users", None).await.is_ok_and(|rows| rows.is_empty()), "no other table is given out");
    let batch = store.internal_rows("agnes_audit", None).await.unwrap().remove(0);
    let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(
        names.join(" "),
        "id timestamp user_id action resource params result duration_ms params_before client_ip client_kind correlation_id"
    );
    assert_eq!(batch.schema().field(5).data_type(), &arrow::datatypes::DataType::Utf8);
    // Of old rows those go that are older; what is of that very moment stays.
    let audit = store.audit();
    assert_eq!((audit.prune(at(2)).await.unwrap(), audit.prune(at(2)).await.unwrap()), (1, 0));
    assert_eq!((count("agnes_audit", None).await, count("agnes_audit", Some("u1")).await), (3, 1));
}
