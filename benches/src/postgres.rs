//! A table of a PostgreSQL server becomes a published generation, against one `COPY` of the
//! same table by raw DuckDB. Needs the server's programs and DuckDB's extension, see
//! `make components`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agnes_core::Engine;
use agnes_core::config::Config;

use crate::data::{first_sync, raw};
use crate::measure::{median, ratio, time};
use crate::{Outcome, Scale};

/// A server of its own that trusts everybody here, stopped when dropped.
struct Server {
    child: Child,
    port: u16,
    bin: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server does not run as root.
fn command(program: &Path, root: bool) -> Command {
    let mut command = Command::new(if root { Path::new("setpriv") } else { program });
    if root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Server {
    fn start(bin: PathBuf) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let root = Command::new("chown").arg("postgres").arg(folder.path()).status().is_ok_and(|s| s.success());
        let data = folder.path().join("data");
        let mut made = command(&bin.join("initdb"), root);
        made.args(["-U", "agnes", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"]).arg(&data);
        if !made.status()?.success() {
            return Err("initdb failed".into());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = command(&bin.join("postgres"), root);
        server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-F", "-k", "", "-p", &port.to_string()]);
        let server = Self { child: server.spawn()?, port, bin, _folder: folder };
        for _ in 0..200 {
            if server.sql("SELECT 1").is_ok() {
                return Ok(server);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err("PostgreSQL did not start".into())
    }

    fn sql(&self, sql: &str) -> Result<(), Box<dyn std::error::Error>> {
        let mut psql = command(&self.bin.join("psql"), false);
        psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "agnes", "-d", "postgres"]);
        let status = psql.args(["-p", &self.port.to_string(), "-c", sql]).status()?;
        if status.success() { Ok(()) } else { Err(format!("psql refused: {sql}").into()) }
    }
}

pub(crate) async fn run(scale: Scale) -> Outcome {
    let folder = std::env::var_os("AGNES_TEST_EXTENSIONS").map(PathBuf::from).unwrap_or_default();
    let extension = folder.join("postgres_scanner.duckdb_extension");
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bin = versions.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").is_file());
    let Some(bin) = bin.filter(|_| extension.is_file()) else {
        eprintln!("SKIPPED: PostgreSQL or DuckDB's extension for it is missing; `make components` gets them");
        return Ok(Vec::new());
    };
    let server = Server::start(bin)?;
    server.sql(&format!(
        "CREATE TABLE t AS SELECT i AS id, (i % 100000) / 100.0::numeric(12,2) AS amount, date '2024-01-01' + (i % 365)::int AS day, \
         timestamp '2024-01-01' + i * interval '1 second' AS at, 'customer ' || i % 5000 AS customer, md5(i::text) AS note, \
         i % 3 = 0 AS paid, i / 7.0::float8 AS ratio FROM generate_series(1::bigint, {}) i; ANALYZE t",
        scale.rows
    ))?;
    let place = tempfile::tempdir()?;
    let (mut ours, mut theirs, mut alike) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..scale.runs.min(3) {
        let root = place.path().join(format!("agnes{run}"));
        let mut config = Config::default();
        config.attach.database_hosts = vec![format!("127.0.0.1:{}", server.port)];
        config.attach.extension_folder = Some(folder.clone());
        let engine = Engine::builder(&root).config(config).connectors(agnes_connectors::builtin()).open().await?;
        let config =
            serde_json::json!({"host": "127.0.0.1", "port": server.port, "database": "postgres", "user": "agnes"});
        let (began, ended) = first_sync(engine, &root, "postgres", config, scale.rows).await?;
        ours.push(ended - began);

        let target = place.path().join("raw.parquet");
        let conn = raw()?;
        conn.execute_batch(&format!(
            "LOAD '{}'; ATTACH 'host=127.0.0.1 port={} dbname=postgres user=agnes' AS pg (TYPE postgres, READ_ONLY)",
            extension.display(),
            server.port
        ))?;
        let copy = format!("COPY (FROM pg.t) TO '{}' (FORMAT parquet, COMPRESSION zstd)", target.display());
        theirs.push(time(|| conn.execute_batch(&copy))?);
        // The engine's defaults are slower than what Agnes asks of it.
        let copy = copy.replace("zstd", "zstd, COMPRESSION_LEVEL 1, PARQUET_VERSION V2");
        alike.push(time(|| conn.execute_batch(&copy))?);
    }
    let ours = median(ours);
    Ok(vec![
        ratio("PostgreSQL to published generation", ours, median(theirs), "1.1 x", 1.1),
        ratio("the same, against a file of the same settings", ours, median(alike), "(reported)", f64::INFINITY),
    ])
}
