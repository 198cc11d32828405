//! A server as where a workspace pulls from.

use std::ops::Range;
use std::time::Duration;

use agnes_core::error::Result;
use agnes_core::workspace::{FileBody, FileOf, FileRef, Opened, Origin};
use async_trait::async_trait;
use reqwest::header::ETAG;
use reqwest::{Response, StatusCode};

use super::call::{range_headers, unless};
use super::{Call, ServerClient};

/// How long a manifest may take: what policies leave of tables that changed is made for it.
const SLICING: Duration = Duration::from_secs(900);

#[async_trait]
impl Origin for ServerClient {
    async fn manifest(&self, held: Option<&str>) -> Result<Option<Vec<u8>>> {
        let mut call = Call::get(&["api", "sync", "manifest"]).within(SLICING);
        if let Some(tag) = held {
            call = unless(call, tag);
        }
        let response = self.send(call).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return match held {
                Some(_) => Ok(None),
                None => Err(self.not_understood("nothing was asked to be new").into()),
            };
        }
        Ok(Some(self.text(response).await?))
    }

    async fn open(&self, file: &FileRef, range: Option<Range<u64>>) -> Result<Opened> {
        let mut call = match &file.of {
            FileOf::Table { id, part } => Call::get(&["api", "data", id, "download"]).maybe("part", part.as_ref()),
            FileOf::Asset { kind, path } => Call::get(&["api", "sync", "assets", kind, "download"]).param("path", path),
        };
        call = call.header("accept", "application/octet-stream").of_file();
        if let Some(range) = &range {
            call = range_headers(call, range, &file.md5);
        }
        let response = self.send(call).await?;
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
        let is_range = response.status() == StatusCode::PARTIAL_CONTENT;
        Ok(Opened { is_range, tag, body: Box::new(Body { client: self.clone(), response }) })
    }
}

struct Body {
    client: ServerClient,
    response: Response,
}

#[async_trait]
impl FileBody for Body {
    async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        Ok(self.client.piece(&mut self.response).await?)
    }
}
