//! Files in object storage: S3, Google Cloud Storage, Azure Blob Storage, or behind an HTTPS
//! address. Listed with size and ETag; only what changed is downloaded, as the very object that
//! was listed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agnes_core::connector::SourceContext;
use agnes_core::error::{Error, Result};
use agnes_core::ident::{EnvName, printable};
use agnes_core::orchestrator::{AttachError, FileSignature};
use agnes_core::secret::Secret;
use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::FilesError;
use super::listing::{FileEntry, Listing, glob, is_glob, is_hidden};
use crate::calls::until_cancelled;

const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence of a server, and longest time of all attempts at one request.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRIES: usize = 5;

/// Which storage a `path` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Gcs,
    Azure,
    Http,
}

/// How storage is spoken to: the setting `storage`. Credentials are names of variables; without
/// them requests are not signed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Storage {
    /// Address of a server other than the cloud's own; its host has to be on the operator's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_env: Option<String>,
    /// S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key_env: Option<String>,
    /// S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token_env: Option<String>,
    /// Google: a service account's key as JSON, or the path of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_env: Option<String>,
    /// Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_key_env: Option<String>,
    /// HTTPS: a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_env: Option<String>,
}

/// Where the objects of a source are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    kind: Kind,
    /// Bucket or container; scheme and host of an address.
    bucket: String,
    /// An object, what all wanted ones begin with, or a glob.
    key: String,
    pub(crate) storage: Storage,
}

impl Place {
    /// The place that `path` names; none for one on this machine.
    pub(crate) fn parse(path: &str, storage: Storage) -> Result<Option<Self>, FilesError> {
        let Some((scheme, rest)) = path.split_once("://") else { return Ok(None) };
        let kind = match scheme {
            "s3" => Kind::S3,
            "gs" => Kind::Gcs,
            "az" => Kind::Azure,
            "https" | "http" => Kind::Http,
            _ => return Err(FilesError::invalid("path", "use `s3://`, `gs://`, `az://`, `https://` or a local path")),
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let bad = |c: char| c.is_whitespace() || c.is_control() || "@?#\\".contains(c);
        if bucket.is_empty() || bucket.contains(bad) || key.contains(['?', '#', '\\']) {
            return Err(FilesError::invalid("path", "give a bucket or host and a path, without user, query or `#`"));
        }
        if kind == Kind::Http && (key.is_empty() || key.ends_with('/') || is_glob(key)) {
            return Err(FilesError::invalid("path", "an address names one file: it cannot be listed"));
        }
        if kind == Kind::Azure && storage.account.is_none() {
            return Err(FilesError::invalid("storage.account", "it is needed"));
        }
        // Both become part of a host.
        let plain = |text: &Option<String>, also: &[u8], most: usize| {
            let fits = |text: &String| {
                (1..=most).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || also.contains(&b))
            };
            text.as_ref().is_none_or(fits)
        };
        if !plain(&storage.region, b"-", 32) {
            return Err(FilesError::invalid("storage.region", "use the name of a region such as `eu-central-1`"));
        }
        if !plain(&storage.account, b"", 24) {
            return Err(FilesError::invalid("storage.account", "use the name of a storage account"));
        }
        let bucket = if kind == Kind::Http { format!("{scheme}://{bucket}") } else { bucket.to_owned() };
        let place = Self { kind, bucket, key: key.trim_end_matches('/').to_owned(), storage };
        for (key, name) in place.variables() {
            if EnvName::parse(name).is_err() || name.starts_with("AGNES_") {
                return Err(FilesError::invalid(format!("storage.{key}"), "it is not the name of a variable"));
            }
        }
        if place.address().is_some_and(|address| authority(&address).is_none()) {
            return Err(FilesError::invalid("storage.endpoint", "use `https://HOST` or `https://HOST:PORT`"));
        }
        Ok(Some(place))
    }

    fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("access_key_env", &self.storage.access_key_env),
            ("secret_key_env", &self.storage.secret_key_env),
            ("session_token_env", &self.storage.session_token_env),
            ("service_account_env", &self.storage.service_account_env),
            ("account_key_env", &self.storage.account_key_env),
            ("token_env", &self.storage.token_env),
        ];
        all.into_iter().filter_map(|(key, name)| Some((key, name.as_deref()?)))
    }

    /// What of it the operator did not list, in words: its host, or a variable with a secret.
    pub(crate) fn unlisted(&self, source: &SourceContext) -> Option<String> {
        if let Err(error) = self.check_allowed(source) {
            return Some(error.to_string());
        }
        let listed = |name: &str| source.attach.token_envs.iter().any(|known| known == name);
        let name = self.variables().map(|(_, name)| name).find(|name| !listed(name))?;
        Some(AttachError::TokenEnvNotAllowed { name: name.to_owned() }.to_string())
    }

    /// The address that the operator has to allow: not that of a cloud.
    fn address(&self) -> Option<String> {
        match self.kind {
            Kind::Http => Some(self.bucket.clone()),
            _ => self.storage.endpoint.clone(),
        }
    }

    fn check_allowed(&self, source: &SourceContext) -> Result<(), AttachError> {
        let Some(address) = self.address() else { return Ok(()) };
        let host = authority(&address).unwrap_or_default();
        // Without encryption only what is listed with its port: the operator meant it.
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let named = |listed: &String| {
            listed.eq_ignore_ascii_case(host) || (address.starts_with("https://") && listed.eq_ignore_ascii_case(name))
        };
        if source.attach.hosts.iter().any(named) {
            Ok(())
        } else {
            Err(AttachError::HostNotAllowed { host: printable(host, 120) })
        }
    }

    fn open(&self, source: &SourceContext) -> Result<Arc<dyn ObjectStore>> {
        self.check_allowed(source)?;
        let secret = |name: &Option<String>| -> Result<Option<Secret>, AttachError> {
            let Some(name) = name else { return Ok(None) };
            source.secrets.get(name).map(Some).ok_or_else(|| AttachError::TokenUnset { name: name.clone() })
        };
        let plain = self.address().is_some_and(|address| address.starts_with("http://"));
        let mut options = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            .with_read_timeout(PATIENCE)
            .with_timeout_disabled()
            .with_allow_http(plain);
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let own = &self.storage;
        let built: object_store::Result<Arc<dyn ObjectStore>> = match self.kind {
            Kind::S3 => {
                let mut builder = AmazonS3Builder::new()
                    .with_bucket_name(&self.bucket)
                    .with_region(own.region.as_deref().unwrap_or("us-east-1"))
                    .with_retry(retry)
                    .with_client_options(options);
                if let Some(endpoint) = &own.endpoint {
                    builder = builder.with_endpoint(endpoint).with_allow_http(plain);
                }
                builder = match (secret(&own.access_key_env)?, secret(&own.secret_key_env)?) {
                    (Some(id), Some(key)) => {
                        builder.with_access_key_id(id.expose()).with_secret_access_key(key.expose())
                    }
                    // Never what a cloud's own metadata service would give this machine.
                    _ => builder.with_skip_signature(true),
                };
                if let Some(token) = secret(&own.session_token_env)? {
                    builder = builder.with_token(token.expose());
                }
                builder.build().map(|store| Arc::new(store) as _)
            }
            Kind::Gcs => {
                let mut builder = GoogleCloudStorageBuilder::new()
                    .with_bucket_name(&self.bucket)
                    .with_retry(retry)
                    .with_client_options(options);
                if let Some(endpoint) = &own.endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                builder = match secret(&own.service_account_env)? {
                    Some(key) if key.expose().trim_start().starts_with('{') => {
                        builder.with_service_account_key(key.expose())
                    }
                    Some(path) => builder.with_service_account_path(path.expose()),
                    None => builder.with_skip_signature(true),
                };
                builder.build().map(|store| Arc::new(store) as _)
            }
            Kind::Azure => {
                let mut builder = MicrosoftAzureBuilder::new()
                    .with_account(own.account.as_deref().unwrap_or_default())
                    .with_container_name(&self.bucket)
                    .with_retry(retry)
                    .with_client_options(options);
                if let Some(endpoint) = &own.endpoint {
                    builder = builder.with_endpoint(self.of_account(endpoint)).with_allow_http(plain);
                }
                builder = match secret(&own.account_key_env)? {
                    Some(key) => builder.with_access_key(key.expose()),
                    None => builder.with_skip_signature(true),
                };
                builder.build().map(|store| Arc::new(store) as _)
            }
            Kind::Http => {
                if let Some(token) = secret(&own.token_env)? {
                    let mut value = http::header::HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                        .map_err(|_| FilesError::invalid("storage.token_env", "its value cannot be in a header"))?;
                    value.set_sensitive(true);
                    let headers = [(http::header::AUTHORIZATION, value)].into_iter().collect();
                    options = options.with_default_headers(headers);
                }
                HttpBuilder::new()
                    .with_url(&self.bucket)
                    .with_retry(retry)
                    .with_client_options(options)
                    .build()
                    .map(|store| Arc::new(store) as _)
            }
        };
        Ok(built.map_err(|_| FilesError::invalid("storage", "it cannot be used as it is"))?)
    }

    /// Azure's address of the account: its name begins the host's, else the path.
    fn of_account(&self, endpoint: &str) -> String {
        let account = self.storage.account.as_deref().unwrap_or_default();
        let own = authority(endpoint).is_some_and(|host| host.split('.').next() == Some(account));
        if own { endpoint.to_owned() } else { format!("{}/{account}", endpoint.trim_end_matches('/')) }
    }

    /// Lists the objects. Blocks.
    pub(crate) fn list(&self, source: &SourceContext) -> Result<Listing> {
        let store = self.open(source)?;
        let bad = |reason: String| FilesError::invalid("path", reason);
        let (base, pattern) = match self.key.split('/').position(is_glob) {
            Some(at) => {
                let parts: Vec<_> = self.key.split('/').collect();
                (parts[..at].join("/"), Some(parts[at..].join("/")))
            }
            None => (self.key.clone(), None),
        };
        let matcher = pattern.as_deref().map(glob).transpose().map_err(bad)?;
        let base = Key::parse(&base).map_err(|_| bad("it is not the name of an object".to_owned()))?;
        std::fs::create_dir_all(&source.scratch).map_err(|e| Error::io("make the scratch folder", e))?;
        let folder = tempfile::Builder::new()
            .prefix("objects-")
            .tempdir_in(&source.scratch)
            .map_err(|e| Error::io("make a scratch folder", e))?;
        let downloads = Arc::new(Downloads { store: store.clone(), folder, source: source.clone() });
        let mut listing = Listing { files: BTreeMap::new(), single: false, notes: Vec::new() };
        wait(source, async {
            if pattern.is_none() && !base.as_ref().is_empty() {
                match store.head(&base).await {
                    Ok(meta) => {
                        let name = base.filename().unwrap_or_default().to_owned();
                        listing.files.insert(name.clone(), entry(name, &meta, &downloads));
                        listing.single = true;
                        return Ok(());
                    }
                    Err(object_store::Error::NotFound { .. }) if self.kind != Kind::Http => {}
                    Err(error) => return Err(failure(&error).into()),
                }
            }
            let mut found = store.list(Some(&base));
            while let Some(meta) = found.next().await {
                let meta = meta.map_err(|error| failure(&error))?;
                let Some(parts) = meta.location.prefix_match(&base) else { continue };
                let rel = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                let hidden = rel.split('/').any(is_hidden);
                if rel.is_empty() || hidden || matcher.as_ref().is_some_and(|matcher| !matcher.is_match(&rel)) {
                    continue;
                }
                listing.files.insert(rel.clone(), entry(rel, &meta, &downloads));
            }
            Ok::<_, Error>(())
        })?;
        Ok(listing)
    }
}

