//! One conversation with a database: attached read-only, in one snapshot, with nothing of
//! its address in any message. Blocks.

use std::net::{TcpStream, ToSocketAddrs};
use std::ops::ControlFlow;
use std::time::Duration;

use agnes_core::connector::{Cancel, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::Result;
use agnes_core::ident::quote_ident;
use agnes_core::orchestrator::{AttachError, attach_source};

use super::config::SqlConfig;
use super::dialect::{ALIAS, Dialect};
use super::error::{Scrub, SqlError};
use crate::watch::Watch;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a cancelled run is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// An attached source.
pub(crate) struct Session {
    pub(crate) db: ScratchDb,
    pub(crate) dialect: Dialect,
    pub(crate) scrub: Scrub,
    _watch: Option<Watch>,
}

impl Session {
    /// Attaches the source, and has it end its statement when the run is cancelled.
    pub(crate) fn open(source: &SourceContext, dialect: Dialect, config: &SqlConfig) -> Result<Self> {
        let mut session = Self::attach(source, dialect, config)?;
        if let Some(ask) = dialect.served_by() {
            let process = session.number(&ask, "")?;
            session._watch = watch(source, config, dialect, process);
        }
        Ok(session)
    }

    fn attach(source: &SourceContext, dialect: Dialect, config: &SqlConfig) -> Result<Self> {
        let attach = config.attach(dialect, ALIAS);
        source.attach.check_place(&attach)?;
        if let Some(address) = config.address(dialect) {
            knock(&address, source.name.as_str())?;
        }
        source.cancel.check()?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let limits = ScratchLimits { threads, ..ScratchLimits::default() };
        let db = attach_source(&attach, &source.attach, &*source.secrets, &source.scratch, &limits)?;
        source.cancel.interrupts(db.interrupter());
        let password = config.password_env.as_deref().and_then(|name| source.secrets.get(name));
        let session = Self { db, dialect, scrub: Scrub { password, places: config.places(dialect) }, _watch: None };
        session.run(dialect.settings())?;
        if config.all_text {
            session.run("SET sqlite_all_varchar=true")?;
        }
        // Every statement from here on sees the same snapshot of the source.
        session.run("BEGIN")?;
        if let Some(limit) = dialect.give_up_after(source.timeout.as_millis()) {
            session.rows(&limit, "")?;
        }
        Ok(session)
    }

    /// A relation of the source.
    pub(crate) fn relation(schema: &str, table: &str) -> String {
        [ALIAS, schema, table].map(quote_ident).join(".")
    }

    /// Runs a statement that is not about a table.
    pub(crate) fn run(&self, sql: &str) -> Result<()> {
        if sql.is_empty() {
            return Ok(());
        }
        self.db.execute(sql).map_err(|e| self.scrub.failure(e, "", false))
    }

    /// All rows of a query about `table`, as text.
    pub(crate) fn rows(&self, sql: &str, table: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.db.rows(sql).map_err(|e| self.scrub.failure(e, table, false))
    }

    /// The count that a query about `table` answers.
    pub(crate) fn number(&self, sql: &str, table: &str) -> Result<u64> {
        Ok(self.rows(sql, table)?.into_iter().flatten().flatten().next().and_then(|n| n.parse().ok()).unwrap_or(0))
    }

    /// Names and DuckDB types of the columns of a query about `table`.
    pub(crate) fn columns(&self, select: &str, table: &str, query: bool) -> Result<Vec<(String, String)>> {
        let rows = self.db.rows(&format!("SELECT column_name, column_type FROM (DESCRIBE {select})"));
        let rows = rows.map_err(|e| self.scrub.failure(e, table, query))?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let mut cells = row.into_iter().flatten();
                Some((cells.next()?, cells.next()?))
            })
            .collect())
    }

    /// That the source still answers, in its own words for "nothing".
    pub(crate) fn ping(&self) -> Result<()> {
        let ask = self.dialect.ask("SELECT 1 AS one");
        self.db.rows(&format!("SELECT * FROM {ask}")).map(drop).map_err(|e| match self.scrub.failure(e, "", true) {
            // A file that is not a database refuses every query.
            error if error.code() == "source_query_refused" => {
                SqlError::Failed { reason: "it is no database".to_owned() }.into()
            }
            error => error,
        })
    }
}

/// Tells a server that the run was cancelled, until dropped: a statement that sends nothing does
/// not see an interrupt here.
fn watch(source: &SourceContext, config: &SqlConfig, dialect: Dialect, process: u64) -> Option<Watch> {
    let (cancel, config) = (source.cancel.clone(), config.clone());
    // A conversation of its own, which nobody cancels.
    let source = SourceContext { cancel: Cancel::default(), ..source.clone() };
    Watch::start(LOOK, move || {
        if !cancel.is_cancelled() {
            return ControlFlow::Continue(());
        }
        let dsn = config.attach(dialect, ALIAS).url;
        let told = Session::attach(&source, dialect, &config)
            .and_then(|session| session.run(&dialect.end_statement(process, &dsn)));
        if let Err(error) = told {
            tracing::warn!(code = error.code(), "a statement could not be ended at its source: {error}");
        }
        ControlFlow::Break(())
    })
}

/// Finds out in bounded time whether anybody listens: the extensions wait as long as the
/// system does.
fn knock((host, port): &(String, u16), alias: &str) -> Result<()> {
    let unreachable = || AttachError::Unreachable { alias: alias.to_owned() };
    let places = (host.as_str(), *port).to_socket_addrs().map_err(|_| unreachable())?;
    for place in places {
        if TcpStream::connect_timeout(&place, CONNECT).is_ok() {
            return Ok(());
        }
    }
    Err(unreachable().into())
}
