//! The seam behind which user SQL runs.
//!
//! What crosses it is plain data: which relations there are, one checked query, its
//! parameters and limits; back come a schema and record batches. [`InProcess`](super::InProcess)
//! runs it in this process; a runtime in confined worker processes fits the same seam.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Alone, Batches, Params};
use crate::config::Config;
use crate::error::Result;
use crate::sandbox::Checked;

/// A relation of a grant set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Its name, as published.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// `(name, type, nullable)` in order.
    pub columns: Vec<(String, String, bool)>,
    /// Parquet files it reads; none for remote tables.
    pub blobs: Vec<PathBuf>,
    /// Whether the files are united by column name.
    pub partitioned: bool,
}

/// All that the members of a set of principals may read, of one state of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantSet {
    /// Equal for equal content.
    pub fingerprint: String,
    /// By name in lower case.
    pub relations: BTreeMap<String, Relation>,
}

/// What a query may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryLimits {
    /// Memory of an instance, bytes.
    pub memory_bytes: u64,
    /// Threads of an instance, beside the one that reads a result.
    pub threads: usize,
    /// Spill of an instance, bytes.
    pub spill_bytes: u64,
    /// Grant sets whose instances are kept open.
    pub instances: usize,
    /// Longest SQL, bytes; never more than the sandbox reads.
    pub max_sql_bytes: usize,
    /// Wall clock of a query.
    pub timeout: Duration,
    /// Wall clock of a query that asks a source.
    pub remote_timeout: Duration,
    /// Queries of one user at a time.
    pub per_user: usize,
    /// Queries at a time.
    pub total: usize,
    /// How long a query waits for its turn.
    pub wait: Duration,
}

impl Default for QueryLimits {
    /// Those of an empty configuration.
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

impl QueryLimits {
    /// The limits that a configuration describes.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let query = &config.query;
        Self {
            memory_bytes: query.memory_bytes,
            threads: query.threads,
            spill_bytes: query.spill_bytes,
            instances: query.instances,
            max_sql_bytes: query.max_sql_bytes,
            timeout: query.timeout,
            remote_timeout: config.remote_query.timeout,
            per_user: query.max_per_user,
            total: query.max_total,
            wait: query.wait,
        }
    }
}

/// One query to run.
pub struct QueryJob {
    /// What is there to be named.
    pub grant_set: Arc<GrantSet>,
    /// What to run.
    pub query: Checked,
    /// Values of its parameters.
    pub params: Params,
    /// When it is stopped.
    pub deadline: Instant,
    /// What its instance holds besides; one that is made for it alone.
    pub alone: Option<Alone>,
    /// Kept until the query has ended, whatever that is.
    pub guard: Box<dyn Send>,
}

impl fmt::Debug for QueryJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryJob").field("query", &self.query).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A query that runs. Dropping it stops the query.
pub struct RunningQuery {
    /// Columns of the result.
    pub schema: SchemaRef,
    /// Rows as they are made; few wait at a time, so that a slow reader slows the engine.
    pub batches: Batches,
    /// Stops the query when dropped.
    pub stop: Box<dyn Send + Sync>,
    /// Bytes that a warehouse read for it, as estimated; none where none was asked.
    pub scanned: Option<u64>,
}

impl fmt::Debug for RunningQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningQuery").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// How far queries are kept apart from this process and from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// Not: they run in this process.
    InProcess,
    /// In worker processes that gave up every right they do not need.
    Process {
        /// What this kernel cannot enforce, in words; empty where nothing is missing.
        missing: Vec<String>,
    },
}

/// Runs checked queries over grant sets.
#[async_trait]
pub trait Runtime: Send + Sync + fmt::Debug {
    /// Starts a query; returns when its columns are known.
    async fn start(&self, job: QueryJob) -> Result<RunningQuery>;

    /// How far queries are kept apart from this process and from each other.
    ///
    /// # Errors
    /// `isolation_missing` where less is guaranteed than is asked for.
    async fn isolation(&self) -> Result<Isolation>;

    /// Ends what runs; nothing can be started afterwards.
    async fn close(&self) {}
}
