//! Agnes: a governed data engine. See [`Engine`].

pub mod audit;
pub mod catalog;
pub mod cell;
pub mod clock;
pub mod config;
pub mod connector;
pub mod context;
pub mod distribution;
pub mod duck;
pub mod engine;
pub mod error;
pub mod extract;
pub mod file_lock;
pub mod ident;
pub mod identity;
pub mod increment;
pub mod initial;
pub mod layout;
pub mod local;
pub mod mail;
pub mod maintenance;
pub mod orchestrator;
pub mod policy;
pub mod profile;
pub mod push;
pub mod query;
pub mod rbac;
pub mod redaction;
pub mod registry;
pub mod sandbox;
pub mod scan;
pub mod schedule;
pub mod scheduler;
pub mod secret;
pub mod settings;
pub mod store;
pub mod sync;
pub mod templates;
#[cfg(feature = "testing")]
pub mod testing;
pub mod uploads;
pub mod warehouse;
pub mod workspace;

pub use context::{CallContext, Client};
pub use engine::{Engine, EngineBuilder};
pub use error::{Error, ErrorKind, Result};
