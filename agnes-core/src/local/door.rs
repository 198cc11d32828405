//! The way into a data folder: hold it, or be served by the process that does.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::client::{Connection, HolderClient};
use super::{Caller, Holder, LocalError, Verb};
use crate::connector::Progress;
use crate::engine::{Engine, EngineBuilder};
use crate::error::Result;

/// How long a call waits for a holder that is just starting or ending.
const PATIENCE: Duration = Duration::from_secs(15);

/// A data folder, held by this process or by another one of the same user: the same verbs
/// either way. When the holder ends, the next call takes the folder over.
pub struct Door {
    builder: Box<dyn Fn() -> Result<EngineBuilder> + Send + Sync>,
    side: Mutex<Side>,
}

#[derive(Clone)]
enum Side {
    Holding(Engine),
    Served(HolderClient),
}

/// Where one call goes.
pub(super) enum Way {
    Here(Engine),
    There(Connection),
}

impl Door {
    /// Holds the folder if nobody does, else becomes a client of the holder. A holder that
    /// is just starting or ending is waited for.
    ///
    /// `builder` says how to open the folder; it is called for each attempt.
    ///
    /// # Errors
    /// `holder_not_answering`, `other_local_user`, and those of [`EngineBuilder::open`].
    pub async fn open(builder: impl Fn() -> Result<EngineBuilder> + Send + Sync + 'static) -> Result<Self> {
        let (side, _) = enter(&builder).await?;
        Ok(Self { builder: Box::new(builder), side: Mutex::new(side) })
    }

    /// Holds the folder, for a process that means to keep it.
    ///
    /// # Errors
    /// `data_folder_held`, naming the process that holds it; those of [`EngineBuilder::open`].
    pub async fn hold(builder: impl Fn() -> Result<EngineBuilder> + Send + Sync + 'static) -> Result<Self> {
        let engine = builder()?.open().await?;
        Ok(Self { builder: Box::new(builder), side: Mutex::new(Side::Holding(engine)) })
    }

    /// Asks for one verb. Dropping the future cancels it.
    ///
    /// # Errors
    /// Those of the verb; `holder_gone` when the holder was killed meanwhile.
    pub async fn call<V: Verb>(&self, verb: V, caller: &Caller, progress: Progress) -> Result<V::Reply> {
        match self.way().await? {
            Way::Here(engine) => verb.run(&engine, &caller.context(&engine).await?, progress).await,
            Way::There(connection) => connection.call(verb, caller, progress).await,
        }
    }

    /// The process that serves this one; `None` when this process holds the folder itself.
    pub async fn served_by(&self) -> Option<Holder> {
        match &*self.side.lock().await {
            Side::Holding(_) => None,
            Side::Served(client) => client.holder(),
        }
    }

    /// Lets go of the folder, once the calls of other processes are answered. Later calls fail.
    ///
    /// # Errors
    /// Those of [`Engine::close`].
    pub async fn close(&self) -> Result<()> {
        let engine = match &*self.side.lock().await {
            Side::Holding(engine) => engine.clone(),
            Side::Served(_) => return Ok(()),
        };
        engine.close().await
    }

    pub(super) async fn way(&self) -> Result<Way> {
        let mut side = self.side.lock().await;
        let client = match &*side {
            Side::Holding(engine) => return Ok(Way::Here(engine.clone())),
            Side::Served(client) => client.clone(),
        };
        if let Some(connection) = client.connect().await? {
            return Ok(Way::There(connection));
        }
        let (entered, connection) = enter(&self.builder).await?;
        *side = entered;
        Ok(match (&*side, connection) {
            (Side::Holding(engine), _) => Way::Here(engine.clone()),
            (Side::Served(_), Some(connection)) => Way::There(connection),
            (Side::Served(_), None) => return Err(LocalError::Gone.into()),
        })
    }
}

/// Takes the folder, or a connection to whoever has it.
async fn enter(builder: &(impl Fn() -> Result<EngineBuilder> + ?Sized)) -> Result<(Side, Option<Connection>)> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let attempt = builder()?;
        let client = HolderClient::new(attempt.folder().clone());
        match attempt.open().await {
            Err(error) if error.code() == "data_folder_held" => {}
            opened => return opened.map(|engine| (Side::Holding(engine), None)),
        }
        if let Some(connection) = client.connect().await? {
            return Ok((Side::Served(client), Some(connection)));
        }
        if started.elapsed() > PATIENCE {
            return Err(LocalError::NotAnswering { pid: client.holder().map(|holder| holder.pid) }.into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door(..)")
    }
}
