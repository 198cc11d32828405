//! How long a client waits, and for what.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use agnes_core::query::Query;
use agnes_core::workspace::{FileOf, FileRef, Origin as _, SessionSink as _};
use serde_json::json;

use super::*;

const SILENCE: Duration = Duration::from_millis(300);

/// A client that has little patience, of a server that hears all of a request of `length` bytes only
/// after twice that time, then says `head`, and after as long again `rest`.
fn slow(length: usize, head: &'static str, rest: &'static str) -> ServerClient {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                std::thread::sleep(SILENCE * 2);
                let (mut seen, mut piece) = (0, vec![0; 1 << 16]);
                while seen < length {
                    seen += client.read(&mut piece).unwrap();
                }
                let _ = client.write_all(head.as_bytes());
                std::thread::sleep(SILENCE * 2);
                let _ = client.write_all(rest.as_bytes());
                let _ = client.shutdown(std::net::Shutdown::Write);
                // Closing before all was read would take the answer away.
                let _ = std::io::copy(&mut client, &mut std::io::sink());
            });
        }
    });
    let options = ServerOptions { silence: SILENCE, query_timeout: SILENCE, ..ServerOptions::default() };
    ServerClient::new(&address, Some(Secret::new("x.y.z".to_owned())), options).unwrap()
}

const DONE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn work_may_take_longer_than_a_silence() {
    let client = slow(1, DONE, "");
    assert_eq!(client.ask(Call::post(&["x"], json!({})).unlimited()).await.unwrap().body, json!({}));
    assert_eq!(client.ask(Call::get(&["x"])).await.unwrap().body, json!({}));
    // Longer than what the system takes before anybody reads.
    let session = vec![b'x'; 16 << 20];
    slow(session.len(), DONE, "").session("s.jsonl", &session).await.unwrap();
}

#[tokio::test]
async fn files_and_answers_that_fall_silent_are_given_up() {
    let file = FileRef { of: FileOf::Asset { kind: "a".to_owned(), path: "b".to_owned() }, md5: String::new() };
    let late = slow(1, DONE, "").open(&file, None).await.err().unwrap();
    assert_eq!((late.code(), late.is_retryable()), ("server_unreachable", true));
    assert!(late.to_string().ends_with("did not answer in time"), "{late}");
    let cut = slow(1, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{", "}")
        .ask(Call::get(&["x"]))
        .await
        .unwrap_err();
    assert_eq!(cut.code(), "answer_broke_off");
}

#[tokio::test]
async fn a_query_ends_after_its_own_time() {
    let late = slow(1, DONE, "").query(&Query::new("select 1")).await.err().unwrap();
    assert_eq!(late.code(), "query_timeout");
}
