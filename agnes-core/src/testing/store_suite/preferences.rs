//! What people chose of tables to fetch.

use super::at;
use crate::store::Store;
use crate::sync::{SyncPreference, SyncPreferences, TableMode};

pub(super) async fn run(store: &dyn Store) {
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

    preferences.set("ann", &[], Some(TableMode::Explicit), at(1)).await.unwrap();
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
