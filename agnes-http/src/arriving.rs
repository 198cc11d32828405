//! A request's body, which has to keep arriving, and is read to its end though nobody asks for it.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use tokio::time::Sleep;

/// Most bytes that are read for nobody.
const REST: usize = 64 << 20;
/// How long all of them may take, and each piece.
const REST_WITHIN: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(2);

/// A body of which each piece has a time to arrive, counted while somebody waits for it: who is
/// silent holds a connection, and what arrived before, no longer.
pub(crate) struct Arriving {
    body: Body,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    rest: Rest,
}

/// What is to be known of a body when the answer is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rest {
    is_late: Arc<AtomicBool>,
    unread: Arc<Mutex<Option<Body>>>,
}

impl Rest {
    /// Whether a piece did not arrive in its time.
    pub(crate) fn is_late(&self) -> bool {
        self.is_late.load(Relaxed)
    }

    /// Reads what nobody read of the body, if it comes and is not too long; whether nothing is left. A
    /// client that sends more after its answer would lose the connection, perhaps the answer with it, and
    /// learn that when it sends the next request.
    pub(crate) async fn is_read(&self, is_held_back: bool) -> bool {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = unread else { return true };
        let may_come = !is_held_back && !self.is_late() && body.size_hint().lower() <= REST as u64;
        let read = async {
            let mut left = REST;
            while let Some(frame) = tokio::time::timeout(SILENCE, body.frame()).await.ok()? {
                let frame = frame.ok()?;
                let length = frame.data_ref().map_or(0, Bytes::len);
                left = left.checked_sub(length)?;
            }
            Some(())
        };
        may_come && matches!(tokio::time::timeout(REST_WITHIN, read).await, Ok(Some(())))
    }
}

impl Arriving {
    pub(crate) fn within(limit: Duration, body: Body) -> (Self, Rest) {
        let rest = Rest::default();
        (Self { body, limit, waiting: None, is_over: false, rest: rest.clone() }, rest)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.is_over && !self.body.is_end_stream() {
            *self.rest.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::mem::take(&mut self.body));
        }
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = None;
            this.is_over = !matches!(frame, Some(Ok(_)));
            return Poll::Ready(frame);
        }
        let limit = this.limit;
        ready!(this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(context));
        this.rest.is_late.store(true, Relaxed);
        Poll::Ready(Some(Err(axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
