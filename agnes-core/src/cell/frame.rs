//! Messages between Agnes and a worker: a kind, a query's number, a length, that many bytes.

use std::io::{self, IoSlice, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes before the body of a message.
pub(super) const HEAD: usize = 16;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// To the worker, first: [`super::wire::Setup`].
    Setup = 0,
    /// To the worker: [`super::wire::Assign`].
    Assign = 1,
    /// To the worker: [`super::wire::Start`] of a query.
    Start = 2,
    /// To the worker: as many bytes of rows were taken.
    Credit = 3,
    /// To the worker: nobody wants the rows of a query any more.
    Cancel = 4,
    /// To the worker, after `Assign`: rows of a table to load, a stream of Arrow IPC.
    Load = 5,
    /// From the worker: it is confined. [`super::wire::Ready`].
    Ready = 16,
    /// From the worker: it will not serve. [`super::wire::Refused`].
    Refused = 17,
    /// From the worker: it holds what was assigned.
    Assigned = 18,
    /// From the worker: the columns of a query, the head of a stream of Arrow IPC.
    Schema = 19,
    /// From the worker: rows of a query, more of that stream.
    Rows = 20,
    /// From the worker: the rows of a query have ended.
    End = 21,
    /// From the worker: a query has failed. [`crate::error::WireError`].
    Failed = 22,
    /// From the worker: nothing of a query is left in the engine.
    Free = 23,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Setup, Assign, Start, Credit, Cancel, Load, Ready, Refused, Assigned, Schema, Rows, End, Failed, Free]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A message that was read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) body: Vec<u8>,
}

impl Frame {
    /// The value in the body.
    pub(super) fn json<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(io::Error::other)
    }
}

/// A message ready to be written, without a body.
pub(super) fn empty(kind: Kind, id: u64) -> Vec<u8> {
    finish(kind, id, vec![0; HEAD])
}

/// A message ready to be written, with a body of JSON.
pub(super) fn json(kind: Kind, id: u64, value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, value).map_err(io::Error::other)?;
    Ok(finish(kind, id, bytes))
}

/// Fills in the head of a message, for which `bytes` begins with [`HEAD`] bytes.
pub(super) fn finish(kind: Kind, id: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes.len() - HEAD;
    fill_head(kind, id, length, &mut bytes);
    bytes
}

/// Fills in the first [`HEAD`] bytes of a message whose body is as long as said.
pub(super) fn fill_head(kind: Kind, id: u64, length: usize, bytes: &mut [u8]) {
    // A message that is too long is cut by the reader, which then gives the worker up.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    bytes[..HEAD].fill(0);
    bytes[0] = kind as u8;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&id.to_le_bytes());
}

/// Writes a finished message.
pub(super) fn write(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)
}

/// Writes a finished message whose end lies elsewhere in memory.
pub(super) fn write_both(mut to: impl Write, bytes: &[u8], rest: &[u8]) -> io::Result<()> {
    // In one call as far as it goes: the reader is woken once.
    let written = to.write_vectored(&[IoSlice::new(bytes), IoSlice::new(rest)])?;
    to.write_all(bytes.get(written..).unwrap_or_default())?;
    to.write_all(rest.get(written.saturating_sub(bytes.len())..).unwrap_or_default())
}

/// Reads one message of at most `most` bytes; `None` where the other side has closed.
pub(super) fn read(from: &mut impl Read, most: u64) -> io::Result<Option<Frame>> {
    let mut head = [0_u8; HEAD];
    let mut filled = 0;
    while filled < HEAD {
        match from.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let [kind, _, _, _, l0, l1, l2, l3, id @ ..] = head;
    let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
    let kind = Kind::from_byte(kind).filter(|_| length <= most);
    let kind = kind.ok_or_else(|| io::Error::other("not a message"))?;
    let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    if from.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame { kind, id: u64::from_le_bytes(id), body }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = json(Kind::Start, 7, &vec!["x", "y"]).unwrap();
        bytes.extend(empty(Kind::Cancel, u64::MAX));
        let mut from = &bytes[..];
        let first = read(&mut from, 100).unwrap().unwrap();
        assert_eq!((first.kind, first.id, first.json::<Vec<String>>().unwrap().len()), (Kind::Start, 7, 2));
        let second = read(&mut from, 100).unwrap().unwrap();
        assert_eq!((second.kind, second.id, second.body.len()), (Kind::Cancel, u64::MAX, 0));
        assert!(read(&mut from, 100).unwrap().is_none());
    }

    #[test]
    fn what_is_not_a_message_is_an_error() {
        let bytes = json(Kind::Start, 7, &"x".repeat(50)).unwrap();
        assert!(read(&mut &bytes[..], 51).is_err());
        for cut in 1..bytes.len() {
            assert!(read(&mut &bytes[..cut], 1000).is_err(), "{cut}");
        }
        let mut other = bytes;
        other[0] = 99;
        assert!(read(&mut &other[..], 1000).is_err());
    }
}
