//! The rows of a running query, as whoever reads them takes them.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use tokio::sync::mpsc;

use super::QueryError;

/// One batch, or why there are no more.
pub(crate) type Next = Result<RecordBatch, QueryError>;

/// Told how many bytes were taken, so that as many more may come.
pub(crate) type Taken = Box<dyn Fn(u32) + Send + Sync>;

/// Record batches as they are made.
pub struct Batches(Source);

enum Source {
    /// Made in this process; the channel is short.
    Here(mpsc::Receiver<Next>),
    /// Made elsewhere; the sender waits until enough was taken.
    Elsewhere(mpsc::UnboundedReceiver<(Next, u32)>, Taken),
}

impl From<mpsc::Receiver<Next>> for Batches {
    fn from(batches: mpsc::Receiver<Next>) -> Self {
        Self(Source::Here(batches))
    }
}

impl Batches {
    pub(crate) fn elsewhere(batches: mpsc::UnboundedReceiver<(Next, u32)>, taken: Taken) -> Self {
        Self(Source::Elsewhere(batches, taken))
    }

    /// The next batch, or why there are no more; `None` at the end.
    pub async fn recv(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        match &mut self.0 {
            Source::Here(batches) => batches.poll_recv(cx),
            Source::Elsewhere(batches, taken) => batches.poll_recv(cx).map(|next| {
                let (batch, bytes) = next?;
                if bytes > 0 {
                    taken(bytes);
                }
                Some(batch)
            }),
        }
    }

    pub(crate) fn blocking_recv(&mut self) -> Option<Next> {
        match &mut self.0 {
            Source::Here(batches) => batches.blocking_recv(),
            Source::Elsewhere(batches, taken) => {
                let (batch, bytes) = batches.blocking_recv()?;
                taken(bytes);
                Some(batch)
            }
        }
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batches")
    }
}
