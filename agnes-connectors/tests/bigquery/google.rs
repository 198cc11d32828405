//! Google's sign-in for service accounts, and as much of BigQuery's REST API as shows what is
//! asked of it when it is expensive, slow or refuses.

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use agnes_core::testing::Request;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The first token it gives.
pub(crate) const TOKEN: &str = "ya29.secret-access-token";

/// What a machine of Google's cloud is asked for its token.
pub(crate) const MACHINE_TOKEN: &str = "GET /computeMetadata/v1/instance/service-accounts/default/token";

/// How requests that begin so are answered: status and body.
type Answers = Vec<(String, u16, Value)>;

#[derive(Clone)]
pub(crate) struct Google {
    pub(crate) url: String,
    pair: Arc<aws_lc_rs::rsa::KeyPair>,
    answers: Arc<Mutex<Answers>>,
    pub(crate) requests: Arc<Mutex<Vec<(String, String)>>>,
    /// Where to send what nothing else is said for.
    behind: Arc<Mutex<Option<String>>>,
    /// What every dry run is told to read.
    bytes: Arc<Mutex<u64>>,
    /// How many of its tokens have ended.
    ended: Arc<Mutex<u32>>,
    /// The token ends as soon as requests that begin so were answered, in turn.
    ends: Arc<Mutex<Vec<String>>>,
    /// How long its tokens last, in seconds.
    lasts: Arc<Mutex<u64>>,
    /// Who pays for calls of the REST API, as their headers say.
    payers: Arc<Mutex<BTreeSet<String>>>,
}

