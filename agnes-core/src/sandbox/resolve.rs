//! Decides for one caller: may every relation of a read text be read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::SandboxError;
use super::gate::Parsed;
use super::walk::SystemRelation;
use crate::ident::{nearest, printable};

/// Where the rows of a relation come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum RelationKind {
    /// Parquet kept here.
    Local,
    /// Asked at the source.
    Remote,
    /// Agnes's own state, filtered per caller.
    Internal,
}

/// What a caller may read.
pub trait Readable {
    /// The relation with this name (ASCII lower case), if the caller may read it.
    fn find(&self, name: &str) -> Option<RelationKind>;
    /// Names of everything the caller may read, for suggestions.
    fn names(&self) -> Vec<&str>;
    /// Whether "there is no such table" may be told apart from "not yours".
    fn sees_everything(&self) -> bool;
}

/// One read-only query whose every relation the caller may read. Only
/// [`Parsed::resolve`] makes one.
#[derive(Debug, Clone)]
pub struct Checked {
    sql: Arc<str>,
    explain: bool,
    relations: Vec<(String, RelationKind)>,
    system: BTreeSet<SystemRelation>,
    params: BTreeSet<String>,
    /// Made by a test, not by the gate.
    unguarded: bool,
}

impl Checked {
    /// The SQL that runs.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }
    /// Whether the plan is asked for, not the rows.
    #[must_use]
    pub fn is_explain(&self) -> bool {
        self.explain
    }
    /// Relations in lower case, in order of appearance.
    #[must_use]
    pub fn relations(&self) -> &[(String, RelationKind)] {
        &self.relations
    }
    /// What it asks about the catalog.
    #[must_use]
    pub fn system(&self) -> &BTreeSet<SystemRelation> {
        &self.system
    }
    /// Names of its bind parameters; positional ones are `1`, `2`, ...
    #[must_use]
    pub fn params(&self) -> &BTreeSet<String> {
        &self.params
    }
    /// Whether any relation is of this kind.
    #[must_use]
    pub fn has(&self, kind: RelationKind) -> bool {
        self.relations.iter().any(|(_, k)| *k == kind)
    }
}

/// A [`Checked`] on its way to a worker process of this engine.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct CheckedWire {
    sql: String,
    explain: bool,
    relations: Vec<(String, RelationKind)>,
    system: BTreeSet<SystemRelation>,
    params: BTreeSet<String>,
    unguarded: bool,
}

impl Checked {
    /// For a worker process, which trusts its parent.
    pub(crate) fn to_wire(&self) -> CheckedWire {
        let Self { sql, explain, relations, system, params, unguarded } = self.clone();
        CheckedWire { sql: sql.to_string(), explain, relations, system, params, unguarded }
    }

    /// Statements that no wall has read: shows in tests what the walls behind this one hold.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn unguarded(sql: &str, relations: &[&str]) -> Self {
        Self {
            sql: sql.into(),
            explain: false,
            relations: relations.iter().map(|name| ((*name).to_owned(), RelationKind::Local)).collect(),
            system: BTreeSet::new(),
            params: BTreeSet::new(),
            unguarded: true,
        }
    }

    /// One query that nobody has read: shows in tests what its rows would be.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn unread(sql: &str, relations: &[&str]) -> Self {
        Self { unguarded: false, ..Self::unguarded(sql, relations) }
    }

    /// Whether any statement may run. Never in a build without the feature `testing`.
    pub(crate) fn is_unguarded(&self) -> bool {
        cfg!(feature = "testing") && self.unguarded
    }
}

impl CheckedWire {
    /// In the worker: what the parent's sandbox made.
    pub(crate) fn into_checked(self) -> Checked {
        let Self { sql, explain, relations, system, params, unguarded } = self;
        Checked { sql: sql.into(), explain, relations, system, params, unguarded }
    }
}

impl Parsed {
    /// Decides for one caller.
    ///
    /// # Errors
    /// [`SandboxError::RelationDenied`] (the same for "not yours" and "not there"),
    /// [`SandboxError::RelationUnknown`] for those who see everything,
    /// [`SandboxError::MixedInternal`], [`SandboxError::FunctionDenied`] for a function called on
    /// a column where a source is attached.
    pub fn resolve(&self, readable: &dyn Readable) -> Result<Checked, SandboxError> {
        let mut relations: Vec<(String, RelationKind)> = Vec::new();
        let mut refused = None;
        for named in &self.relations {
            let lower = named.name.to_ascii_lowercase();
            let found = if named.foreign { None } else { readable.find(&lower) };
            match found {
                Some(kind) if !relations.iter().any(|(name, _)| *name == lower) => relations.push((lower, kind)),
                Some(_) => {}
                None => refused = refused.or(Some(named.name.as_str())),
            }
        }
        let internal = relations.iter().find(|(_, kind)| *kind == RelationKind::Internal);
        let other = relations.iter().find(|(_, kind)| *kind != RelationKind::Internal).map(|(name, _)| name.as_str());
        let other = other.or(refused).or(self.system.iter().next().map(|s| match s {
            SystemRelation::ShowTables => "SHOW TABLES",
            SystemRelation::Tables => "information_schema.tables",
            SystemRelation::Columns => "information_schema.columns",
        }));
        if let (Some((internal, _)), Some(other)) = (internal, other) {
            return Err(SandboxError::MixedInternal { internal: internal.clone(), other: printable(other, 120) });
        }
        if let Some(name) = refused {
            let suggestion = nearest(name, readable.names()).map(str::to_owned);
            let name = printable(name, 120);
            return Err(if readable.sees_everything() {
                SandboxError::RelationUnknown { name, suggestion }
            } else {
                SandboxError::RelationDenied { name, suggestion }
            });
        }
        // Where a source is attached, its catalog may hold functions of these names.
        if let Some(name) = &self.method
            && relations.iter().any(|(_, kind)| *kind == RelationKind::Remote)
        {
            return Err(SandboxError::FunctionDenied { name: name.clone() });
        }
        Ok(Checked {
            sql: self.sql.clone(),
            explain: self.explain,
            relations,
            system: self.system.clone(),
            params: self.params.clone(),
            unguarded: false,
        })
    }

    /// Relations it names, as written, before any rights were looked at.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.relations.iter().map(|named| named.name.as_str())
    }
}
