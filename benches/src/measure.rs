//! Medians, ratios, and a row of the report.

use std::fmt;
use std::time::{Duration, Instant};

/// The median of some durations.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// How long `work` takes.
pub(crate) fn time<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

/// One line of the report.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) agnes: String,
    pub(crate) raw: String,
    pub(crate) result: String,
    pub(crate) limit: &'static str,
    pub(crate) met: bool,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, agnes, raw, result, limit, met } = self;
        write!(f, "| {name} | {agnes} | {raw} | {result} | {limit} | {} |", if *met { "met" } else { "**missed**" })
    }
}

/// A row that compares two medians as a ratio.
pub(crate) fn ratio(name: &'static str, agnes: Duration, raw: Duration, limit: &'static str, most: f64) -> Row {
    let ratio = agnes.as_secs_f64() / raw.as_secs_f64().max(1e-9);
    Row { name, agnes: show(agnes), raw: show(raw), result: format!("{ratio:.2} x"), limit, met: ratio <= most }
}

/// A row that holds one median against a fixed time.
pub(crate) fn absolute(name: &'static str, agnes: Duration, limit: &'static str, most: Duration) -> Row {
    Row { name, agnes: show(agnes), raw: "-".to_owned(), result: show(agnes), limit, met: agnes <= most }
}

/// A duration for people.
pub(crate) fn show(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms >= 1000.0 {
        format!("{:.2} s", ms / 1e3)
    } else if ms >= 10.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.2} ms")
    }
}
