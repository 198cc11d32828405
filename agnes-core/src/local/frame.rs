//! Messages on the holder's socket: a kind, a length, that many bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Caller, LocalError};
use crate::error::{Error, Result};

/// Version of this protocol. Both ends are the same user's; they may differ in version only
/// while an upgrade is under way.
pub(super) const PROTOCOL: u32 = 1;

/// Largest message: one record batch, or one reply.
const MAX_FRAME: usize = 1 << 30;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Holder: the protocol's version. What is asked after it will be answered, even when the
    /// holder is about to end; a client that does not get it has asked nothing yet.
    Hello = 0,
    /// Client: one [`Call`].
    Call = 1,
    /// Holder: a progress event.
    Progress = 2,
    /// Holder: the reply; nothing follows.
    Reply = 3,
    /// Holder: a [`crate::error::WireError`]; nothing follows.
    Failure = 4,
    /// Holder: bytes of an Arrow IPC stream.
    Arrow = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Hello, Self::Call, Self::Progress, Self::Reply, Self::Failure, Self::Arrow]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// What a client asks. One connection carries one call; closing it cancels the call.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Call {
    pub(super) verb: String,
    pub(super) caller: Caller,
    pub(super) args: serde_json::Value,
}

/// Writes one message.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), kind: Kind, body: &[u8]) -> Result<()> {
    let length = u32::try_from(body.len()).map_err(|e| Error::internal("send a local message", e))?;
    let send = async {
        to.write_all(&[&[kind as u8][..], &length.to_be_bytes()].concat()).await?;
        to.write_all(body).await?;
        to.flush().await
    };
    send.await.map_err(|_| LocalError::Gone.into())
}

/// Writes one message of JSON.
pub(super) async fn write_json(to: &mut (impl AsyncWrite + Unpin), kind: Kind, value: &impl Serialize) -> Result<()> {
    let body = serde_json::to_vec(value).map_err(|e| Error::internal("encode a local message", e))?;
    write(to, kind, &body).await
}

/// Reads one message.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await.map_err(|_| LocalError::Gone)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let kind = Kind::from_byte(head[0]).filter(|_| length <= MAX_FRAME).ok_or(LocalError::OtherVersion)?;
    let mut body = Vec::with_capacity(length.min(1 << 20));
    let read = from.take(length as u64).read_to_end(&mut body).await.map_err(|_| LocalError::Gone)?;
    if read == length { Ok((kind, body)) } else { Err(LocalError::Gone.into()) }
}

/// Reads JSON out of a message.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| LocalError::BadMessage { reason: e.to_string() }.into())
}
