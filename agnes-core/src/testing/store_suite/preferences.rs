//! What people chose of tables to fetch, how much they scanned, and what
//! warehouses told of tables.

use super::at;
use crate::store::Store;
use crate::sync::{SyncPreference, SyncPreferences, TableMode};
use crate::warehouse::TableMetadata;

pub(super) async fn run(store: &dyn Store) {
    scanned(store).await;
    told(store).await;
    let preferences = store.preferences();
    assert_eq!(preferences.of("ann").await.unwrap(), SyncPreferences::default());
    let entries = [("orders".to_owned(), true), ("Costs".to_owned(), false)];
    preferences.set("ann", &entries, None, at(0)).await.unwrap();
    let mine = preferences.of("ann").await.unwrap();
    let one = |dataset: &str, enabled, seconds| SyncPreference {
        dataset: dataset.to_owned(),
        enabled,
        updated_at: Some(at(seconds)),
    };
    assert_eq!(mine.settings, [one("Costs", false, 0), one("orders", true, 0)]);
    assert!(
        mine.wants("1", "orders") && !mine.wants("1", "costs") && !mine.wants("COSTS", "c") && mine.wants("2", "other")
    );

    let revision = store.sync_revision();
    preferences.set("ann", &[], Some(TableMode::Explicit), at(1)).await.unwrap();
    assert!(store.sync_revision() > revision);
    let mine = preferences.of("ann").await.unwrap();
    assert_eq!((mine.table_mode, mine.settings.len()), (TableMode::Explicit, 2), "the mode is no table");
    assert!(mine.wants("1", "orders") && !mine.wants("2", "other"));
    // What is said later counts, what is not said stays.
    preferences.set("ann", &[("orders".to_owned(), false)], Some(TableMode::All), at(2)).await.unwrap();
    let mine = preferences.of("ann").await.unwrap();
    assert_eq!(mine.settings, [one("Costs", false, 0), one("orders", false, 2)]);
    assert_eq!(mine.table_mode, TableMode::All);
    assert_eq!(preferences.of("bob").await.unwrap(), SyncPreferences::default());
}

async fn scanned(store: &dyn Store) {
    let usage = store.usage();
    let (day, next) = (at(0).date_naive(), at(86_400).date_naive());
    assert_eq!(usage.of_day(day).await.unwrap(), []);
    for (user, bytes) in [("bob", 1), ("ann", 1 << 40), ("ann", 5), ("carl", u64::MAX), ("carl", 7)] {
        usage.add(user, day, bytes).await.unwrap();
    }
    let mine = |user: &str, bytes| (user.to_owned(), bytes);
    let all = [mine("ann", (1 << 40) + 5), mine("bob", 1), mine("carl", u64::MAX)];
    assert_eq!(usage.of_day(day).await.unwrap(), all);
    assert_eq!(usage.of_day(next).await.unwrap(), []);
    usage.add("ann", next, 3).await.unwrap();
    assert_eq!(usage.of_day(next).await.unwrap(), [mine("ann", 3)]);
}

async fn told(store: &dyn Store) {
    let metadata = store.metadata();
    assert_eq!(metadata.list().await.unwrap(), []);
    let web = TableMetadata {
        table_id: "web".to_owned(),
        rows: Some(1 << 40),
        size_bytes: Some(7),
        partition_by: Some("day".to_owned()),
        clustered_by: vec!["id".to_owned(), "at".to_owned()],
        entity_type: Some("BASE TABLE".to_owned()),
        known_columns: vec!["id".to_owned(), "ž \"x\"".to_owned()],
        refreshed_at: Some(at(1)),
        ..TableMetadata::default()
    };
    metadata.put(&web).await.unwrap();
    // A table that was never told of, and what a failure leaves of what was.
    metadata.fail("ads", "no permission", at(2)).await.unwrap();
    metadata.fail("web", "away", at(3)).await.unwrap();
    let failed = |table: TableMetadata, words: &str, seconds| TableMetadata {
        error_at: Some(at(seconds)),
        error_msg: Some(words.to_owned()),
        ..table
    };
    let ads = TableMetadata { table_id: "ads".to_owned(), ..TableMetadata::default() };
    let all = [failed(ads, "no permission", 2), failed(web.clone(), "away", 3)];
    assert_eq!(metadata.list().await.unwrap(), all);
    let smaller = TableMetadata { rows: Some(1), refreshed_at: Some(at(4)), ..web };
    metadata.put(&smaller).await.unwrap();
    assert_eq!(metadata.list().await.unwrap()[1], smaller);
}
