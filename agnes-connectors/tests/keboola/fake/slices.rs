//! The stores that slices are fetched from, each with its own way to ask.

use agnes_core::testing::Request;
use serde_json::json;

use super::{Damage, SIGNATURE, State, Store};
use crate::wire::{Answer, decoded};

impl State {
    pub(super) fn blob(&mut self, request: &Request) -> Answer {
        // Google takes both forms; its own client asks the longer one.
        let target = request.target.strip_prefix("/download").unwrap_or(&request.target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = decoded(path);
        let parts: Vec<&str> = path.split('/').collect();
        let (id, name, allowed) = match parts.as_slice() {
            ["", "blob", id, name] => (*id, *name, query == format!("X-Sig={SIGNATURE}{}", self.generation)),
            // The object's key is one encoded segment: nothing but `%2F` parts it.
            ["", "storage", "v1", "b", "box", "o", id, name] => {
                let bearer = format!("Bearer {SIGNATURE}");
                let whole = target.split('/').count() == 7;
                (
                    *id,
                    *name,
                    whole
                        && query.split('&').any(|part| part == "alt=media")
                        && request.header("Authorization") == Some(bearer.as_str()),
                )
            }
            ["", "account", "box", id, name] => (*id, *name, query == format!("sv=1&sig={SIGNATURE}")),
            _ => return Answer::error(404, "no such object"),
        };
        if request.header("X-StorageApi-Token").is_some() {
            return Answer::error(500, "the token went to an object store");
        }
        if !allowed {
            return Answer {
                status: 403,
                body: b"<Error><Code>AccessDenied</Code></Error>".to_vec(),
                ..Answer::json(&json!({}))
            };
        }
        let Some(files) = self.files.get(&id.parse().unwrap_or(0)) else { return Answer::error(404, "gone") };
        if name == "manifest" {
            let url = |name: &str| match &self.store {
                // The Host header is how this server is called.
                Store::Signed => {
                    let host = request.header("Host").unwrap();
                    format!("http://{host}/blob/{id}/{name}?X-Sig={SIGNATURE}{}", self.generation)
                }
                Store::Google => format!("gs://box/{id}/{name}"),
                Store::Azure => format!("azure://account.blob.core.windows.net/box/{id}/{name}"),
                Store::S3(_) => format!("s3://exports/exp-{id}/{name}"),
                // Their manifest is where they are.
                Store::Blobs { .. } => String::new(),
            };
            return Answer::json(&self.manifest(files, url));
        }
        let Some((_, bytes)) = files.iter().find(|(known, _)| known == name) else { return Answer::error(404, "gone") };
        let mut answer = Answer { status: 200, headers: Vec::new(), body: bytes.clone(), cut: None };
        if self.damaged_times > 0 && self.damage != Damage::None {
            self.damaged_times -= 1;
            let half = answer.body.len() / 2;
            match self.damage {
                Damage::CutBody => answer.cut = Some(half),
                Damage::CutObject => answer.body.truncate(half),
                Damage::Flipped => answer.body[half] ^= 0x10,
                Damage::WrongMd5 => {
                    answer.headers.push(("Content-MD5".to_owned(), "1B2M2Y8AsgTpgAmY7PhCfg==".to_owned()))
                }
                _ => {}
            }
        }
        self.sent += answer.body.len() as u64;
        answer
    }
}