/// What downloads go through, and where to. The folder is deleted with the last entry.
#[derive(Debug)]
pub(crate) struct Downloads {
    store: Arc<dyn ObjectStore>,
    folder: tempfile::TempDir,
    source: SourceContext,
}

/// An object behind an entry of a listing.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    downloads: Arc<Downloads>,
    meta: ObjectMeta,
}

fn entry(rel: String, meta: &ObjectMeta, downloads: &Arc<Downloads>) -> FileEntry {
    // Some servers put quotes around it in one answer and not in another.
    let tag = meta.e_tag.as_deref().map(|tag| tag.trim_matches('"'));
    let digest = Sha256::digest(format!("{tag:?} {:?}", meta.version).as_bytes());
    let signature = FileSignature {
        size: meta.size,
        mtime_ns: i128::from(meta.last_modified.timestamp_micros()) * 1000,
        ctime_ns: 0,
        // Stands for the ETag.
        inode: digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)),
    };
    let object = Object { downloads: downloads.clone(), meta: meta.clone() };
    // The ending of the name decides how it is read.
    let name = Sha256::digest(rel.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    let ending = rel.rsplit('/').next().and_then(|name| name.split_once('.')).map_or("", |(_, ending)| ending);
    let ending: String = ending.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').take(24).collect();
    let path = downloads.folder.path().join(format!("{name}.{ending}"));
    FileEntry { rel, path, signature, object: Some(object) }
}

