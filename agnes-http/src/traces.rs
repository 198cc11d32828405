//! Traces by OTLP, where the operator names a collector: the only place that knows
//! OpenTelemetry.
//!
//! The standard variables count: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `.._TRACES_ENDPOINT`) switches
//! it on, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_TRACES_SAMPLER` and the others of the SDK say more. Protobuf over HTTP.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use agnes_connectors::outbound::{Outbound, OutboundError, Rules};
use async_trait::async_trait;
use axum::http::{HeaderMap, Request, Response};
use hyper::body::Bytes;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// How long the collector may take for one batch, and for the last one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether requests are traced: nobody pays for reading headers otherwise.
static ON: AtomicBool = AtomicBool::new(false);

/// Where finished spans go.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent as the variables `OTEL_..` say: {message}")]
pub struct TracesError {
    /// What is wrong with them.
    message: String,
}

impl Traces {
    /// Traces to the collector that the environment names; nothing where it names none.
    ///
    /// # Errors
    /// [`TracesError`] where an address or a header is none.
    pub fn from_environment(runtime: &tokio::runtime::Handle) -> Result<Option<Self>, TracesError> {
        let named = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
        if named.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
            return Ok(None);
        }
        let failed = |message: String| TracesError { message };
        // The operator named it, so it may be of this machine or network.
        let hosts: Vec<String> = named.iter().filter_map(|name| host_of(&std::env::var(name).ok()?)).collect();
        let client = Outbound::new(Rules::default().allowing(&hosts));
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Sender { client, runtime: runtime.clone() })
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("agnes");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        ON.store(true, Relaxed);
        Ok(Some(Self(provider)))
    }

    /// Makes spans of what the program traces.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let tracer = self.0.tracer("agnes");
        // What the exporter's own client does is no work of Agnes.
        let ours = tracing_subscriber::filter::filter_fn(|metadata| {
            metadata.target().starts_with("agnes") && *metadata.level() <= tracing::Level::INFO
        });
        tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false).with_filter(ours)
    }

    /// Sends what is left. Blocks for some seconds at most.
    pub fn finish(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(PATIENCE) {
            tracing::warn!("the last traces were not sent: {error}");
        }
    }
}

/// The HTTP client of the exporter, whose own thread knows no runtime.
#[derive(Debug)]
struct Sender {
    client: Outbound,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, (head, body)) = (self.client.clone(), request.into_parts());
        let sent = self.runtime.spawn(async move {
            let mut outgoing = client.post(&head.uri.to_string()).timeout(PATIENCE).bytes(body);
            for (name, value) in &head.headers {
                if let Ok(value) = value.to_str() {
                    outgoing = outgoing.header(name.as_str(), value);
                }
            }
            let answer = outgoing.send().await?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.body_mut() = answer.bytes().await?.into();
            Ok::<_, OutboundError>(response)
        });
        Ok(sent.await??)
    }
}

/// The host of an address, as it stands there.
fn host_of(address: &str) -> Option<String> {
    url::Url::parse(address).ok()?.host_str().map(ToOwned::to_owned)
}

/// Makes a request part of the trace that its client began (`traceparent`).
pub(crate) fn continued(span: &tracing::Span, headers: &HeaderMap) {
    if ON.load(Relaxed) {
        let began = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        let _ = span.set_parent(began);
    }
}
