//! Where a slice is, and what its object store wants to see: a signed address alone, a bearer
//! token (Google), a SAS (Azure), or a signature made here (S3, Signature Version 4).

use std::cmp::Ordering;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::config::Endpoints;
use super::error::KeboolaError;
use super::model::FileDetail;
use crate::calls::encoded;

/// SHA-256 of no bytes.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What is asked for a slice.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// How to get at the slice `url` of `file`.
pub(crate) fn place(file: &FileDetail, url: &str, at: &Endpoints, now: DateTime<Utc>) -> Result<Place, KeboolaError> {
    let refused = |reason: &str| KeboolaError::File { reason: reason.to_owned() };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| refused("a slice's address is no address"))?;
    let (container, key) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "https" | "http" => Ok(Place { url: url.to_owned(), headers: Vec::new() }),
        _ if container.is_empty() || key.is_empty() => Err(refused("a slice's address names no object")),
        "gs" => {
            let token = file.gcs_credentials.access_token.as_deref().filter(|token| !token.is_empty());
            let token = token.ok_or_else(|| refused("Keboola gave no token for Google Cloud Storage"))?;
            let host = at.gcs.as_deref().unwrap_or("https://storage.googleapis.com");
            let url = format!("{host}/storage/v1/b/{}/o/{}?alt=media", encoded(container), encoded(key));
            // Asked for it as it is stored: else the store may unpack what is named `.gz`.
            let headers = vec![("Authorization", format!("Bearer {token}")), ("Accept-Encoding", "gzip".to_owned())];
            Ok(Place { url, headers })
        }
        "azure" => {
            let sas = file.abs_credentials.sas_connection_string.as_deref().unwrap_or_default();
            let sas = sas.split(';').find_map(|part| part.trim().strip_prefix("SharedAccessSignature="));
            let sas = sas.filter(|sas| !sas.is_empty());
            let sas = sas.ok_or_else(|| refused("Keboola gave no shared access signature for Azure"))?;
            // The signature opens the blobs to whoever gets it.
            let account = container.strip_suffix(".blob.core.windows.net").filter(|account| is_name(account));
            let account = account.ok_or_else(|| refused("a slice is not in Azure's blob storage"))?;
            let host = match &at.azure {
                None => format!("https://{container}"),
                Some(host) => format!("{host}/{account}"),
            };
            Ok(Place { url: format!("{host}/{}?{}", path(key), sas.trim_start_matches('?')), headers: Vec::new() })
        }
        "s3" => s3(file, container, key, at, now),
        _ => Err(refused("a slice's address is of a kind that is not known")),
    }
}

