//! What is sent, followed, repeated, limited and told.

use std::time::Duration;

use agnes_connectors::outbound::Outbound;
use agnes_core::error::Coded as _;
use agnes_core::secret::Secret;
use serde_json::{Value, json};

use super::peer::{Peer, Table, answer, client};

fn good(peer: &Peer, path: &str) -> (Outbound, String) {
    (client(Table::default()), peer.url("good.example", path))
}

#[tokio::test]
async fn what_is_sent_arrives() {
    let peer = Peer::saying(answer(200, "X-Kind: a\r\n", r#"{"a":[1,2]}"#));
    let (outbound, url) = good(&peer, "/p?q=1");
    let request = outbound.post(&url).bearer(&Secret::new("t0ken")).form(&[("a b", "c&d="), ("ž", "1")]);
    let got = request.send().await.unwrap();
    assert_eq!((got.status().as_u16(), got.header("x-kind")), (200, Some("a")));
    assert_eq!(got.json::<Value>().await.unwrap(), json!({"a": [1, 2]}));
    let sent = peer.requests().remove(0).to_lowercase();
    assert!(sent.starts_with("post /p?q=1 http/1.1\r\n"), "{sent}");
    for line in ["authorization: bearer t0ken\r\n", "user-agent: agnes/", "host: good.example:"] {
        assert!(sent.contains(line), "{line} {sent}");
    }
    assert!(sent.ends_with("\r\n\r\na+b=c%26d%3d&%c5%be=1"), "{sent}");
    outbound.post(&url).json(&json!({"x": 1})).send().await.unwrap();
    assert!(peer.requests()[1].ends_with("{\"x\":1}"));
    let odd = outbound.get(&url).header("a header", "x").send().await.unwrap_err();
    assert_eq!(odd.code(), "request_not_sendable");
    let odd = outbound.get(&url).header("x", "a\r\nb: c").send().await.unwrap_err();
    assert_eq!(odd.code(), "request_not_sendable");
}

#[tokio::test]
async fn three_redirects_are_followed_and_secrets_stay_at_home() {
    let there = Peer::saying(answer(200, "", "there"));
    let to = there.url("other.example", "/end");
    let peer = Peer::new(move |n, _| {
        let next = if n < 2 { format!("/{n}") } else { to.clone() };
        (Duration::ZERO, answer([301, 302, 307][n], &format!("Location: {next}\r\n"), ""))
    });
    let (outbound, url) = good(&peer, "/start");
    let request =
        outbound.get(&url).bearer(&Secret::new("t0ken")).header("x-storageapi-token", "k").header("accept", "a/b");
    assert_eq!(request.send().await.unwrap().bytes().await.unwrap(), b"there");
    assert!(peer.requests().iter().all(|sent| sent.contains("t0ken") && sent.contains("x-storageapi-token")));
    let last = there.requests().remove(0);
    assert!(!last.contains("t0ken") && !last.contains("storageapi") && last.contains("accept: a/b"), "{last}");
    // A fourth is one too many, and a body goes nowhere else.
    let peer = Peer::new(|n, _| (Duration::ZERO, answer(302, &format!("Location: /{n}\r\n"), "")));
    let (outbound, url) = good(&peer, "/");
    assert_eq!(outbound.get(&url).send().await.unwrap_err().code(), "too_many_redirects");
    assert_eq!(peer.requests().len(), 4);
    assert_eq!(outbound.post(&url).body("a/b", "x").send().await.unwrap_err().code(), "too_many_redirects");
    assert_eq!(peer.requests().len(), 5);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_only_where_that_is_harmless() {
    let flaky = || {
        Peer::new(|n, _| {
            (
                Duration::ZERO,
                if n < 2 { answer([503, 429][n], "Retry-After: 0\r\n", "") } else { answer(200, "", "at last") },
            )
        })
    };
    let peer = flaky();
    let (outbound, url) = good(&peer, "/");
    assert_eq!(outbound.get(&url).send().await.unwrap().bytes().await.unwrap(), b"at last");
    let peer = flaky();
    let (outbound, url) = good(&peer, "/");
    assert_eq!(outbound.post(&url).send().await.unwrap().status(), 503);
    assert_eq!(peer.requests().len(), 1, "a POST may have had its effect");
    let repeated = outbound.post(&url).body("a/b", "again").repeatable().send().await.unwrap();
    assert_eq!(repeated.status(), 200);
    // Connections that break are tried again too; whoever asks to wait for long is not waited for.
    let peer = Peer::new(|n, _| (Duration::ZERO, if n == 0 { String::new() } else { answer(200, "", "") }));
    let (outbound, url) = good(&peer, "/");
    assert_eq!(outbound.get(&url).send().await.unwrap().status(), 200);
    for asks in ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"] {
        let peer = Peer::saying(answer(503, &format!("Retry-After: {asks}\r\n"), ""));
        let (outbound, url) = good(&peer, "/");
        let status = outbound.get(&url).send().await.unwrap().ok().unwrap_err();
        assert_eq!((status.code(), status.kind().is_retryable()), ("host_refused", true));
        assert_eq!(peer.requests().len(), 1, "{asks}");
    }
    // A refusal of the rules is final.
    let peer = Peer::saying(answer(400, "", ""));
    let (outbound, url) = good(&peer, "/");
    assert_eq!(outbound.get(&url).send().await.unwrap().status(), 400);
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn bodies_end_at_their_limit() {
    // Announced, and not announced.
    let endless = format!("HTTP/1.1 200 x\r\nConnection: close\r\n\r\n{}", "x".repeat(200_000));
    for text in [answer(200, "", &"x".repeat(200_000)), endless] {
        let peer = Peer::saying(text);
        let (outbound, url) = good(&peer, "/");
        let got = outbound.get(&url).body_limit(100_000).send().await.unwrap();
        assert_eq!(got.bytes().await.unwrap_err().code(), "answer_too_large");
        let mut got = outbound.get(&url).body_limit(200_000).send().await.unwrap();
        let mut length = 0;
        while let Some(piece) = got.chunk().await.unwrap() {
            length += piece.len();
        }
        assert_eq!(length, 200_000);
    }
    let peer = Peer::saying("HTTP/1.1 200 x\r\nContent-Length: 10\r\n\r\nabc");
    let (outbound, url) = good(&peer, "/");
    assert_eq!(outbound.get(&url).send().await.unwrap().bytes().await.unwrap_err().code(), "answer_broken_off");
    let peer = Peer::saying(answer(200, "", "<html>"));
    let (outbound, url) = good(&peer, "/");
    let error = outbound.get(&url).send().await.unwrap().json::<Value>().await.unwrap_err();
    assert_eq!(error.code(), "answer_not_understood");
}

#[tokio::test]
async fn time_is_limited_and_errors_keep_secrets() {
    let peer = Peer::new(|_, _| (Duration::from_secs(20), String::new()));
    let (outbound, url) = good(&peer, "/signed?sig=s3cret");
    let request = outbound.get(&url).bearer(&Secret::new("t0ken")).timeout(Duration::from_millis(300));
    assert!(!format!("{request:?}").contains("t0ken"));
    assert!(!format!("{request:?}").contains("s3cret"), "{request:?}");
    let mut errors = vec![request.send().await.unwrap_err()];
    let peer = Peer::saying(answer(403, "", "s3cret"));
    let (outbound, url) = good(&peer, "/signed?sig=s3cret");
    errors.push(outbound.get(&url).send().await.unwrap().ok().unwrap_err());
    drop(peer);
    let gone = agnes_core::testing::free_port();
    let request = outbound.post(&format!("http://good.example:{gone}/a?sig=s3cret")).bearer(&Secret::new("t0ken"));
    errors.push(request.send().await.unwrap_err());
    errors.push(outbound.get("https://user:s3cret@example.com/").send().await.unwrap_err());
    let codes: Vec<&str> = errors.iter().map(|error| error.code()).collect();
    assert_eq!(codes, ["host_timed_out", "host_refused", "host_unreachable", "private_url"]);
    for error in &errors {
        let mut told = format!("{error} {error:?} {:?}", error.hint());
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            told += &format!("{inner} {inner:?}");
            cause = inner.source();
        }
        assert!(!told.contains("s3cret") && !told.contains("t0ken"), "{told}");
    }
}
