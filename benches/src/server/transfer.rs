//! Many rows, and whole files.

use std::time::Duration;

use serde_json::json;

use super::load::{Asked, Client};
use super::process::{Nginx, Server};
use super::{Fallible, World, row};
use crate::measure::{Row, median, show};
use crate::{Outcome, Scale};

/// Rows as JSON and as Arrow, of one client.
pub(super) async fn rows_of_queries(world: &World, server: &Server, scale: Scale) -> Outcome {
    let json = json!({"sql": "SELECT * FROM shop_t0", "limit": 100_000});
    let json = Asked::post("/api/query", world.tokens.first().map(String::as_str), &json);
    let mut arrow = world.query(0, "SELECT * FROM shop_t0");
    arrow.accept = Some("application/vnd.apache.arrow.stream");
    let all = scale.rows / 5;
    Ok(vec![
        speed("100,000 rows x 11 as JSON", server, &json, all.min(100_000), scale, "1 M rows/s or more", 1e6).await?,
        speed("1 M rows x 11 as Arrow", server, &arrow, all, scale, "4 M rows/s or more", 4e6).await?,
    ])
}

async fn speed(
    name: &'static str,
    server: &Server,
    asked: &Asked,
    rows: u64,
    scale: Scale,
    limit: &'static str,
    least: f64,
) -> Fallible<Row> {
    let mut client = Client::connect(server.address).await?;
    let (mut times, mut bytes) = (Vec::new(), 0);
    for run in 0..scale.runs * 2 + 2 {
        let reply = client.expect(asked, 200).await?;
        bytes = reply.bytes;
        if run >= 2 {
            times.push(reply.took);
        }
    }
    let time = median(times);
    let rate = rows as f64 / time.as_secs_f64().max(1e-9);
    let told = format!("{} MB", bytes / 1_000_000);
    Ok(row(name, show(time), told, format!("{:.2} M rows/s", rate / 1e6), limit, rate >= least))
}

/// A large file from Agnes and from nginx, in turn.
pub(super) async fn downloads(scale: Scale) -> Outcome {
    let world = World::new(15, scale.rows * 2).await?;
    let files = tempfile::tempdir()?;
    std::fs::copy(world.folder.path().join("extracts/shop/data/shop_t0.parquet"), files.path().join("file"))?;
    let server = world.serve().await?;
    let Some(nginx) = Nginx::start(files.path())? else {
        eprintln!("nginx is not installed: no downloads are compared; `apt-get install nginx-light` gets it");
        return Ok(Vec::new());
    };
    let ours = Asked::get("/api/data/shop_t0/download", &world.tokens[0]);
    let plain = Asked { path: "/file".to_owned(), ..Asked::default() };
    let mut clients = [
        (Client::connect(server.address).await?, &ours, Vec::new()),
        (Client::connect(nginx.copying).await?, &plain, Vec::new()),
        (Client::connect(nginx.sending).await?, &plain, Vec::new()),
    ];
    let mut bytes = 0;
    for run in 0..scale.runs * 4 + 2 {
        for (client, asked, times) in &mut clients {
            let reply = client.expect(asked, 200).await?;
            bytes = reply.bytes;
            if run >= 2 {
                times.push(reply.took);
            }
        }
    }
    let [ours, copying, sending] = clients.map(|(_, _, times)| median(times));
    let rate = |time: Duration| format!("{:.2} GB/s", bytes as f64 / 1e9 / time.as_secs_f64().max(1e-9));
    let share = |theirs: Duration| theirs.as_secs_f64() / ours.as_secs_f64().max(1e-9);
    let of = |theirs: Duration| format!("{:.0} %", share(theirs) * 100.0);
    Ok(vec![
        row(
            "download against nginx, `sendfile off`",
            rate(ours),
            rate(copying),
            of(copying),
            "80 % or more",
            share(copying) >= 0.8,
        ),
        row("download against nginx, `sendfile on`", rate(ours), rate(sending), of(sending), "(reported)", true),
    ])
}
