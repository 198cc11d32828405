//! One listener and everything behind it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agnes_core::Engine;
use agnes_core::scheduler::{Scheduler, SchedulerSettings};
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
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::cors::Origins;
use crate::mcp::Settings;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::scheduler::Inside;
use crate::state::App;

/// What a deployment says of itself.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// Its version, where the deployment has one of its own.
    pub version: Option<String>,
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
    /// Bytes of the body of a query, which may bring rows along.
    pub query_body: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Rows of a JSON answer, at most.
    pub query_rows: usize,
    /// Bytes of rows of a JSON answer, about; then it is cut.
    pub query_bytes: usize,
    /// How much a tool for assistants answers.
    pub tools: Settings,
    /// How long a request's head may take to arrive.
    pub head_timeout: Duration,
    /// How long each piece of a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take nothing of its answer. Linux only.
    pub reader_timeout: Duration,
    /// Time between two looks at whether the engine answers.
    pub probe_every: Duration,
    /// How long requests may go on once the server was asked to stop.
    pub farewell: Duration,
    /// How many proxies in front of it write `X-Forwarded-For`; 0 when clients connect to it.
    pub trusted_proxy_hops: usize,
    /// Origins whose pages may call the API.
    pub origins: Origins,
    /// Whether tries to sign in are limited per address.
    pub sign_in_rates: bool,
    /// Whether people may see what a sync of their groups would do: for whoever sets it up.
    pub debug_auth: bool,
    /// Whether answers tell the cause of a failure of the server itself: for whoever develops it.
    pub debug: bool,
    /// Folder with archives of the command, for people to install.
    pub cli_archives: std::path::PathBuf,
    /// The chain of certificates that the proxy in front shows, PEM, for people to trust its authority where nobody
    /// else does; `certs/fullchain.pem` beside the state where there is none.
    pub tls_chain: Option<std::path::PathBuf>,
    /// What the deployment says of itself.
    pub build: Build,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1024 * 1024,
            query_body: 32 * 1024 * 1024,
            head: 64 * 1024,
            query_rows: 1_000_000,
            query_bytes: 64 << 20,
            tools: Settings::default(),
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            reader_timeout: Duration::from_secs(60),
            probe_every: Duration::from_secs(10),
            farewell: Duration::from_secs(20),
            trusted_proxy_hops: 0,
            origins: Origins::default(),
            sign_in_rates: true,
            debug_auth: false,
            debug: false,
            cli_archives: "/app/dist".into(),
            tls_chain: None,
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
    scheduler: Option<SchedulerSettings>,
}

impl Server {
    /// Serves `engine`.
    #[must_use]
    pub fn new(engine: Engine, limits: Limits) -> Self {
        let (body, cors) = (limits.body, limits.origins.layer());
        let app = App::new(engine, limits);
        let (routes, _) = crate::routes::all().split_for_parts();
        // Not what is packed already, and no stream: its reader waits for every piece.
        let worth_packing = SizeAbove::new(1024)
            .and(OfKnownSize)
            .and(NotForContentType::const_new("application/octet-stream"))
            .and(NotForContentType::const_new("text/csv"))
            .and(NotForContentType::const_new("application/x-ndjson"))
            .and(NotForContentType::const_new("application/vnd.apache.parquet"))
            .and(NotForContentType::const_new("application/vnd.apache.arrow.stream"));
        let router = routes
            .fallback(|| async { Problem::not_found() })
            .layer(CompressionLayer::new().compress_when(worth_packing))
            .layer(DefaultBodyLimit::max(body))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(cors)
            .layer(axum::middleware::from_fn(crate::cors::open))
            .layer(axum::middleware::from_fn_with_state(app.clone(), crate::frame::frame))
            .with_state(app.clone());
        Self { app, router, scheduler: None }
    }

    /// Does what is due, too, while it runs.
    #[must_use]
    pub fn with_scheduler(self, settings: SchedulerSettings) -> Self {
        Self { scheduler: Some(settings), ..self }
    }

    /// Takes connections until `stop` is ready, then lets running requests end within the
    /// limit.
    ///
    /// # Errors
    /// [`ServeError::Listener`].
    pub async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { app, router, scheduler } = self;
        if let Ok(address) = listener.local_addr() {
            app.set_bound(address);
        }
        if let Err(error) = app.engine().pushes().start().await {
            tracing::error!(code = error.code(), "deliveries that wait are not worked on: {error}");
        }
        if let Err(error) = app.engine().warm_up_at_start().await {
            tracing::error!(code = error.code(), "warehouses are not asked about their tables: {error}");
        }
        let probes = tokio::spawn(crate::health::watch(app.clone()));
        let care = tokio::spawn(tend(app.clone()));
        let (no_more, last) = tokio::sync::oneshot::channel::<()>();
        let mut scheduled = JoinSet::new();
        if let Some(settings) = scheduler {
            let inside = Inside { app: app.clone(), router: router.clone() };
            let scheduler = Scheduler::of(app.engine(), settings, Arc::new(inside));
            scheduled.spawn(async move { scheduler.run(async { _ = last.await }).await });
        }
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
        drop(no_more);
        app.engine().end_warm_up_events();
        tracing::info!("no more connections; running requests may end");
        let ended = async {
            graceful.shutdown().await;
            while scheduled.join_next().await.is_some() {}
        };
        if tokio::time::timeout(app.limits().farewell, ended).await.is_err() {
            tracing::warn!("requests were cut off at the end of their time");
        }
        // What they still ask of the engine ends with them.
        connections.shutdown().await;
        scheduled.shutdown().await;
        probes.abort();
        care.abort();
        Ok(())
    }
}

/// The answer to a request whose code panicked.
fn panicked(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let cause = said.unwrap_or("a panic without a text");
    tracing::error!(cause, "the code behind a request panicked");
    Problem::internal().because(cause).into_response()
}

/// Once a day, and at the start.
const CARE: Duration = Duration::from_secs(24 * 3600);

/// Has the engine do what comes back while a server runs.
async fn tend(app: App) {
    loop {
        if let Err(error) = app.engine().maintenance().tend().await {
            tracing::error!(code = error.code(), "the daily care of the data folder failed: {error}");
        }
        tokio::time::sleep(CARE).await;
    }
}

/// A body that is whole already.
#[derive(Debug, Clone, Copy)]
struct OfKnownSize;

impl Predicate for OfKnownSize {
    fn should_compress<B: hyper::body::Body>(&self, response: &axum::http::Response<B>) -> bool {
        response.body().size_hint().exact().is_some()
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
    // Who takes nothing of an answer for that long is gone: the kernel ends the connection.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, app.limits().reader_timeout.as_millis() as u32);
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
