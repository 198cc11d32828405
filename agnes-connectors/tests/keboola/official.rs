//! The vendor's official Python client on our fake, and its requests beside ours; a real
//! S3 server behind the slices.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agnes_core::testing::Request;
use serde_json::{Value, json};

use crate::fake::{S3_KEY, S3_SECRET, Store, TOKEN};
use crate::support::Site;

/// Where the Python with the official client is; `None` when it is not there, which is told loudly.
fn tools() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let given = std::env::var_os("AGNES_TEST_TOOLS").map(PathBuf::from);
    let bin = given.unwrap_or_else(|| root.join(".duckdb/tools")).join("sources/bin");
    if bin.join("nanio").is_file() {
        return Some(bin);
    }
    let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    assert!(
        !required("CI", "true") && !required("AGNES_REQUIRE_COMPONENTS", "1"),
        "scripts/fetch-source-tools.sh was not run"
    );
    eprintln!("SKIPPED: the official Keboola client is missing; scripts/fetch-source-tools.sh gets it");
    None
}

/// A real S3 server over a folder.
struct S3 {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl S3 {
    fn start(bin: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("exports")).unwrap();
        let port = agnes_core::testing::free_port();
        let child = Command::new(bin.join("nanio"))
            .args([
                "serve",
                "--host",
                "127.0.0.1",
                "--region",
                "eu-central-1",
                "--port",
                &port.to_string(),
                "--data-dir",
            ])
            .arg(folder.path())
            .env("NANIO_ACCESS_KEY", S3_KEY)
            .env("NANIO_SECRET_KEY", S3_SECRET)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the S3 server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, url: format!("http://127.0.0.1:{port}"), folder }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Bed {
    bin: PathBuf,
    s3: S3,
    site: Site,
    id: String,
}

fn bed() -> Option<Bed> {
    let bin = tools()?;
    let s3 = S3::start(&bin);
    let mut site = Site::new();
    site.settings["endpoints"] = json!({"s3": s3.url});
    let id = site.fake.table("orders", &["id:INTEGER", "name"], &[]);
    for n in 0..50 {
        site.fake.upsert(&id, n, &[&[&n.to_string(), &format!("row \"{n}\", and so on")]]);
    }
    {
        let mut state = site.fake.state();
        (state.store, state.slices, state.polls) = (Store::S3(s3.folder.path().to_owned()), 12, 1);
        state.ended = true;
    }
    Some(Bed { bin, s3, site, id })
}

impl Bed {
    fn official(&self, since: &str, columns: &str) -> Value {
        // The official client puts slices into the folder that it runs in, under names that other runs use, too.
        let (folder, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut command = Command::new(self.bin.join("python"));
        command
            .current_dir(own.path())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keboola/official.py"))
            .args([self.site.fake.url.as_str(), TOKEN, self.id.as_str()])
            .arg(folder.path())
            .env("AWS_ENDPOINT_URL_S3", &self.s3.url)
            .env("STORAGE_EMULATOR_HOST", &self.site.fake.url)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("KBC_RUNID")
            .arg(since);
        if !columns.is_empty() {
            command.arg(columns);
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }
}

/// The requests that export a table, in their order, without those that ask for the same again.
fn exporting(requests: &[Request]) -> Vec<(String, String, String, String)> {
    let mut out = Vec::new();
    for request in requests {
        let target = request.target.replace("federationToken=true", "federationToken=1");
        let begins = ["/v2/storage/tables/", "/v2/storage/jobs/", "/v2/storage/files/"];
        if !begins.iter().any(|begin| target.starts_with(begin)) {
            continue;
        }
        // Numbers of jobs and files count on.
        let target = if target.starts_with("/v2/storage/tables/") {
            target
        } else {
            let parts = target.split('?').map(|part| part.trim_end_matches(|c: char| c.is_ascii_digit()));
            parts.collect::<Vec<_>>().join("?")
        };
        let body = String::from_utf8(request.body.clone()).unwrap();
        let kind = request.header("Content-Type").unwrap_or_default().to_owned();
        let token = request.header("X-StorageApi-Token").unwrap_or_default().to_owned();
        let line = (format!("{} {target}", request.method), body, kind, token);
        if !out.contains(&line) {
            out.push(line);
        }
    }
    out
}

#[tokio::test]
async fn the_official_client_works_on_our_fake_and_asks_what_we_ask() {
    let Some(bed) = bed() else { return };
    for (since, columns) in [("", ""), ("25", ""), ("", "name,id")] {
        bed.site.fake.forget_requests();
        let told = bed.official(since, columns);
        assert_eq!(told["project"], 4711);
        assert_eq!(told["buckets"], json!(["in.c-shop"]));
        assert_eq!(told["tables"], json!(["in.c-shop.orders"]));
        let csv = told["csv"].as_str().unwrap();
        let header = if columns.is_empty() { "\"id\",\"name\"" } else { "\"name\",\"id\"" };
        assert_eq!(csv.lines().next(), Some(header));
        let theirs = exporting(&bed.site.fake.state().requests);

        bed.site.fake.forget_requests();
        let mut request = bed.site.request(&bed.id);
        if !columns.is_empty() {
            let columns: Vec<&str> = columns.split(',').collect();
            request.table.options = Some(json!({ "columns": columns }));
        }
        if !since.is_empty() {
            request.table.query_mode = agnes_core::registry::QueryMode::Materialized;
            request.table.source_query = Some(json!({"changed_since": since, "file_type": "csv"}).to_string());
        }
        bed.site.run(&mut request).await.unwrap();
        let ours = exporting(&bed.site.fake.state().requests);
        assert_eq!(ours, theirs, "requests of an export since `{since}` of `{columns}`");
        // And both read the same rows.
        let rows = bed.site.ask("SELECT count(*), sum(id), min(name) FROM {t}");
        let expected = if since.is_empty() { "50|1225" } else { "25|925" };
        assert!(rows[0].starts_with(expected), "{rows:?}");
        assert_eq!(csv.lines().count(), if since.is_empty() { 51 } else { 26 });
    }
}

#[tokio::test]
async fn slices_are_read_from_a_real_s3_server_by_our_signature() {
    let Some(bed) = bed() else { return };
    bed.site.run(&mut bed.site.request(&bed.id)).await.unwrap();
    assert_eq!(bed.site.ask("SELECT count(*), sum(id) FROM {t}"), ["50|1225"]);
    // A signature by another key is refused there, and so is the table.
    let wrong = bed.s3.folder.path().join("exports");
    assert!(std::fs::read_dir(wrong).unwrap().count() >= 1);
    bed.site.fake.state().wrong_s3_secret = true;
    let error = bed.site.run(&mut bed.site.request(&bed.id)).await.unwrap_err();
    assert_eq!(error.code(), "keboola_slice_unavailable");
    assert!(error.to_string().contains("the store answered 403"), "{error}");
}

/// A real server of Azure's storage, stopped when dropped.
struct Blobs {
    child: Child,
    store: Store,
    _folder: tempfile::TempDir,
}

const ACCOUNT: &str = "agnesaccount";
const ACCOUNT_KEY: &str = "aHVudGVyMi1vZi10aGUtc3RvcmFnZS1vZi1henVyZQ==";
/// Makes the container, and what opens it for an hour.
const OPEN: &str = "import sys, datetime as d; from azure.storage.blob import *; \
    BlobServiceClient(sys.argv[1], credential={'account_name': sys.argv[2], 'account_key': sys.argv[3]}).create_container('box'); \
    print(generate_container_sas(sys.argv[2], 'box', account_key=sys.argv[3], permission='rwcl', \
    expiry=d.datetime.now(d.timezone.utc) + d.timedelta(hours=1)), end='')";

impl Blobs {
    fn start(bin: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = agnes_core::testing::free_port();
        let program = bin.join("../../node_modules/.bin/azurite-blob");
        let child = Command::new(program)
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{ACCOUNT_KEY}"))
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--silent", "--disableTelemetry"])
            .args(["--skipApiVersionCheck", "--location"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "Azure's server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let url = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        let made = Command::new(bin.join("python")).args(["-c", OPEN, &url, ACCOUNT, ACCOUNT_KEY]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let sas = String::from_utf8(made.stdout).unwrap();
        Self { child, store: Store::Blobs { port, account: ACCOUNT, sas }, _folder: folder }
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn both_clients_read_the_same_from_azure_and_google() {
    let Some(mut bed) = bed() else { return };
    let blobs = Blobs::start(&bed.bin);
    let Store::Blobs { port, account, sas } = blobs.store.clone() else { unreachable!() };
    bed.site.settings["endpoints"] = json!({"gcs": bed.site.fake.url, "azure": format!("http://127.0.0.1:{port}")});
    for store in [Store::Google, blobs.store.clone()] {
        bed.site.fake.state().store = store.clone();
        let told = bed.official("", "");
        let theirs: Vec<&str> = told["csv"].as_str().unwrap().lines().skip(1).collect();
        assert_eq!(theirs.len(), 50, "{store:?}");
        bed.site.run(&mut bed.site.request(&bed.id)).await.unwrap();
        let ours =
            bed.site.ask("SELECT '\"' || id || '\",\"' || replace(name, '\"', '\"\"') || '\"' FROM {t} ORDER BY id");
        let mut theirs: Vec<String> = theirs.into_iter().map(str::to_owned).collect();
        theirs.sort_by_key(|line| line.split('"').nth(1).and_then(|id| id.parse::<u64>().ok()));
        assert_eq!(ours, theirs, "{store:?}");
    }
    // What does not open it is refused there, and told without it.
    let sas = sas.replace("sig=", "sig=x");
    bed.site.fake.state().store = Store::Signed;
    bed.site.fake.fault(
        "GET /v2/storage/files/",
        200,
        &[],
        &json!({"id": 2, "name": "x.csv", "isSliced": true,
        "url": format!("http://127.0.0.1:{port}/{account}/box/exp-2/manifest?{sas}")})
        .to_string(),
        u32::MAX,
    );
    let error = bed.site.run(&mut bed.site.request(&bed.id)).await.unwrap_err();
    assert_eq!(error.code(), "keboola_file_invalid", "{error}");
    assert!(error.to_string().contains("403") && !error.to_string().contains("sig="), "{error}");
}