impl FileEntry {
    /// Has the file here, where it is an object: the one that was listed. Blocks.
    pub(crate) fn fetch(&self) -> Result<()> {
        let Some(object) = self.object.as_ref().filter(|_| !self.path.is_file()) else { return Ok(()) };
        let part = PathBuf::from(format!("{}.part", self.path.to_string_lossy()));
        let done = wait(&object.downloads.source, object.download(&part));
        let done = done.and_then(|()| std::fs::rename(&part, &self.path).map_err(|e| Error::io("name a download", e)));
        if done.is_err() {
            drop(std::fs::remove_file(&part));
        }
        match done {
            // It was replaced since it was listed.
            Err(error) if error.code() == "file_changed" => Err(FilesError::Changed { file: self.rel.clone() }.into()),
            done => done,
        }
    }
}

impl Object {
    async fn download(&self, path: &std::path::Path) -> Result<()> {
        // Some servers answer an ETag that says nothing.
        let tag = self.meta.e_tag.clone().filter(|tag| !tag.trim_matches('"').is_empty());
        let options = GetOptions { if_match: tag, ..GetOptions::default() };
        let got = self.downloads.store.get_opts(&self.meta.location, options).await.map_err(|e| failure(&e))?;
        let mut file = std::fs::File::create(path).map_err(|e| Error::io("make a file for a download", e))?;
        let (mut stream, mut length) = (got.into_stream(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| failure(&e))?;
            length += chunk.len() as u64;
            file.write_all(&chunk).map_err(|e| Error::io("write a download", e))?;
        }
        if length == self.meta.size { Ok(()) } else { Err(FilesError::StorageLost.into()) }
    }
}

/// What the storage said, without its address: only whose move it is.
fn failure(error: &object_store::Error) -> FilesError {
    use object_store::Error as E;
    let words = error.to_string();
    tracing::debug!("object storage: {words}");
    let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    match error {
        E::NotFound { .. } => FilesError::PathUnreadable { reason: "there is no such bucket or object" },
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => FilesError::StorageRefused,
        E::Precondition { .. } => FilesError::Changed { file: String::new() },
        E::InvalidPath { .. } => {
            let reason = "a key there has an empty part, as in `a//b`, or another that is no name: lead past it";
            FilesError::invalid("path", reason)
        }
        _ if says(&["incorrectly configured region", "AuthorizationHeaderMalformed"]) => {
            FilesError::invalid("storage.region", "the bucket is in another region")
        }
        // What a listing is answered has no kind of its own. S3 says 400 of what expired, and of `HEAD` nothing more.
        _ if says(&["400 Bad Request", "401 Unauthorized", "403 Forbidden"]) => FilesError::StorageRefused,
        _ if says(&["404 Not Found"]) => FilesError::PathUnreadable { reason: "there is no such bucket or object" },
        _ => FilesError::StorageLost,
    }
}

/// Waits on a thread that may block, until the run should end: a store may say nothing for long.
fn wait<T>(source: &SourceContext, work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|e| Error::internal("speak to object storage", e))?;
    runtime.block_on(until_cancelled(&source.cancel, work))
}

fn authority(address: &str) -> Option<&str> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"))?.trim_end_matches('/');
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/@?#\\".contains(c);
    (!rest.is_empty() && !rest.contains(bad)).then_some(rest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_places_or_refused() {
        let parse = |path: &str| Place::parse(path, Storage::default());
        assert!(parse("/srv/files").unwrap().is_none());
        let place = parse("s3://bucket/a/b/").unwrap().unwrap();
        assert_eq!((place.kind, place.bucket.as_str(), place.key.as_str()), (Kind::S3, "bucket", "a/b"));
        for bad in
            ["ftp://x/y", "s3://", "https://host", "https://user:pw@host/x", "https://host/x?token=1", "az://c/x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for (endpoint, fine) in [("https://h:9", true), ("https://h/x", false), ("h", false), ("http://u@h", false)] {
            let storage = Storage { endpoint: Some(endpoint.to_owned()), ..Storage::default() };
            assert_eq!(Place::parse("s3://b", storage).is_ok(), fine, "{endpoint}");
        }
        let storage = Storage { secret_key_env: Some("AGNES_KEY".to_owned()), ..Storage::default() };
        assert!(Place::parse("s3://b", storage).is_err());
    }
}
