//! `agnes serve`: the data folder over HTTP.

use std::time::Duration;

use agnes_http::{Build, Limits, Server};
use tokio::net::TcpListener;

use crate::app::App;
use crate::args::ServeArgs;
use crate::failure::{Failure, Outcome};

/// Serves until a signal says to stop.
pub(crate) async fn run(app: &App, args: &ServeArgs) -> Outcome {
    let hops = number("AGNES_TRUSTED_PROXY_HOPS")?.unwrap_or_default();
    let defaults = Limits::default();
    let listener =
        TcpListener::bind(&args.bind).await.map_err(|e| Failure::file(&format!("listen on {}", args.bind), &e))?;
    let address = listener.local_addr().map_err(|e| Failure::file("listen", &e))?;
    let engine = app.hold().await?;
    let limits = Limits {
        farewell: Duration::from_secs(args.farewell),
        trusted_proxy_hops: hops,
        sign_in_rates: text("AGNES_AUTH_RATELIMIT_ENABLED").is_none_or(|value| value != "0"),
        query_rows: number("AGNES_MAX_QUERY_ROWS")?.unwrap_or(defaults.query_rows),
        build: Build {
            channel: text("AGNES_CHANNEL"),
            image_tag: text("AGNES_IMAGE_TAG"),
            commit_sha: text("AGNES_COMMIT_SHA"),
            deployed_at: text("AGNES_DEPLOYED_AT"),
        },
        ..defaults
    };
    let startup = engine.sign_in().start().await?;
    tracing::info!(%address, "serving");
    if let Some(token) = startup.bootstrap {
        app.out
            .note("There is no Admin yet. Make the first one within a day, with a password of at least 8 characters:");
        app.out.note(&format!(
            "  curl http://{address}/auth/bootstrap -H 'X-Bootstrap-Token: {}' -H 'Content-Type: application/json' \\\n    \
             -d '{{\"email\": \"you@example.com\", \"password\": \"...\"}}'",
            token.expose()
        ));
    }
    app.out.note(&format!("Serving on http://{address}"));
    let served = Server::new(engine.clone(), limits).run(listener, crate::interrupted()).await;
    engine.close().await?;
    served.map_err(|e| Failure::usage(e.to_string()))
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Outcome<Option<usize>> {
    let Some(text) = text(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Failure::usage(format!("`{name}` has to be a whole number")))
}
