//! Which versions of the command a server offers, and taking one.

use std::time::Duration;

use agnes_core::distribution::{Artifact, this_platform};
use agnes_core::error::{Error, Result};
use reqwest::StatusCode;
use serde::Deserialize;

use super::call::range_headers;
use super::{Call, ServerClient, ServerError};

/// How long to wait before an attempt more, after each that brought nothing.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// What comes of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// It comes from its beginning again: what is here is of no use.
    Anew,
    /// The next bytes.
    More(&'a [u8]),
}

/// What a server offers.
#[derive(Debug, Clone, Deserialize)]
pub struct Latest {
    /// The newest version; none where there are no archives.
    pub version: Option<String>,
    /// The oldest one that works with it.
    pub min_version: Option<String>,
    /// Archives of the newest one.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
}

impl Latest {
    /// The archive for this computer.
    #[must_use]
    pub fn for_this_computer(&self) -> Option<&Artifact> {
        let (os, arch) = this_platform()?;
        self.artifacts.iter().find(|one| one.os == os && one.arch == arch)
    }
}

impl ServerClient {
    /// What it offers; nobody has to be signed in.
    ///
    /// # Errors
    /// As [`ServerClient::ask`].
    pub async fn latest(&self, within: Duration) -> Result<Latest> {
        let answer = self.ask(Call::get(&["cli", "latest"]).public().within(within)).await?;
        Ok(self.read(answer.body)?)
    }

    /// The bytes of an archive from `from` on, handed on as they come. A break is gone on from, a few times as
    /// long as nothing comes.
    ///
    /// # Errors
    /// As [`ServerClient::ask`]; `answer_broke_off`; what `take` fails with; `server_not_understood`
    /// where there is more than was offered.
    pub async fn archive(
        &self,
        artifact: &Artifact,
        from: u64,
        mut take: impl FnMut(Piece<'_>) -> std::io::Result<()> + Send,
    ) -> Result<()> {
        let (mut came, mut failed) = (from, 0);
        while came < artifact.size_bytes {
            let before = came;
            let done = self.archive_once(artifact, &mut came, &mut take).await;
            let error = match done {
                Ok(()) if came >= artifact.size_bytes => break,
                Ok(()) => ServerError::BrokeOff {
                    server: self.server().to_owned(),
                    reason: "the archive is shorter than it was offered".to_owned(),
                }
                .into(),
                Err(error) => error,
            };
            if came > before {
                failed = 0;
            }
            let Some(pause) = PAUSES.get(failed).filter(|_| error.is_retryable()) else { return Err(error) };
            failed += 1;
            tokio::time::sleep(*pause).await;
        }
        Ok(())
    }

    async fn archive_once(
        &self,
        artifact: &Artifact,
        came: &mut u64,
        take: &mut (impl FnMut(Piece<'_>) -> std::io::Result<()> + Send),
    ) -> Result<()> {
        let mut call = Call::get(&["cli", "artifact", &artifact.filename]).header("accept", "application/gzip");
        if *came > 0 {
            call = range_headers(call, &(*came..artifact.size_bytes), &artifact.sha256);
        }
        let failed = |e| Error::io("keep the archive", e);
        let mut response = self.send(call.public().of_file()).await?;
        if *came > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // An older server, or one that has another archive by now.
            take(Piece::Anew).map_err(failed)?;
            *came = 0;
        }
        while let Some(piece) = self.piece(&mut response).await? {
            *came += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if *came > artifact.size_bytes {
                return Err(self.not_understood("the archive is longer than it was offered").into());
            }
            take(Piece::More(&piece)).map_err(failed)?;
        }
        Ok(())
    }
}