fn s3(file: &FileDetail, bucket: &str, key: &str, at: &Endpoints, now: DateTime<Utc>) -> Result<Place, KeboolaError> {
    let refused = |reason: &str| KeboolaError::File { reason: reason.to_owned() };
    if file.s3_path.bucket.as_deref() != Some(bucket) || !is_name(bucket) {
        return Err(refused("a slice is in another bucket than the file"));
    }
    let region = file.region.as_deref().filter(|region| is_name(region));
    let region = region.ok_or_else(|| refused("Keboola named no region for S3"))?;
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let (Some(id), Some(secret)) = (given(&file.credentials.access_key_id), given(&file.credentials.secret_access_key))
    else {
        return Err(refused("Keboola gave no credentials for S3"));
    };
    let (base, path) = match &at.s3 {
        Some(base) => (base.clone(), format!("/{bucket}/{}", path(key))),
        // The certificate of the other form does not hold for names with dots.
        None if bucket.contains('.') => {
            (format!("https://s3.{region}.amazonaws.com"), format!("/{bucket}/{}", path(key)))
        }
        None => (format!("https://{bucket}.s3.{region}.amazonaws.com"), format!("/{}", path(key))),
    };
    let host = base.split_once("://").map_or(base.as_str(), |(_, host)| host).to_owned();
    let (day, time) = (now.format("%Y%m%d").to_string(), now.format("%Y%m%dT%H%M%SZ").to_string());
    let mut headers = vec![("x-amz-content-sha256", EMPTY.to_owned()), ("x-amz-date", time.clone())];
    if let Some(token) = given(&file.credentials.session_token) {
        headers.push(("x-amz-security-token", token));
    }
    let signed: Vec<&str> = std::iter::once("host").chain(headers.iter().map(|(name, _)| *name)).collect();
    let signed = signed.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let request = format!("GET\n{path}\n\nhost:{host}\n{lines}\n{signed}\n{EMPTY}");
    let scope = format!("{day}/{region}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
    let mut derived = format!("AWS4{secret}").into_bytes();
    for part in [day.as_str(), region, "s3", "aws4_request", &text] {
        derived = hmac(&derived, part.as_bytes());
    }
    let signature = hex(&derived);
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
    headers.push(("Authorization", authorization));
    Ok(Place { url: format!("{base}{path}"), headers })
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Letters, digits, `-`, `_` and `.`: nothing that ends a host.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A key as a path, its slashes kept.
fn path(key: &str) -> String {
    key.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

/// A slice's address without its signature: what it is known by.
pub(crate) fn identity(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Order of paths in which numbers count as numbers: `s_2` before `s_10`.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
                let ((x, rest_a), (y, rest_b)) = (a.split_at(digits(a)), b.split_at(digits(b)));
                let zeros = |text: &[u8]| text.iter().take_while(|b| **b == b'0').count();
                let (x, y) = (&x[zeros(x)..], &y[zeros(y)..]);
                match x.len().cmp(&y.len()).then_with(|| x.cmp(y)) {
                    Ordering::Equal => (a, b) = (rest_a, rest_b),
                    other => return other,
                }
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (Some(x), Some(y)) => return x.cmp(y),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file() -> FileDetail {
        serde_json::from_value(json!({
            "region": "us-east-1", "s3Path": {"bucket": "examplebucket"}, "absPath": [], "gcsCredentials": [],
            "credentials": {"AccessKeyId": "AKIAIOSFODNN7EXAMPLE",
                            "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
        }))
        .unwrap()
    }

    fn now() -> DateTime<Utc> {
        "2013-05-24T00:00:00Z".parse().unwrap()
    }

    fn refusal(file: &FileDetail, url: &str) -> String {
        place(file, url, &Endpoints::default(), now()).err().unwrap().to_string()
    }

    #[test]
    fn s3_is_signed_as_amazon_says() {
        let place = place(&file(), "s3://examplebucket/a b/test$file.text", &Endpoints::default(), now()).unwrap();
        assert_eq!(place.url, "https://examplebucket.s3.us-east-1.amazonaws.com/a%20b/test%24file.text");
        let authorization = &place.headers.last().unwrap().1;
        assert!(authorization.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature="
        ));
        // The key of the example in Amazon's "Deriving the signing key".
        let mut key = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
        for part in ["20120215", "us-east-1", "iam", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        assert_eq!(hex(&key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
    }

    #[test]
    fn credentials_go_to_their_own_store_alone() {
        let mut file = file();
        assert!(refusal(&file, "s3://other/key").contains("another bucket"));
        file.s3_path.bucket = Some("evil.com#".to_owned());
        assert!(refusal(&file, "s3://evil.com#/key").contains("another bucket"));
        file = FileDetail { region: None, ..self::file() };
        assert!(refusal(&file, "s3://examplebucket/key").contains("no region"));
        file.region = Some("us-east-1".to_owned());
        file.credentials.secret_access_key = None;
        assert!(refusal(&file, "s3://examplebucket/key").contains("no credentials"));
        assert!(refusal(&file, "gs://bucket/key").contains("no token"));
        assert!(refusal(&file, "azure://a.blob.core.windows.net/c/b").contains("no shared access signature"));
        file.abs_credentials.sas_connection_string =
            Some("BlobEndpoint=https://a;SharedAccessSignature=sv=1&sig=x%3D".to_owned());
        for host in ["a.blob.core.windows.net.evil.com", "evil.com", "a@evil.com#.blob.core.windows.net"] {
            assert!(refusal(&file, &format!("azure://{host}/c/b")).contains("not in Azure"), "{host}");
        }
        assert!(refusal(&file, "ftp://host/key").contains("not known"));
        assert!(refusal(&file, "gs://bucket").contains("no object"));
    }

    #[test]
    fn each_store_is_asked_in_its_own_way() {
        let mut file = file();
        file.gcs_credentials.access_token = Some("ya29".to_owned());
        file.abs_credentials.sas_connection_string =
            Some("BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=sv=1&sig=x%3D".to_owned());
        let place = |url: &str| place(&file, url, &Endpoints::default(), now()).unwrap();
        let gcs = place("gs://bucket/a/b c.csv.gz");
        assert_eq!(gcs.url, "https://storage.googleapis.com/storage/v1/b/bucket/o/a%2Fb%20c.csv.gz?alt=media");
        assert_eq!(gcs.headers[0], ("Authorization", "Bearer ya29".to_owned()));
        let azure = place("azure://a.blob.core.windows.net/box/b.csv");
        assert_eq!(azure.url, "https://a.blob.core.windows.net/box/b.csv?sv=1&sig=x%3D");
        let signed = place("https://x/y?sig=1");
        assert_eq!((signed.url.as_str(), signed.headers.len()), ("https://x/y?sig=1", 0));
    }

    #[test]
    fn numbers_count_as_numbers() {
        let mut paths = ["s_10", "s_9", "s_010", "s_1", "s_2_1", "s_2", "s_100"];
        paths.sort_by(|a, b| natural(a, b));
        assert_eq!(paths, ["s_1", "s_2", "s_2_1", "s_9", "s_10", "s_010", "s_100"]);
        assert_eq!(identity("https://h/p_1.gz?sig=2"), "https://h/p_1.gz");
    }
}
