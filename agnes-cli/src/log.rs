//! What is logged, where to and how: JSON lines for collectors, text for people.

use std::fmt::{Debug, Write as _};
use std::io::{IsTerminal as _, Write as _};

use agnes_http::Traces;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, span};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// Logs to standard error.
///
/// `AGNES_LOG` says what, as directives (`agnes_core=debug`); `LOG_LEVEL`, `-v` and `-vv` are
/// short for it. A server logs from `info` on, and JSON unless it writes to a terminal;
/// `AGNES_LOG_FORMAT` (`json` or `text`) says otherwise.
pub(crate) fn start(verbose: u8, serves: bool, traces: Option<&Traces>) {
    let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ours = |level: &str| {
        ["agnes", "agnes_core", "agnes_connectors", "agnes_http"].map(|name| format!("{name}={level}")).join(",")
    };
    let level = text("LOG_LEVEL").filter(|_| serves).map(|level| ours(&level.to_lowercase()));
    let default = level.filter(|_| verbose == 0).unwrap_or_else(|| match verbose {
        0 if !serves => "off".to_owned(),
        0 | 1 => ours("info"),
        2 => ours("debug"),
        _ => "debug".to_owned(),
    });
    let filter = text("AGNES_LOG").and_then(|directives| EnvFilter::try_new(directives).ok());
    let filter = filter.or_else(|| EnvFilter::try_new(default).ok()).unwrap_or_else(|| EnvFilter::new(ours("info")));
    let as_json =
        text("AGNES_LOG_FORMAT").map_or(serves && !std::io::stderr().is_terminal(), |format| format == "json");
    let lines: Box<dyn Layer<_> + Send + Sync> = if as_json {
        Box::new(JsonLines.with_filter(filter))
    } else {
        Box::new(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter))
    };
    let _ = tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).try_init();
}

/// One object a line: `ts`, `lvl`, `logger`, `service`, `msg`, the fields of the event, `exc` (what
/// was behind a failure), and the `request_id` of the request or run that it belongs to.
struct JsonLines;

/// Fields as JSON.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().to_owned(), value.to_string().into());
    }
}

/// Names that a line has anyway.
const RESERVED: [&str; 5] = ["ts", "lvl", "logger", "service", "msg"];

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        let metadata = event.metadata();
        line.insert("ts".to_owned(), chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true).into());
        line.insert("lvl".to_owned(), metadata.level().as_str().to_lowercase().into());
        line.insert("logger".to_owned(), metadata.target().into());
        line.insert("service".to_owned(), "agnes".into());
        line.insert("msg".to_owned(), fields.0.shift_remove("message").unwrap_or_else(|| metadata.name().into()));
        // From the outermost on: what is nearer to the event wins.
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(Fields(of_span)) = span.extensions().get::<Fields>() {
                line.extend(
                    of_span.iter().filter(|(name, _)| !name.starts_with("otel.")).map(|(n, v)| (n.clone(), v.clone())),
                );
            }
        }
        for (name, value) in fields.0 {
            let mut name = if name == "cause" { "exc".to_owned() } else { name };
            if RESERVED.contains(&name.as_str()) {
                let _ = write!(name, "_");
            }
            line.insert(name, value);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // One write, so that lines of several threads do not mix.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}
