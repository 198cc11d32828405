//! What one caller may read of one generation, and the cache of such sets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sha2::{Digest, Sha256};

use super::runtime::{GrantSet, Relation};
use crate::engine::{Engine, TableIndex};
use crate::error::Result;
use crate::orchestrator::Generation;
use crate::policy::{Narrowed, NarrowedTables, RowScope, Slice, narrowed_tables};
use crate::rbac::{AccessSnapshot, INTERNAL_TABLES, Principal, ResourceType};
use crate::sandbox::{Gate, Readable, RelationKind};

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
    /// Tables of which the caller reads a part.
    pub(super) narrowed: Arc<NarrowedTables>,
    /// Those parts as far as a query named them, and the set with them in it.
    pub(super) slices: Arc<Mutex<Sliced>>,
}

/// Slices that are part of a set.
#[derive(Debug, Default)]
pub(super) struct Sliced {
    made: BTreeMap<String, Arc<Slice>>,
    set: Option<Arc<GrantSet>>,
}

/// Keeps the slices of a query from being collected.
pub(super) type HeldSlices = Vec<Arc<Slice>>;

impl CallerSet {
    /// This caller with the slices of the named tables in their set. Where there is no
    /// slice yet, it is made now.
    pub(super) async fn with_slices(
        self: &Arc<Self>,
        engine: &Engine,
        names: impl Iterator<Item = &str>,
    ) -> Result<(Arc<Self>, HeldSlices)> {
        let mut found: Vec<(String, Arc<Slice>)> = Vec::new();
        for name in names {
            if let Some(error) = self.narrowed.blocked.get(name) {
                return Err(error.clone().into());
            }
            if let Some(narrowed) = self.narrowed.tables.get(name).filter(|narrowed| !narrowed.is_whole()) {
                found.push((name.to_owned(), engine.slices().get(engine, narrowed).await?));
            }
        }
        let mut sliced = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, slice) in &found {
            if !sliced.made.get(name).is_some_and(|made| Arc::ptr_eq(made, slice)) {
                sliced.made.insert(name.clone(), slice.clone());
                sliced.set = None;
            }
        }
        if sliced.made.is_empty() {
            return Ok((self.clone(), Vec::new()));
        }
        let set = match &sliced.set {
            Some(set) => set.clone(),
            None => {
                let mut hash = Sha256::new();
                hash.update(&self.set.fingerprint);
                let mut relations = self.set.relations.clone();
                for (name, slice) in &sliced.made {
                    if let Some(relation) = relations.get_mut(name) {
                        relation.blobs = vec![engine.folder().blob(&slice.part.sha256)];
                        hash.update(format!("{name}={}", slice.part.sha256));
                    }
                }
                let fingerprint = crate::orchestrator::hex(&hash.finalize());
                let set = Arc::new(GrantSet { fingerprint, relations });
                sliced.set = Some(set.clone());
                set
            }
        };
        let held = sliced.made.values().cloned().collect();
        Ok((Arc::new(Self { set, ..(**self).clone() }), held))
    }

    /// What policies took from the named tables.
    pub(super) fn row_scope<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<RowScope> {
        names.filter_map(|name| self.narrowed.tables.get(name)?.scope()).collect()
    }
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
    pub(super) async fn of(
        &self,
        engine: &Engine,
        gate: &Gate,
        principal: &Principal,
    ) -> Result<(Arc<CallerSet>, Arc<Generation>)> {
        let access = engine.access().await?;
        access.require_active(principal)?;
        let index = engine.table_index().await?;
        let generation = engine.generation();
        let admin = access.is_admin(principal);
        // Policies may narrow one admin and not another.
        let shared = admin && access.policies.values().flatten().all(|policy| !policy.rules.applies_to_admin);
        let key = if shared { "*".to_owned() } else { format!("user:{}", principal.user_id()) };
        if let Some(known) = self.0.get(&key)
            && Arc::ptr_eq(&known.access, &access)
            && Arc::ptr_eq(&known.index, &index)
            && std::ptr::eq(known.generation.as_ptr(), Arc::as_ptr(&generation))
        {
            return Ok((known, generation));
        }
        let accessible = access.accessible(principal, ResourceType::Table);
        let narrowed = match access.policies.is_empty() {
            true => NarrowedTables::default(),
            false => {
                let key = engine.instance_key().await?;
                narrowed_tables(gate, &access, &index, &generation, principal, key).await
            }
        };
        let mut relations = BTreeMap::new();
        let mut remote = BTreeMap::new();
        let mut hash = Sha256::new();
        for source in generation.sources.values() {
            for table in &source.tables {
                let name = table.name.as_str().to_ascii_lowercase();
                if !accessible.contains(&index.id_of(&name)) || INTERNAL_TABLES.contains(&name.as_str()) {
                    continue;
                }
                if narrowed.blocked.contains_key(&name) {
                    continue;
                }
                let mine = narrowed.tables.get(&name).filter(|narrowed| !narrowed.is_whole());
                if let Some(narrowed) = mine {
                    // Its file is made when a query names it.
                    hash.update(format!("slice {name} {}", narrowed.key));
                    relations.insert(name, narrowed_relation(narrowed));
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
            narrowed: Arc::new(narrowed),
            slices: Arc::default(),
        });
        self.0.insert(key, made.clone());
        Ok((made, generation))
    }
}

impl CallerSets {
    /// Forgets every caller; what they held may go.
    pub(super) fn forget(&self) {
        self.0.invalidate_all();
        self.0.run_pending_tasks();
    }
}

/// The relation that stands for a caller's part of a table, without its file.
fn narrowed_relation(narrowed: &Narrowed) -> Relation {
    Relation {
        name: narrowed.table.name.as_str().to_owned(),
        description: narrowed.table.description.clone(),
        columns: narrowed.seen.columns.iter().map(|c| (c.name.clone(), c.data_type.clone(), c.nullable)).collect(),
        blobs: Vec::new(),
        partitioned: false,
    }
}
