//! Sync state, history, profiles.

use serde_json::json;

use super::at;
use crate::store::Store;
use crate::sync::{SyncStatus, SyncUpdate};

fn good(table: &str, rows: i64) -> SyncUpdate {
    SyncUpdate {
        table_id: table.into(),
        rows,
        file_size_bytes: rows * 10,
        columns: Some(3),
        hash: "d41d8cd98f00b204e9800998ecf8427e".into(),
        parts: None,
        duration_ms: Some(5),
        bump_last_sync: true,
        history: true,
    }
}

pub(super) async fn run(store: &dyn Store) {
    let sync = store.sync();
    assert!(sync.all().await.unwrap().is_empty());
    sync.update(&[], at(0)).await.unwrap();
    let parts = serde_json::from_value(json!([
        {"path": "b/1.parquet", "sha256": "aa", "hash": "bb", "size_bytes": 7, "rows": 2}
    ]))
    .unwrap();
    sync.update(&[good("b", 2), SyncUpdate { parts: Some(parts), ..good("a", 1) }], at(0)).await.unwrap();
    let all = sync.all().await.unwrap();
    assert_eq!(all.iter().map(|s| (s.table_id.as_str(), s.rows)).collect::<Vec<_>>(), [("a", Some(1)), ("b", Some(2))]);
    assert_eq!(all[0].parts.as_ref().unwrap()[0].path, "b/1.parquet");
    assert_eq!((all[1].parts.as_ref(), all[1].last_sync, all[1].status), (None, Some(at(0)), SyncStatus::Ok));

    // What a connector keeps survives an update; the time moves only when told to.
    sync.set_cursor("a", &json!({"after": "ž\"1"})).await.unwrap();
    sync.set_drift("a", &json!(["+ c"])).await.unwrap();
    sync.update(&[SyncUpdate { bump_last_sync: false, history: false, ..good("a", 9) }], at(50)).await.unwrap();
    let a = sync.get("a").await.unwrap().unwrap();
    assert_eq!((a.last_sync, a.rows, a.parts), (Some(at(0)), Some(9), None));
    assert_eq!((a.cursor, a.drift), (Some(json!({"after": "ž\"1"})), Some(json!(["+ c"]))));
    assert_eq!(sync.history("a", 10).await.unwrap().len(), 1);

    // Failures keep the last good facts; skips keep failures.
    sync.set_skipped("a", "due_check").await.unwrap();
    let a = sync.get("a").await.unwrap().unwrap();
    assert_eq!((a.status, a.error.as_deref()), (SyncStatus::Skipped, Some("due_check")));
    sync.clear_error("a").await.unwrap();
    assert_eq!(sync.get("a").await.unwrap().unwrap().status, SyncStatus::Skipped);
    sync.set_error("a", "it's broken", at(60)).await.unwrap();
    sync.set_skipped("a", "in_flight").await.unwrap();
    let a = sync.get("a").await.unwrap().unwrap();
    assert_eq!((a.status, a.error.as_deref(), a.rows), (SyncStatus::Error, Some("it's broken"), Some(9)));
    assert_eq!(a.last_sync, Some(at(0)));
    sync.clear_error("a").await.unwrap();
    let a = sync.get("a").await.unwrap().unwrap();
    assert_eq!((a.status, a.error.unwrap_or_default()), (SyncStatus::Ok, String::new()));
    // Every change moves the revision: what was read of an older one is read again.
    let mut revision = store.sync_revision();
    let mut moved = |what: &str| {
        let before = std::mem::replace(&mut revision, store.sync_revision());
        assert!(revision > before, "{what}");
    };
    sync.set_error("new", "no", at(61)).await.unwrap();
    moved("a failure");
    sync.clear_error("new").await.unwrap();
    moved("the end of a failure");
    sync.set_drift("a", &json!(["+ c"])).await.unwrap();
    moved("drift");
    sync.update(&[SyncUpdate { history: false, ..good("b", 2) }], at(62)).await.unwrap();
    moved("a sync");
    sync.set_skipped("newer", "not_in_target").await.unwrap();
    sync.set_cursor("newest", &json!(1)).await.unwrap();
    assert_eq!(sync.get("newest").await.unwrap().unwrap().last_sync, None);
    assert_eq!(sync.get("none").await.unwrap(), None);

    // History: newest first, also when times are equal or the clock went backwards.
    sync.update(&[good("a", 10)], at(70)).await.unwrap();
    sync.update(&[good("a", 11)], at(70)).await.unwrap();
    sync.update(&[good("a", 12)], at(65)).await.unwrap();
    let rows: Vec<_> = sync.history("a", 3).await.unwrap().into_iter().map(|h| h.rows).collect();
    assert_eq!(rows, [Some(11), Some(10), Some(12)]);
    let recent = sync.recent(at(60), 100, Some(SyncStatus::Error)).await.unwrap();
    assert_eq!(recent.iter().map(|h| h.table_id.as_str()).collect::<Vec<_>>(), ["new", "a"]);
    assert_eq!(recent[1].error.as_deref(), Some("it's broken"));
    assert_eq!(sync.recent(at(60), 2, None).await.unwrap().len(), 2);
    // The same table twice in one call: the last wins, both are history.
    sync.update(&[good("a", 20), good("a", 21)], at(80)).await.unwrap();
    assert_eq!(sync.get("a").await.unwrap().unwrap().rows, Some(21));
    assert_eq!(sync.recent(at(80), 9, None).await.unwrap().len(), 2);

    // A thousand at once, twice.
    let many: Vec<_> = (0..1000).map(|i| good(&format!("t{i:04}"), i)).collect();
    sync.update(&many, at(90)).await.unwrap();
    sync.update(&many, at(91)).await.unwrap();
    assert_eq!(sync.get("t0999").await.unwrap().unwrap().rows, Some(999));

    let profiles = store.profiles();
    assert!(profiles.get("a").await.unwrap().is_none());
    profiles.put("a", "h1", &json!({"columns": []}), at(0)).await.unwrap();
    profiles.put("a", "h2", &json!({"columns": ["ž"]}), at(1)).await.unwrap();
    let kept = profiles.get("a").await.unwrap().unwrap();
    assert_eq!(
        (kept.profile, kept.content_hash.as_deref(), kept.profiled_at),
        (json!({"columns": ["ž"]}), Some("h2"), at(1))
    );
    assert_eq!(profiles.hashes().await.unwrap(), [("a".to_owned(), "h2".to_owned())]);
}
