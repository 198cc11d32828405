//! One listener and everything behind it.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use agnes_core::Engine;
use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::Request;
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};

use crate::peer::Peer;
use crate::problem::Problem;
use crate::state::App;

/// What a deployment says of itself.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// Where the build came from.
    pub channel: Option<String>,
    /// Tag of the container image.
    pub image_tag: Option<String>,
    /// Commit it was built from.
    pub commit_sha: Option<String>,
    /// When it was deployed.
    pub deployed_at: Option<String>,
}

/// How much a server takes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request body, where a route says nothing else.
    pub body: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Rows of a JSON answer, at most.
    pub query_rows: usize,
    /// Bytes of rows of a JSON answer, about; then it is cut.
    pub query_bytes: usize,
    /// How long a request's head may take to arrive.
    pub head_timeout: Duration,
    /// How long requests may go on once the server was asked to stop.
    pub farewell: Duration,
    /// How many proxies in front of it write `X-Forwarded-For`; 0 when clients connect to it.
    pub trusted_proxy_hops: usize,
    /// Whether tries to sign in are limited per address.
    pub sign_in_rates: bool,
    /// What the deployment says of itself.
    pub build: Build,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1024 * 1024,
            head: 64 * 1024,
            query_rows: 1_000_000,
            query_bytes: 64 << 20,
            head_timeout: Duration::from_secs(15),
            farewell: Duration::from_secs(20),
            trusted_proxy_hops: 0,
            sign_in_rates: true,
            build: Build::default(),
        }
    }
}

/// Why a server ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed.
    #[error("connections can no longer be taken")]
    Listener(#[source] std::io::Error),
}

/// Everything behind one listener.
pub struct Server {
    app: App,
    router: Router,
}

impl Server {
    /// Serves `engine`.
    #[must_use]
    pub fn new(engine: Engine, limits: Limits) -> Self {
        let body = limits.body;
        let app = App::new(engine, limits);
        let (routes, _) = crate::routes::all().split_for_parts();
        // What is packed already, and streams that a proxy of bytes would hold back.
        let worth_packing = SizeAbove::new(1024)
            .and(NotForContentType::const_new("application/octet-stream"))
            .and(NotForContentType::const_new("text/csv"))
            .and(NotForContentType::const_new("application/x-ndjson"))
            .and(NotForContentType::const_new("application/vnd.apache.parquet"))
            .and(NotForContentType::const_new("application/vnd.apache.arrow.stream"));
        let router = routes
            .fallback(|| async { Problem::not_found() })
            .layer(CompressionLayer::new().compress_when(worth_packing))
            .layer(DefaultBodyLimit::max(body))
            .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| Problem::internal().into_response()))
            .layer(axum::middleware::from_fn_with_state(app.clone(), crate::frame::frame))
            .with_state(app.clone());
        Self { app, router }
    }

    /// Takes connections until `stop` is ready, then lets running requests end within the
    /// limit.
    ///
    /// # Errors
    /// [`ServeError::Listener`].
    pub async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { app, router } = self;
        let probes = tokio::spawn(crate::health::watch(app.clone()));
        let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut stop => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(&app, &router, &graceful, stream, Peer(peer)));
                }
                Err(error) if is_of_one_connection(&error) => {}
                // Out of descriptors, most likely: connections that end give some back.
                Err(error) => {
                    tracing::error!("a connection could not be taken: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        drop(listener);
        tracing::info!("no more connections; running requests may end");
        if tokio::time::timeout(app.limits().farewell, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were cut off at the end of their time");
        }
        // What they still ask of the engine ends with them.
        connections.shutdown().await;
        probes.abort();
        Ok(())
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connection(
    app: &App,
    router: &Router,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    peer: Peer,
) -> impl Future<Output = ()> + use<> {
    let _ = stream.set_nodelay(true);
    let router = router.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits().head_timeout)
        .max_buf_size(app.limits().head.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    let (connection, held) = (graceful.watch(connection), app.meters().connection());
    async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended early: {error}");
        }
        drop(held);
    }
}
