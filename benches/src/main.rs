//! Agnes measured against raw DuckDB doing the same work in the same run.
//!
//! `agnes-bench [NAME..]` runs the named benchmarks, or all, and prints a Markdown table:
//! ratios and differences of medians, A and B in turn, so that they hold on a noisy
//! machine. `--quick` takes a tenth of the rows, to see that everything runs.

mod bigquery;
mod cell;
mod data;
mod ingest;
mod jira;
#[path = "../../agnes-connectors/tests/jira/fake.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod jira_site;
mod keboola;
mod manifest;
mod measure;
mod postgres;
mod profile;
mod python;
mod query;
mod rebuild;
#[cfg(target_os = "linux")]
mod server;
mod stream;

use std::process::ExitCode;

use measure::Row;

/// What every benchmark returns.
type Outcome = Result<Vec<Row>, Box<dyn std::error::Error>>;

/// How much data to use.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Rows of the large table.
    rows: u64,
    /// Counted runs of each side.
    runs: usize,
}

/// Fails where a target was missed.
fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    agnes_core::cell::serve_if_asked();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == stream::CHILD) {
        stream::child(&args[1..]).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let quick = args.iter().any(|arg| arg == "--quick");
    args.retain(|arg| arg != "--quick");
    let scale = if quick { Scale { rows: 500_000, runs: 3 } } else { Scale { rows: 5_000_000, runs: 5 } };
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);

    println!("| benchmark | Agnes | raw DuckDB | result | at most | |");
    println!("|---|---|---|---|---|---|");
    let mut missed = 0;
    let mut show = |rows: Vec<Row>| {
        for row in rows {
            missed += usize::from(!row.met);
            println!("{row}");
        }
    };
    if wanted("ingest") {
        show(ingest::run(scale).await?);
    }
    if wanted("postgres") {
        show(postgres::run(scale).await?);
    }
    if wanted("keboola") {
        show(keboola::run(scale).await?);
    }
    if wanted("bigquery") {
        show(bigquery::run(scale).await?);
    }
    if wanted("jira") {
        show(jira::run(scale).await?);
    }
    if wanted("rebuild") {
        show(rebuild::run(scale).await?);
    }
    if wanted("query") {
        show(query::run(scale).await?);
    }
    if wanted("stream") {
        show(stream::run(scale).await?);
    }
    if wanted("python") {
        show(python::run(scale).await?);
    }
    if cfg!(target_os = "linux") && wanted("cell") {
        show(cell::run(scale).await?);
    }
    #[cfg(target_os = "linux")]
    if wanted("server") {
        show(server::run(scale).await?);
    }
    #[cfg(target_os = "linux")]
    if wanted("laptop") {
        show(server::laptop::run(scale).await?);
    }
    if wanted("profile") {
        show(profile::run(scale).await?);
    }
    if wanted("manifest") {
        show(manifest::run(scale).await?);
    }
    eprintln!("{missed} targets missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
