//! Signing in with the browser: it brings a one-shot code to a port of this machine.

use std::time::Duration;

use agnes_connectors::server::{Call, ServerClient};
use agnes_core::secret::{Secret, random_bytes};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;
use crate::failure::{Failure, Outcome};

/// How long somebody may take in the browser.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest first line of a request.
const LONGEST: u64 = 4096;

pub(super) async fn login(app: &App, server: &ServerClient, no_browser: bool) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| Failure::file("listen on this machine", &e))?;
    let port = listener.local_addr().map_err(|e| Failure::file("listen on this machine", &e))?.port();
    let state = new_state()?;
    let mut address = server.address_of(&["cli", "auth", "start"]);
    address.query_pairs_mut().append_pair("port", &port.to_string()).append_pair("state", &state);
    app.out.note(&format!("Sign in at {address}"));
    if !no_browser && !open(address.as_str()) {
        app.out.hint("no browser was found: open the address yourself, on this computer");
    }
    let code = tokio::time::timeout(PATIENCE, wait(&listener, &state))
        .await
        .map_err(|_| Failure::usage_hint("nobody signed in within five minutes", "try again"))??;
    let name =
        std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "command line".to_owned());
    let body = json!({"code": code.expose(), "name": name});
    let made = server.ask(Call::post(&["cli", "auth", "exchange"], body).public()).await?.body;
    let token = Secret::new(made["token"].as_str().unwrap_or_default());
    let whole = crate::place::client(server.server(), Some(token.clone()), &app.account)?;
    let me = whole.ask(Call::get(&["auth", "me"])).await?.body;
    let email = me["email"].as_str().unwrap_or_default();
    let kept = app.account.keep(server.server(), &token, Some(email))?;
    let told = json!({
        "server": server.server(), "email": email, "user_id": me["user_id"], "expires_at": made["expires_at"],
        "kept": kept.as_str(),
    });
    app.out.done(&told, &super::auth::signed_in(server, email, kept))
}

/// What only the answer to this question can know.
fn new_state() -> Outcome<String> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes()?))
}

/// Takes requests until one brings the code that this question was answered with.
async fn wait(listener: &TcpListener, state: &str) -> Outcome<Secret> {
    loop {
        let (stream, _) = listener.accept().await.map_err(|e| Failure::file("listen on this machine", &e))?;
        if let Ok(Some(code)) = tokio::time::timeout(Duration::from_secs(5), answer(stream, state)).await {
            return Ok(code);
        }
    }
}

/// Answers one request; the code, when it has one.
async fn answer(mut stream: TcpStream, state: &str) -> Option<Secret> {
    let mut line = String::new();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(&mut stream, LONGEST));
    reader.read_line(&mut line).await.ok()?;
    let code = code_of(&line, state);
    let (status, words) = match &code {
        Some(_) => ("200 OK", "You are signed in. Go back to the command line; this page can be closed."),
        None => ("404 Not Found", "There is nothing here."),
    };
    let page = format!("<!doctype html><meta charset=\"utf-8\"><title>Agnes</title><p>{words}</p>\n");
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.shutdown().await;
    code
}

/// The code in the first line of a request, if it answers the question with this `state`.
fn code_of(line: &str, state: &str) -> Option<Secret> {
    let path = line.strip_prefix("GET ")?.split(' ').next()?;
    let query = path.strip_prefix("/callback?")?;
    let field =
        |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v);
    let is_plain =
        |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b));
    let is_ours = field("state") == Some(state);
    field("code").filter(is_plain).filter(|_| is_ours).map(Secret::new)
}

/// Opens an address in the browser; whether something took it.
fn open(address: &str) -> bool {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = std::process::Command::new(program);
    command.arg(address).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.spawn().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_state_can_be_guessed() {
        let states: Vec<String> = (0..4).filter_map(|_| new_state().ok()).collect();
        assert!(states.iter().all(|state| URL_SAFE_NO_PAD.decode(state).is_ok_and(|bytes| bytes.len() == 32)));
        assert_eq!(states.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{states:?}");
    }

    #[test]
    fn only_the_answer_to_the_own_question_counts() {
        let code = |line: &str| code_of(line, "s1").map(|code| code.expose().to_owned());
        assert_eq!(code("GET /callback?code=ab-1&state=s1 HTTP/1.1\r\n").as_deref(), Some("ab-1"));
        for line in [
            "GET /callback?code=ab&state=s2 HTTP/1.1",
            "GET /callback?code=ab HTTP/1.1",
            "GET /callback?code=&state=s1 HTTP/1.1",
            "GET /callback?code=a%20b&state=s1 HTTP/1.1",
            "POST /callback?code=ab&state=s1 HTTP/1.1",
            "GET /other?code=ab&state=s1 HTTP/1.1",
            "",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }
}
