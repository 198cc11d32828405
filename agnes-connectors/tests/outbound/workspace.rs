//! The Workspace directory, against a server that speaks as Google's services do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agnes_connectors::workspace::{Endpoints, WorkspaceDirectory};
use agnes_core::identity::Directory as _;
use serde_json::{Value, json};

use super::peer::{Peer, Table, answer, client};

const ACCOUNT: &str = "sync@acme.iam.gserviceaccount.com";

/// What the services are asked, checked as they check it, and what they say.
fn google(request: &str, groups: usize, token_at: &str) -> (u16, Value) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    let (method, rest) = head.split_once(' ').unwrap();
    let path = rest.split(' ').next().unwrap().to_owned();
    let bearer = |token: &str| head.contains(&format!("authorization: bearer {token}\r\n"));
    let refused = (403, json!({"error": {"code": 403, "status": "PERMISSION_DENIED"}}));
    match (method, path.as_str()) {
        ("get", "/computemetadata/v1/instance/service-accounts/default/token") => {
            assert!(head.contains("metadata-flavor: google"), "{head}");
            (200, json!({"access_token": "own", "expires_in": 3599, "token_type": "Bearer"}))
        }
        ("post", path) if path == format!("/v1/projects/-/serviceaccounts/{}:signjwt", ACCOUNT.replace('@', "%40")) => {
            if !bearer("own") {
                return refused;
            }
            let asked: Value = serde_json::from_str(body).unwrap();
            let claims: Value = serde_json::from_str(asked["payload"].as_str().unwrap()).unwrap();
            let scope = "https://www.googleapis.com/auth/admin.directory.group.readonly";
            let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
            let right = (&claims["iss"], &claims["sub"], &claims["scope"], &claims["aud"], life)
                == (&json!(ACCOUNT), &json!("it@acme.example"), &json!(scope), &json!(token_at), 3600);
            if right { (200, json!({"keyId": "k", "signedJwt": "signed"})) } else { refused }
        }
        ("post", "/token") => {
            let right = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=signed";
            assert_eq!(body, right);
            (200, json!({"access_token": "theirs", "expires_in": 3599, "token_type": "Bearer"}))
        }
        ("get", path) if path.starts_with("/admin/directory/v1/groups?") => {
            if !bearer("theirs") {
                return (401, json!({"error": {"code": 401}}));
            }
            assert!(path.contains("userkey=ann%2bx%40acme.example&maxresults=200"), "{path}");
            let at: usize = path.split_once("pagetoken=p").map_or(0, |(_, at)| at.parse().unwrap());
            let end = (at + 200).min(groups);
            let page: Vec<Value> = (at..end).map(|n| json!({"email": format!("g{n}@acme.example")})).collect();
            // As Google does it: no list at all where there is nothing, no token at the end.
            let mut said = if page.is_empty() { json!({}) } else { json!({ "groups": page }) };
            if end < groups {
                said["nextPageToken"] = json!(format!("p{end}"));
            }
            (200, said)
        }
        _ => (404, json!({"error": {"code": 404, "asked": path}})),
    }
}

fn directory(peer: &Peer) -> WorkspaceDirectory {
    let base = peer.url("good.example", "");
    let endpoints =
        Endpoints { metadata: base.clone(), iam: base.clone(), token: format!("{base}/token"), directory: base };
    WorkspaceDirectory::new(client(Table::default()), "it@acme.example".into(), Some(ACCOUNT.into())).at(endpoints)
}

/// A peer that knows its own address.
fn services(groups: usize, broken: Arc<AtomicUsize>) -> Peer {
    let (tell, told) = std::sync::mpsc::channel::<String>();
    let at = std::sync::OnceLock::new();
    let peer = Peer::new(move |_, request| {
        let token_at = at.get_or_init(|| told.recv().unwrap());
        let (status, body) = google(request, groups, token_at);
        let fails = request.starts_with("GET /admin") && broken.load(Ordering::SeqCst) > 0;
        let status = if fails { broken.load(Ordering::SeqCst) as u16 } else { status };
        (Duration::ZERO, answer(status, "Content-Type: application/json\r\nRetry-After: 60\r\n", &body.to_string()))
    });
    tell.send(peer.url("good.example", "/token")).unwrap();
    peer
}

#[tokio::test]
async fn all_pages_are_read_with_one_token() {
    let peer = services(450, Arc::default());
    let directory = directory(&peer);
    for _ in 0..2 {
        let groups = directory.groups_of("ann+x@acme.example").await.unwrap();
        assert_eq!((groups.len(), groups[449].as_str()), (450, "g449@acme.example"));
    }
    assert_eq!(peer.requests().len(), 3 + 3 + 3, "the token is kept");
    let none = services(0, Arc::default());
    assert_eq!(self::directory(&none).groups_of("ann+x@acme.example").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn whatever_goes_wrong_is_no_empty_list() {
    for status in [400, 401, 403, 404, 429, 500, 503] {
        let broken = Arc::new(AtomicUsize::new(status));
        let peer = services(3, broken.clone());
        let directory = directory(&peer);
        let error = directory.groups_of("ann+x@acme.example").await.unwrap_err();
        assert_eq!(error.code(), "host_refused", "{status}");
        broken.store(0, Ordering::SeqCst);
        assert_eq!(directory.groups_of("ann+x@acme.example").await.unwrap().len(), 3, "{status}");
    }
    // More pages than anybody has: a part is not told as the whole.
    let peer = services(200 * 51, Arc::default());
    let error = directory(&peer).groups_of("ann+x@acme.example").await.unwrap_err();
    assert_eq!(error.code(), "answer_not_understood");
    // Google's own services are asked where nothing else is said; this machine is not theirs.
    let real = WorkspaceDirectory::new(client(Table::default()), "it@acme.example".into(), None);
    assert!(format!("{real:?}").contains("metadata.google.internal"));
}
