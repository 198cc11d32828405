//! What stands before Google's storage in place of Google: requests that the service account
//! signed pass, others do not. The stand-in behind it checks nothing.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use agnes_core::testing::Request;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use serde_json::Value;

/// Starts a gate before the port `behind`, for the account `email` with this public key. It ends
/// with the process.
pub(crate) fn start(behind: u16, email: &'static str, key: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let key = key.clone();
            std::thread::spawn(move || pass(stream, behind, email, &key));
        }
    });
    port
}

/// One request of a connection.
fn pass(mut stream: TcpStream, behind: u16, email: &str, key: &[u8]) -> Option<()> {
    let request = Request::read(&mut BufReader::new(&stream))?;
    let token = request.header("Authorization").and_then(|value| value.strip_prefix("Bearer "));
    if token.and_then(|token| signed(token, email, key)).is_none() {
        let refused = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(refused.as_bytes()).ok();
    }
    let mut server = TcpStream::connect(("127.0.0.1", behind)).ok()?;
    let head = request.head_without(&["Connection"]);
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).ok()?;
    server.write_all(&request.body).ok()?;
    std::io::copy(&mut server, &mut stream).ok()?;
    stream.shutdown(Shutdown::Both).ok()
}

/// Whether the account signed this for storage, for now.
fn signed(token: &str, email: &str, key: &[u8]) -> Option<()> {
    let decode = |part: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).ok();
    let (said, signature) = token.rsplit_once('.')?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(said.as_bytes(), &decode(signature)?).ok()?;
    let claims: Value = serde_json::from_slice(&decode(said.split('.').nth(1)?)?).ok()?;
    let now = chrono::Utc::now().timestamp();
    let fits = claims["iss"] == email
        && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        && (claims["iat"].as_i64()?..=claims["exp"].as_i64()?).contains(&now);
    fits.then_some(())
}
