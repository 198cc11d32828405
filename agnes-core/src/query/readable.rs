//! What one caller may read of one generation, and the cache of such sets.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use sha2::{Digest, Sha256};

use super::runtime::{GrantSet, Relation};
use crate::engine::{Engine, TableIndex};
use crate::error::Result;
use crate::orchestrator::Generation;
use crate::rbac::{AccessSnapshot, INTERNAL_TABLES, Principal, ResourceType};
use crate::sandbox::{Readable, RelationKind};

/// Sets kept; one for each caller that asked lately, and one for all admins.
const SETS: u64 = 512;

/// What one caller may read.
#[derive(Debug, Clone)]
pub(super) struct CallerSet {
    /// Not held: a caller that never comes back must not keep old data alive.
    pub(super) generation: Weak<Generation>,
    pub(super) access: Arc<AccessSnapshot>,
    pub(super) index: Arc<TableIndex>,
    pub(super) set: Arc<GrantSet>,
    /// Source of each remote table, by lower-case name.
    pub(super) remote: Arc<BTreeMap<String, String>>,
    pub(super) admin: bool,
}

impl Readable for CallerSet {
    fn find(&self, name: &str) -> Option<RelationKind> {
        if INTERNAL_TABLES.contains(&name) {
            return Some(RelationKind::Internal);
        }
        let relation = self.set.relations.get(name)?;
        Some(if self.remote.contains_key(&relation.name.to_ascii_lowercase()) {
            RelationKind::Remote
        } else {
            RelationKind::Local
        })
    }
    fn names(&self) -> Vec<&str> {
        self.set.relations.values().map(|relation| relation.name.as_str()).chain(INTERNAL_TABLES).collect()
    }
    fn sees_everything(&self) -> bool {
        self.admin
    }
}

/// Remembers the set of each caller until the data, the grants or the registry change.
#[derive(Debug)]
pub(super) struct CallerSets(moka::sync::Cache<String, Arc<CallerSet>>);

impl CallerSets {
    pub(super) fn new() -> Self {
        Self(moka::sync::Cache::new(SETS))
    }

    /// What `principal` may read, as of now.
    pub(super) async fn of(&self, engine: &Engine, principal: &Principal) -> Result<(Arc<CallerSet>, Arc<Generation>)> {
        let access = engine.access().await?;
        access.require_active(principal)?;
        let index = engine.table_index().await?;
        let generation = engine.generation();
        let admin = access.is_admin(principal);
        let key = if admin { "*".to_owned() } else { format!("user:{}", principal.user_id()) };
        if let Some(known) = self.0.get(&key)
            && Arc::ptr_eq(&known.access, &access)
            && Arc::ptr_eq(&known.index, &index)
            && std::ptr::eq(known.generation.as_ptr(), Arc::as_ptr(&generation))
        {
            return Ok((known, generation));
        }
        let accessible = access.accessible(principal, ResourceType::Table);
        let mut relations = BTreeMap::new();
        let mut remote = BTreeMap::new();
        let mut hash = Sha256::new();
        for source in generation.sources.values() {
            for table in &source.tables {
                let name = table.name.as_str().to_ascii_lowercase();
                if !accessible.contains(&index.id_of(&name)) || INTERNAL_TABLES.contains(&name.as_str()) {
                    continue;
                }
                let blobs = table.parts.iter().map(|part| engine.folder().blob(&part.sha256)).collect();
                let columns: Vec<_> =
                    table.columns.iter().map(|c| (c.name.clone(), c.data_type.clone(), c.nullable)).collect();
                if table.remote.is_some() {
                    remote.insert(name.clone(), table.source.as_str().to_owned());
                }
                for part in [name.as_str(), table.content_hash.as_str(), &format!("{columns:?}{:?}", table.description)]
                {
                    hash.update((part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
                let relation = Relation {
                    name: table.name.as_str().to_owned(),
                    description: table.description.clone(),
                    columns,
                    blobs,
                    partitioned: table.partitioned,
                };
                relations.insert(name, relation);
            }
        }
        let fingerprint = crate::orchestrator::hex(&hash.finalize());
        let set = Arc::new(GrantSet { fingerprint, relations });
        let made = Arc::new(CallerSet {
            generation: Arc::downgrade(&generation),
            access,
            index,
            set,
            remote: Arc::new(remote),
            admin,
        });
        self.0.insert(key, made.clone());
        Ok((made, generation))
    }
}
