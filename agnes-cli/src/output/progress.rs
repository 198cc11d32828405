//! Progress of a sync: bars with rates on a terminal, nothing when piped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agnes_core::connector::{Progress, ProgressEvent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Output;

/// How often bars are drawn anew.
const TICK: Duration = Duration::from_millis(120);

/// Bars on standard error; cleared when finished.
pub(crate) struct Bars {
    bars: Option<Arc<Inner>>,
}

struct Inner {
    multi: MultiProgress,
    stage: ProgressBar,
    tables: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    pub(crate) fn new(out: Output) -> Self {
        if !out.bars() {
            return Self { bars: None };
        }
        let multi = MultiProgress::new();
        let stage = multi.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed:.dim}")));
        stage.set_message("starting");
        stage.enable_steady_tick(TICK);
        Self { bars: Some(Arc::new(Inner { multi, stage, tables: Mutex::default() })) }
    }

    /// Where events go.
    pub(crate) fn progress(&self) -> Progress {
        match self.bars.clone() {
            Some(inner) => Progress::to(move |event| inner.show(event)),
            None => Progress::default(),
        }
    }

    /// Takes the bars away.
    pub(crate) fn finish(self) {
        if let Some(inner) = &self.bars {
            for bar in inner.tables.lock().unwrap_or_else(PoisonError::into_inner).values() {
                bar.finish_and_clear();
            }
            inner.stage.finish_and_clear();
            let _ = inner.multi.clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(inner) = &self.bars {
            let _ = inner.multi.clear();
        }
    }
}

impl Inner {
    fn show(&self, event: ProgressEvent) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProgressEvent::Stage { name } => self.stage.set_message(name),
            ProgressEvent::TableStarted { source, table, total_bytes } => {
                let bar = tables.entry(format!("{source}.{table}")).or_insert_with(|| {
                    let bar = self.multi.insert_before(&self.stage, ProgressBar::new_spinner());
                    bar.set_style(style("  {msg:24!} {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec:>11}"));
                    bar.set_message(table);
                    bar.enable_steady_tick(TICK);
                    bar
                });
                if let Some(total) = total_bytes {
                    bar.set_length(total);
                    bar.set_style(style(
                        "  {msg:24!} {bar:24.cyan/dim} {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec:>11} {eta:>4}",
                    ));
                }
            }
            ProgressEvent::TableProgress { source, table, bytes } => {
                if let Some(bar) = tables.get(&format!("{source}.{table}")) {
                    bar.set_position(bytes);
                }
            }
            ProgressEvent::TableFinished { source, table, status, .. } => {
                if let Some(bar) = tables.remove(&format!("{source}.{table}")) {
                    bar.finish_and_clear();
                }
                self.stage.set_message(format!("{table}: {status}"));
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [
            "{spinner} {msg} {elapsed:.dim}",
            "  {msg:24!} {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec:>11}",
            "  {msg:24!} {bar:24.cyan/dim} {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec:>11} {eta:>4}",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
