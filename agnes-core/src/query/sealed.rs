//! The catalog wall and the engine wall by themselves, for tests that take the parser wall
//! away.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::instance::Instance;
use super::runtime::{GrantSet, QueryLimits};
use crate::error::Result;
use crate::sandbox::Checked;

/// A locked instance that runs whatever it is given. Only for tests.
#[derive(Debug)]
pub struct Sealed(Instance);

impl Sealed {
    /// Opens and locks one, with all views of `set` made; spill goes below `scratch`.
    ///
    /// # Errors
    /// `instance_not_sealed`, `data_missing`.
    pub fn open(set: Arc<GrantSet>, limits: &QueryLimits, scratch: &Path) -> Result<Self> {
        let names: Vec<String> = set.relations.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let instance = Instance::open(set, limits, scratch, |_, _| Ok(Vec::new()))?;
        instance.connect(&Checked::unread("", &names))?;
        Ok(Self(instance))
    }

    /// Runs every statement of `sql`, whatever it is; the rows of the last one.
    ///
    /// # Errors
    /// What the engine said, unscrubbed.
    ///
    /// # Panics
    /// When the last statement fails after its first rows.
    pub fn run(&self, sql: &str) -> std::result::Result<(SchemaRef, Vec<RecordBatch>), String> {
        self.0.unguarded(sql)
    }
}
