//! The holder's side: answers the calls of other processes of the same user.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frame::{self, Call, Kind, PROTOCOL};
use super::{LocalError, rows, socket, verbs};
use crate::connector::{Progress, ProgressEvent};
use crate::engine::{Engine, WeakEngine};
use crate::error::{Error, Result};
use crate::layout::DataFolder;

/// Progress events that wait to be sent; more than these are dropped, they only feed a bar.
const WAITING_EVENTS: usize = 256;

/// Listens on the socket of a held folder. Dropping it stops listening and removes the
/// socket; calls that are being answered keep the engine until they end.
#[derive(Debug)]
pub struct Listener {
    folder: DataFolder,
    accepting: JoinHandle<()>,
    /// Closes when the last call has been answered: each holds a sender.
    answered: mpsc::Receiver<Infallible>,
}

impl Listener {
    /// Listens for the engine that holds `folder`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// I/O errors.
    pub fn start(folder: &DataFolder, engine: WeakEngine) -> Result<Self> {
        let listener = socket::bind(folder).map_err(|e| Error::io("listen on the holder's socket", e))?;
        let (answering, answered) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, engine, answering));
        Ok(Self { folder: folder.clone(), accepting, answered })
    }

    /// Stops listening and waits until the calls that were taken are answered, for at most
    /// `patience`.
    pub async fn finish(mut self, patience: Duration) {
        self.stop();
        let _ = tokio::time::timeout(patience, self.answered.recv()).await;
    }

    fn stop(&self) {
        self.accepting.abort();
        // The lock is still held here, so nobody else's socket can be at this name.
        let _ = std::fs::remove_file(self.folder.holder_socket());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: UnixListener, engine: WeakEngine, answering: mpsc::Sender<Infallible>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(engine) = engine.upgrade() else { return };
                let answering = answering.clone();
                tokio::spawn(async move {
                    answer(stream, engine).await;
                    drop(answering);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a local connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, engine: Engine) {
    let same_user = socket::is_same_user(&stream);
    let (mut from, mut to) = stream.into_split();
    let result = if same_user { serve(&mut from, &mut to, &engine).await } else { Err(LocalError::OtherUser.into()) };
    if let Err(error) = result {
        // A client that went away is not told.
        let _ = frame::write_json(&mut to, Kind::Failure, &error.to_wire()).await;
    }
}

async fn serve(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, engine: &Engine) -> Result<()> {
    frame::write_json(to, Kind::Hello, &PROTOCOL).await?;
    let (kind, body) = frame::read(from).await?;
    if kind != Kind::Call {
        return Err(LocalError::OtherVersion.into());
    }
    let call: Call = frame::decode(&body)?;
    let answer = async {
        let ctx = call.caller.context(engine).await?;
        if call.verb == rows::QUERY {
            return rows::send(to, engine, &ctx, call.args).await;
        }
        let (events, waiting) = mpsc::channel(WAITING_EVENTS);
        let progress = Progress::to(move |event| {
            let _ = events.try_send(event);
        });
        let reply = forward(waiting, to, verbs::dispatch(&call.verb, call.args, engine, &ctx, progress)).await?;
        frame::write_json(to, Kind::Reply, &reply).await
    };
    tokio::select! {
        result = answer => result,
        () = closed(from) => Err(LocalError::Gone.into()),
    }
}

/// Runs `work` and sends the events it reports meanwhile.
async fn forward<T>(
    mut events: mpsc::Receiver<ProgressEvent>,
    to: &mut OwnedWriteHalf,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => frame::write_json(to, Kind::Progress, &event).await?,
            result = &mut work => return result,
        }
    }
}

/// Waits until the client has closed its end. It sends nothing after its call.
async fn closed(from: &mut OwnedReadHalf) {
    let mut byte = [0];
    while matches!(from.read(&mut byte).await, Ok(1)) {}
}
