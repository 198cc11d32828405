//! Rows as an answer: which format, and bytes as they are made.

use agnes_core::policy::RowScope;
use agnes_core::query::{EncodedRows, RowFormat};
use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER, VARY};
use axum::http::{HeaderMap, Response, StatusCode};
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use serde::Serialize;

use crate::meters::{Asking, Held};
use crate::problem::Problem;

/// An answer up to this long is whole before its head is sent, so that whatever fails has its
/// status.
const AT_ONCE: usize = 1 << 20;

/// A format for rows on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsFormat {
    Json,
    Csv,
    Ndjson,
    Arrow,
    Parquet,
}

const ALL: [RowsFormat; 5] =
    [RowsFormat::Json, RowsFormat::Csv, RowsFormat::Ndjson, RowsFormat::Arrow, RowsFormat::Parquet];

impl From<RowsFormat> for RowFormat {
    fn from(format: RowsFormat) -> Self {
        match format {
            RowsFormat::Json => Self::JsonTable,
            RowsFormat::Csv => Self::Csv,
            RowsFormat::Ndjson => Self::Ndjson,
            RowsFormat::Arrow => Self::Arrow,
            RowsFormat::Parquet => Self::Parquet,
        }
    }
}

impl RowsFormat {
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format that `Accept` likes best; of several the one it names first. JSON for whoever
    /// takes anything, and for whoever says nothing.
    ///
    /// # Errors
    /// 406.
    pub(crate) fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        let text: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let text = text.join(",");
        if text.trim().is_empty() {
            return Ok(Self::Json);
        }
        let mut best: Option<(f32, usize, Self)> = None;
        for format in ALL {
            let Some((quality, place)) = liked(&text, format.media_type()) else { continue };
            if best.is_none_or(|(q, p, _)| quality > q || (quality == q && place < p)) {
                best = Some((quality, place, format));
            }
        }
        best.map(|(_, _, format)| format).ok_or_else(|| {
            Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "none of the formats in `Accept` is known here")
                .hint(format!("ask for one of {}", ALL.map(Self::media_type).join(", ")))
        })
    }
}

/// How much `accept` likes a media type, and the place of the entry that says so: the most
/// specific one counts (RFC 9110, 12.5.1). Nothing where it is not wanted.
fn liked(accept: &str, media_type: &str) -> Option<(f32, usize)> {
    let group = media_type.split('/').next().unwrap_or_default();
    let mut found: Option<(u8, f32, usize)> = None;
    for (place, entry) in accept.split(',').enumerate() {
        let mut pieces = entry.split(';').map(str::trim);
        let range = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match range.as_str() {
            range if range == media_type => 2,
            "application/ndjson" if media_type == "application/x-ndjson" => 2,
            range if range.strip_suffix("/*") == Some(group) => 1,
            "*/*" => 0,
            _ => continue,
        };
        let quality = pieces
            .filter_map(|piece| piece.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, value)| value.trim().parse::<f32>().unwrap_or(0.0));
        if found.is_none_or(|(best, _, _)| specific > best) {
            found = Some((specific, quality, place));
        }
    }
    found.filter(|(_, quality, _)| *quality > 0.0).map(|(_, quality, place)| (quality, place))
}

/// What is known after the last row, as header fields.
fn end(rows: &EncodedRows) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(TRUNCATED, HeaderValue::from_static(if rows.truncated() { "true" } else { "false" }));
    let scope: &[RowScope] = rows.row_scope();
    if !scope.is_empty() {
        add(&mut fields, ROW_SCOPE, scope);
    }
    if let Some(receipt) = rows.receipt() {
        add(&mut fields, RECEIPT, receipt);
    }
    fields
}

const TRUNCATED: HeaderName = HeaderName::from_static("x-agnes-truncated");
const ROW_SCOPE: HeaderName = HeaderName::from_static("x-agnes-row-scope");
const RECEIPT: HeaderName = HeaderName::from_static("x-agnes-receipt");