impl Google {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let google = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            pair: Arc::new(pair),
            answers: Arc::default(),
            requests: Arc::default(),
            behind: Arc::default(),
            bytes: Arc::default(),
            ended: Arc::default(),
            ends: Arc::default(),
            lasts: Arc::new(Mutex::new(3600)),
            payers: Arc::default(),
        };
        let served = google.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || served.serve(stream));
            }
        });
        google
    }

    /// A service account's key, as Google gives it out.
    pub(crate) fn key(&self) -> String {
        let der: aws_lc_rs::encoding::Pkcs8V1Der = self.pair.as_der().unwrap();
        let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
        let key = format!("{begin}\n{}\n{end}\n", STANDARD.encode(der.as_ref()));
        json!({"type": "service_account", "client_email": "agnes@agnes-test.example", "private_key": key,
            "private_key_id": "k1", "token_uri": format!("{}/token", self.url)})
        .to_string()
    }

    /// A person's own credentials, as `gcloud` leaves them.
    pub(crate) fn person(&self) -> String {
        json!({"type": "authorized_user", "client_id": "c1", "client_secret": "s1", "refresh_token": "1//refresh",
            "token_uri": format!("{}/token", self.url)})
        .to_string()
    }

    /// Where the machine's own server is, as a variable says it.
    pub(crate) fn machine(&self) -> (String, String) {
        ("GCE_METADATA_HOST".to_owned(), self.url.trim_start_matches("http://").to_owned())
    }

    /// Has tokens last so many seconds.
    pub(crate) fn tokens_last(&self, seconds: u64) {
        *self.lasts.lock().unwrap() = seconds;
    }

    /// Ends the token: another one is given from now on.
    pub(crate) fn end_token(&self) {
        *self.ended.lock().unwrap() += 1;
    }

    /// Ends the token right after each of these requests, in turn.
    pub(crate) fn end_token_after(&self, requests: &[&str]) {
        *self.ends.lock().unwrap() = requests.iter().rev().map(ToString::to_string).collect();
    }

    /// The token that opens things now.
    pub(crate) fn valid(&self) -> String {
        match *self.ended.lock().unwrap() {
            0 => TOKEN.to_owned(),
            n => format!("{TOKEN}-{n}"),
        }
    }

    /// Who paid for the calls so far.
    pub(crate) fn payers(&self) -> Vec<String> {
        self.payers.lock().unwrap().iter().cloned().collect()
    }

    /// How often something was asked.
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.requests().iter().filter(|(asked, _)| asked.starts_with(what)).count()
    }

    /// Sends requests to a server behind, once they show the token.
    pub(crate) fn forward_to(&self, url: &str) {
        *self.behind.lock().unwrap() = Some(url.trim_start_matches("http://").to_owned());
    }

    /// Has dry runs tell of so many bytes: the server behind counts none.
    pub(crate) fn estimates(&self, bytes: u64) {
        *self.bytes.lock().unwrap() = bytes;
    }

    fn behind(&self, what: &str, body: &str) -> Option<(u16, Value)> {
        let address = self.behind.lock().unwrap().clone()?;
        let mut stream = TcpStream::connect(address).unwrap();
        let (length, kind) = (body.len(), "application/json");
        let head = format!("{what} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap_or_default();
        if let Some(bytes) = body.pointer_mut("/statistics/totalBytesProcessed") {
            *bytes = self.bytes.lock().unwrap().to_string().into();
        }
        Some((status, body))
    }

    /// Answers requests that begin so, from now on.
    pub(crate) fn answer(&self, begins: &str, status: u16, body: Value) {
        let mut answers = self.answers.lock().unwrap();
        match answers.iter_mut().find(|(known, ..)| known == begins) {
            Some(known) => (known.1, known.2) = (status, body),
            None => answers.push((begins.to_owned(), status, body)),
        }
    }

    /// Requests so far: `METHOD target`, and the body.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        loop {
            let Some(request) = Request::read(&mut reader) else { return };
            let [bearer, flavor] =
                ["Authorization", "Metadata-Flavor"].map(|name| request.header(name).unwrap_or_default());
            if let Some(payer) = request.header("X-Goog-User-Project") {
                self.payers.lock().unwrap().insert(payer.to_owned());
            }
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let what = format!("{} {}", request.method, request.target);
            let (status, answer) = match what.as_str() {
                "POST /token" => self.token(&body),
                MACHINE_TOKEN => match self.answer_of(&what) {
                    Some(answer) => answer,
                    None if flavor == "Google" => (200, self.granted()),
                    None => (403, json!({})),
                },
                _ if bearer != format!("Bearer {}", self.valid()) => {
                    (401, json!({"error": {"message": "who are you"}}))
                }
                _ => self.answer_of(&what).or_else(|| self.behind(&what, &body)).unwrap_or((404, json!({}))),
            };
            if status < 400 {
                let mut ends = self.ends.lock().unwrap();
                if ends.pop_if(|begins| what.starts_with(begins.as_str())).is_some() {
                    self.end_token();
                }
            }
            self.requests.lock().unwrap().push((what, body));
            let text = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            if stream.write_all(format!("{head}{text}").as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer_of(&self, what: &str) -> Option<(u16, Value)> {
        let answers = self.answers.lock().unwrap();
        let known = answers.iter().find(|(begins, ..)| what.starts_with(begins));
        known.map(|(_, status, answer)| (*status, answer.clone()))
    }

    fn granted(&self) -> Value {
        json!({"access_token": self.valid(), "expires_in": *self.lasts.lock().unwrap(), "token_type": "Bearer"})
    }

    /// A token for who signed rightly, or has a refresh token.
    fn token(&self, body: &str) -> (u16, Value) {
        let form: Vec<(String, String)> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let get = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if get("grant_type") == Some("refresh_token") {
            let given = ["client_id", "client_secret", "refresh_token"].map(|name| get(name).unwrap_or_default());
            return match given == ["c1", "s1", "1//refresh"] {
                true => (200, self.granted()),
                false => (400, json!({"error": "invalid_grant", "error_description": "Token has been revoked."})),
            };
        }
        let parts: Vec<&str> = get("assertion").unwrap_or_default().split('.').collect();
        let [head, claims, signature] = parts.as_slice() else { return (400, json!({"error": "invalid_request"})) };
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
            self.pair.public_key().as_ref(),
        );
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        let right = public.verify(format!("{head}.{claims}").as_bytes(), &signature).is_ok();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap_or_default()).unwrap_or_default();
        let meant = claims["aud"] == format!("{}/token", self.url)
            && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
            && get("grant_type") == Some("urn:ietf:params:oauth:grant-type:jwt-bearer");
        match right && meant {
            true => (200, self.granted()),
            false => (400, json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."})),
        }
    }
}
