//! A request's body, which has to keep arriving.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::time::Sleep;

/// A body of which each piece has a time to arrive, counted while somebody waits for it: who is
/// silent holds a connection, and what arrived before, no longer.
pub(crate) struct Arriving {
    body: Body,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    late: Late,
}

/// Whether a piece did not arrive in its time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Late(Arc<AtomicBool>);

impl Late {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Arriving {
    pub(crate) fn within(limit: Duration, body: Body) -> (Self, Late) {
        let late = Late::default();
        (Self { body, limit, waiting: None, late: late.clone() }, late)
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
            return Poll::Ready(frame);
        }
        let limit = this.limit;
        ready!(this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(context));
        this.late.0.store(true, Relaxed);
        Poll::Ready(Some(Err(axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