/// Adds a value as JSON of ASCII alone.
fn add<T: Serialize + ?Sized>(fields: &mut HeaderMap, name: HeaderName, value: &T) {
    let Ok(text) = serde_json::to_string(value) else { return };
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        if (' '..='~').contains(&c) {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii += &format!("\\u{unit:04x}");
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&ascii) {
        fields.insert(name, value);
    }
}

/// The answer with these rows, counted until the last. The query ends when the client goes away.
///
/// # Errors
/// What fails before the first [`AT_ONCE`] bytes are there; afterwards the connection breaks.
pub(crate) async fn answer(
    mut rows: EncodedRows,
    format: RowsFormat,
    asking: Asking,
) -> Result<Response<Body>, Problem> {
    let mut head = Vec::new();
    while head.len() < AT_ONCE && !rows.is_done() {
        match rows.next().await {
            Some(piece) if head.is_empty() => head = piece?,
            Some(piece) => head.extend(piece?),
            None => break,
        }
    }
    let running = asking.answered();
    let mut response = if rows.is_done() {
        let mut response = Response::new(Body::from(head));
        // JSON says so in its body.
        if format != RowsFormat::Json {
            response.headers_mut().extend(end(&rows));
        }
        response
    } else {
        let mut response = Response::new(Body::new(StreamBody::new(stream(head, rows, running))));
        if format != RowsFormat::Json {
            let names = HeaderValue::from_static("x-agnes-truncated, x-agnes-row-scope, x-agnes-receipt");
            response.headers_mut().insert(TRAILER, names);
        }
        response
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// What comes next of an answer.
enum Next {
    Bytes(Vec<u8>, EncodedRows),
    More(EncodedRows),
    Over,
}

fn stream(
    head: Vec<u8>,
    rows: EncodedRows,
    running: Held,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, agnes_core::Error>> + Send {
    let frames = stream::unfold(Next::Bytes(head, rows), |next| async {
        match next {
            Next::Bytes(bytes, rows) => Some((Ok(Frame::data(bytes.into())), Next::More(rows))),
            Next::More(mut rows) => match rows.next().await {
                Some(Ok(bytes)) => Some((Ok(Frame::data(bytes.into())), Next::More(rows))),
                Some(Err(error)) => {
                    tracing::warn!(code = error.code(), "an answer broke off: {error}");
                    Some((Err(error), Next::Over))
                }
                None => Some((Ok(Frame::trailers(end(&rows))), Next::Over)),
            },
            Next::Over => None,
        }
    });
    frames.inspect(move |_| _ = &running)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn accepted(text: &str) -> Option<RowsFormat> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        RowsFormat::accepted(&headers).ok()
    }

    #[test]
    fn formats_are_negotiated() {
        assert_eq!(RowsFormat::accepted(&HeaderMap::new()).unwrap(), RowsFormat::Json);
        for (accept, expected) in [
            ("*/*", Some(RowsFormat::Json)),
            ("", Some(RowsFormat::Json)),
            ("application/*", Some(RowsFormat::Json)),
            ("text/*", Some(RowsFormat::Csv)),
            ("text/csv, */*;q=0.1", Some(RowsFormat::Csv)),
            ("text/csv;q=0.5, application/json;q=0.4", Some(RowsFormat::Csv)),
            ("application/vnd.apache.arrow.stream, application/json", Some(RowsFormat::Arrow)),
            ("application/json, application/vnd.apache.arrow.stream", Some(RowsFormat::Json)),
            ("APPLICATION/NDJSON", Some(RowsFormat::Ndjson)),
            ("application/json;q=0, */*", Some(RowsFormat::Csv)),
            ("application/vnd.apache.parquet;q=1.0", Some(RowsFormat::Parquet)),
            ("text/html", None),
            ("application/json;q=0", None),
            ("text/csv;q=x", None),
        ] {
            assert_eq!(accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn fields_are_ascii() {
        let mut fields = HeaderMap::new();
        add(&mut fields, ROW_SCOPE, "é\n\u{7f}😀\"");
        let text = fields[&ROW_SCOPE].to_str().unwrap();
        assert_eq!(serde_json::from_str::<String>(text).unwrap(), "é\n\u{7f}😀\"");
    }
}
