//! What the engine keeps of its state in memory, each as of one revision.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Engine;
use crate::error::Result;
use crate::rbac::AccessSnapshot;
use crate::registry::RegisteredTable;
use crate::sync::{SyncPreferences, SyncState};

/// People whose preferences are kept in memory.
const PREFERENCES: u64 = 1000;

#[derive(Debug)]
pub(super) struct Kept {
    access: RwLock<Option<Arc<AccessSnapshot>>>,
    tables: RwLock<Option<Arc<TableIndex>>>,
    tables_revision: AtomicU64,
    syncs: RwLock<Option<(u64, Arc<SyncStates>)>>,
    /// By person, with the revision they were read at.
    preferences: moka::sync::Cache<String, (u64, Arc<SyncPreferences>)>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            access: RwLock::default(),
            tables: RwLock::default(),
            tables_revision: AtomicU64::new(0),
            syncs: RwLock::default(),
            preferences: moka::sync::Cache::new(PREFERENCES),
        }
    }
}

/// The state of every table's syncs, by its name in lower case.
pub(crate) type SyncStates = HashMap<String, SyncState>;

/// Registered tables by id and by name, both case-folded.
#[derive(Debug, Default)]
pub(crate) struct TableIndex {
    by_id: HashMap<String, Arc<RegisteredTable>>,
    by_name: HashMap<String, Arc<RegisteredTable>>,
}

impl TableIndex {
    fn new(tables: Vec<RegisteredTable>) -> Self {
        let mut index = Self::default();
        for table in tables.into_iter().map(Arc::new) {
            index.by_id.insert(table.id.to_lowercase(), table.clone());
            index.by_name.insert(table.name.to_lowercase(), table);
        }
        index
    }

    /// The row with this id, else with this name.
    pub(crate) fn find(&self, id_or_name: &str) -> Option<&Arc<RegisteredTable>> {
        let folded = id_or_name.to_lowercase();
        self.by_id.get(&folded).or_else(|| self.by_name.get(&folded))
    }

    /// The row that publishes this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<RegisteredTable>> {
        self.by_name.get(&name.to_lowercase())
    }

    /// The id that grants use for a published name: the row's, else the name itself.
    pub(crate) fn id_of(&self, name: &str) -> String {
        let folded = name.to_lowercase();
        self.by_name.get(&folded).map_or(folded, |row| row.id.to_lowercase())
    }

    /// All rows, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<RegisteredTable>> {
        self.by_id.values()
    }
}

impl Engine {
    /// The registry, as of now.
    pub(crate) async fn table_index(&self) -> Result<Arc<TableIndex>> {
        if let Some(index) = self.inner.kept.tables.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(index.clone());
        }
        let revision = self.inner.kept.tables_revision.load(Ordering::SeqCst);
        let index = Arc::new(TableIndex::new(self.store().tables().list().await?));
        let mut kept = self.inner.kept.tables.write().unwrap_or_else(PoisonError::into_inner);
        // A write since then may be missing in what was read.
        if self.inner.kept.tables_revision.load(Ordering::SeqCst) == revision {
            *kept = Some(index.clone());
        }
        Ok(index)
    }

    /// Forgets what was read of the registry; whoever writes it calls this.
    pub(crate) fn tables_changed(&self) {
        let mut kept = self.inner.kept.tables.write().unwrap_or_else(PoisonError::into_inner);
        self.inner.kept.tables_revision.fetch_add(1, Ordering::SeqCst);
        *kept = None;
    }

    /// The states of all syncs by table in lower case, as of now.
    pub(crate) async fn sync_states(&self) -> Result<Arc<SyncStates>> {
        let revision = self.store().sync_revision();
        if let Some((kept, states)) = self.inner.kept.syncs.read().unwrap_or_else(PoisonError::into_inner).as_ref()
            && *kept == revision
        {
            return Ok(states.clone());
        }
        let states = self.store().sync().all().await?;
        let states: Arc<SyncStates> = Arc::new(states.into_iter().map(|s| (s.table_id.to_lowercase(), s)).collect());
        *self.inner.kept.syncs.write().unwrap_or_else(PoisonError::into_inner) = Some((revision, states.clone()));
        Ok(states)
    }

    /// What somebody wants to be synced, as of now.
    pub(crate) async fn preferences_of(&self, user_id: &str) -> Result<Arc<SyncPreferences>> {
        let revision = self.store().sync_revision();
        if let Some((kept, preferences)) = self.inner.kept.preferences.get(user_id)
            && kept == revision
        {
            return Ok(preferences);
        }
        let preferences = Arc::new(self.store().preferences().of(user_id).await?);
        self.inner.kept.preferences.insert(user_id.to_owned(), (revision, preferences.clone()));
        Ok(preferences)
    }

    /// Users, groups and grants as of the current revision.
    pub(crate) async fn access(&self) -> Result<Arc<AccessSnapshot>> {
        let revision = self.store().revision();
        if let Some(snapshot) = self.inner.kept.access.read().unwrap_or_else(PoisonError::into_inner).as_ref()
            && snapshot.revision == revision
        {
            return Ok(snapshot.clone());
        }
        let snapshot = Arc::new(self.store().access().snapshot().await?);
        *self.inner.kept.access.write().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        Ok(snapshot)
    }
}
