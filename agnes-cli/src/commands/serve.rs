//! `agnes serve`: the data folder over HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use agnes_http::{Build, Limits, Origins, Server};
use tokio::net::TcpListener;

use crate::app::App;
use crate::args::ServeArgs;
use crate::failure::{Failure, Outcome};

/// Serves until a signal says to stop.
pub(crate) async fn run(app: &App, args: &ServeArgs) -> Outcome {
    let hops = number("AGNES_TRUSTED_PROXY_HOPS")?.unwrap_or_default();
    let origins = text("CORS_ORIGINS").map(|text| Origins::parse(&text)).transpose();
    let origins = origins.map_err(|e| Failure::usage(format!("`CORS_ORIGINS`: {e}")))?.unwrap_or_default();
    let defaults = Limits::default();
    let scheduler = if args.no_scheduler { None } else { Some(super::scheduler::settings()?) };
    let listener =
        TcpListener::bind(&args.bind).await.map_err(|e| Failure::file(&format!("listen on {}", args.bind), &e))?;
    let address = listener.local_addr().map_err(|e| Failure::file("listen", &e))?;
    take_all_files();
    let engine = app.hold().await?;
    let farewell = Duration::from_secs(args.farewell);
    let limits = Limits {
        farewell,
        trusted_proxy_hops: hops,
        origins,
        sign_in_rates: text("AGNES_AUTH_RATELIMIT_ENABLED").is_none_or(|value| value != "0"),
        debug: text("DEBUG").is_some_and(|value| value == "1"),
        debug_auth: text("AGNES_DEBUG_AUTH").is_some_and(|value| value == "1"),
        query_rows: number("AGNES_MAX_QUERY_ROWS")?.unwrap_or(defaults.query_rows),
        tools: super::mcp::settings()?,
        cli_archives: text("AGNES_CLI_DIST_DIR").map_or(defaults.cli_archives, Into::into),
        tls_chain: text("AGNES_TLS_FULLCHAIN_PATH").map(Into::into),
        build: Build {
            version: text("AGNES_VERSION"),
            channel: text("RELEASE_CHANNEL"),
            image_tag: text("AGNES_TAG"),
            commit_sha: text("AGNES_COMMIT_SHA"),
            deployed_at: text("AGNES_DEPLOYED_AT"),
        },
        body_timeout: seconds("AGNES_BODY_TIMEOUT_SECONDS")?.unwrap_or(defaults.body_timeout),
        reader_timeout: seconds("AGNES_READER_TIMEOUT_SECONDS")?.unwrap_or(defaults.reader_timeout),
        probe_every: seconds("AGNES_PROBE_SECONDS")?.unwrap_or(defaults.probe_every),
        ..defaults
    };
    if let Some(dev) = &engine.config().dev
        && !dev.may_listen_at(address.ip())
    {
        engine.close().await?;
        return Err(Failure::usage_hint(
            "in development mode everybody who reaches the server is an Admin, so it listens to this machine alone",
            "bind to `127.0.0.1`, unset `LOCAL_DEV_MODE`, or set `AGNES_ALLOW_INSECURE_DEV=1` if you mean it",
        ));
    }
    let startup = engine.sign_in().start().await?;
    if let Err(error) = engine.sign_in().check_providers().await {
        engine.close().await?;
        return Err(error.into());
    }
    let mut server = Server::new(engine.clone(), limits);
    tracing::info!(%address, "serving");
    let site = &engine.config().site;
    if engine.mails().is_on() && !address.ip().is_loopback() && site.server_url.is_none() && site.domain.is_none() {
        tracing::warn!("links in mails lead to this machine alone: set `SERVER_URL` to where people find this server");
    }
    if let Some(token) = startup.bootstrap {
        let origin = site.origin(None, false, true, &reachable(address).to_string());
        app.out.note("There is no Admin yet. Make the first one on this page, within a day:");
        app.out.note(&format!("  {origin}/first-time-setup?token={}", token.expose()));
    }
    app.out.note(&format!("Serving on http://{address}"));
    if let Some(settings) = scheduler {
        server = server.with_scheduler(settings);
    }
    let asked = std::sync::OnceLock::new();
    let stop = async {
        crate::interrupted().await;
        let _ = asked.set(Instant::now());
    };
    let served = server.run(listener, stop).await;
    // Commands of this machine have what requests left of the time.
    let left = asked.get().map_or(farewell, |asked| farewell.saturating_sub(asked.elapsed()));
    engine.close_within(left).await?;
    served.map_err(|e| Failure::usage(e.to_string()))
}

/// An address to go to: every interface is none, this machine is one of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

/// A connection is an open file, and many systems start a process with a limit far below what
/// it may ask for.
fn take_all_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, all) {
            tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
        }
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn seconds(name: &str) -> Outcome<Option<Duration>> {
    let at_least_one = |number: usize| Duration::from_secs(u64::try_from(number.max(1)).unwrap_or(u64::MAX));
    Ok(number(name)?.map(at_least_one))
}

fn number(name: &str) -> Outcome<Option<usize>> {
    let Some(text) = text(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Failure::usage(format!("`{name}` has to be a whole number")))
}
