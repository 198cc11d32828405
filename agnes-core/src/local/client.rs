//! The client's side: asks the process that holds the folder.

use serde_json::Value;
use tokio::net::UnixStream;

use super::frame::{self, Call, Kind, PROTOCOL};
use super::{Caller, Holder, LocalError, Verb, socket};
use crate::connector::Progress;
use crate::error::{Error, Result, WireError};
use crate::layout::DataFolder;

/// A client of the process that holds a data folder.
#[derive(Debug, Clone)]
pub(super) struct HolderClient {
    folder: DataFolder,
}

/// A connection on which nothing was asked yet. The holder answers one call on it.
#[derive(Debug)]
pub(super) struct Connection(UnixStream);

impl HolderClient {
    pub(super) fn new(folder: DataFolder) -> Self {
        Self { folder }
    }

    /// Who holds the folder.
    pub(super) fn holder(&self) -> Option<Holder> {
        Holder::read(&self.folder)
    }

    /// Connects; `None` when nobody listens, or only somebody who is ending.
    pub(super) async fn connect(&self) -> Result<Option<Connection>> {
        let Ok(mut stream) = socket::connect(&self.folder).await else { return Ok(None) };
        if !socket::is_same_user(&stream) {
            return Err(LocalError::OtherUser.into());
        }
        match frame::read(&mut stream).await {
            Ok((Kind::Hello, body)) if frame::decode::<u32>(&body)? == PROTOCOL => Ok(Some(Connection(stream))),
            Ok((Kind::Failure, body)) => Err(frame::decode::<WireError>(&body)?.into()),
            Ok(_) => Err(LocalError::OtherVersion.into()),
            Err(error) if error.code() == "holder_gone" => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Connection {
    /// Asks for one verb. Dropping the future closes the connection, which ends the call.
    pub(super) async fn call<V: Verb>(self, verb: V, caller: &Caller, progress: Progress) -> Result<V::Reply> {
        let args = serde_json::to_value(verb).map_err(|e| Error::internal("encode a call", e))?;
        let mut stream = self.ask(V::NAME, args, caller).await?;
        loop {
            match frame::read(&mut stream).await? {
                (Kind::Progress, body) => progress.report(frame::decode(&body)?),
                (Kind::Reply, body) => return frame::decode(&body),
                (Kind::Failure, body) => return Err(frame::decode::<WireError>(&body)?.into()),
                _ => return Err(LocalError::OtherVersion.into()),
            }
        }
    }

    pub(super) async fn ask(mut self, verb: &str, args: Value, caller: &Caller) -> Result<UnixStream> {
        let call = Call { verb: verb.to_owned(), caller: caller.clone(), args };
        frame::write_json(&mut self.0, Kind::Call, &call).await?;
        Ok(self.0)
    }
}
