//! `agnes scheduler`: the clock of a server, in a process of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agnes_core::layout::DataFolder;
use agnes_core::scheduler::{JobAnswer, Perform, ScheduledJob, Scheduler, SchedulerSettings};
use agnes_core::secret::Secret;
use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::app::App;
use crate::failure::{Failure, Outcome};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// When what is due, as the environment says.
pub(crate) fn settings() -> Outcome<SchedulerSettings> {
    Ok(SchedulerSettings::from_env(&|name| std::env::var(name).ok())?)
}

/// Makes calls until a signal says to stop; then those that run may end.
pub(crate) async fn run(app: &App) -> Outcome {
    let settings = settings()?;
    let server = app.global.server.clone().or_else(|| variable("AGNES_SERVER")).or_else(|| variable("API_URL"));
    let server = server.as_deref().unwrap_or("http://localhost:8000").trim_end_matches('/').to_owned();
    reqwest::Url::parse(&server)
        .ok()
        .filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| {
            Failure::usage_hint(format!("`{server}` is not the address of a server"), "write it like `http://app:8000`")
        })?;
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("agnes/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Failure::usage(format!("calls cannot be made: {e}")))?;
    let remote =
        Remote { server: server.clone(), client, access: Access::find(&app.folder()), session: Mutex::default() };
    if matches!(remote.access, Access::Nobody) {
        tracing::warn!(
            "no `SCHEDULER_API_TOKEN`, no token in the data folder, no `SEED_ADMIN_EMAIL`: calls go out without a token"
        );
    }
    app.out.note(&format!("Calling {server} when something is due"));
    Scheduler::in_memory(settings, Arc::new(remote)).run(crate::interrupted()).await;
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How it proves who it is.
enum Access {
    /// The service's token.
    Token(Secret),
    /// The seeded Admin's password, for a session that is renewed when it ended.
    Password {
        email: String,
        password: Secret,
    },
    Nobody,
}

impl Access {
    fn find(folder: &DataFolder) -> Self {
        let kept = |path: &Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let token = variable("SCHEDULER_API_TOKEN").or_else(|| kept(&folder.scheduler_token()));
        match (token.filter(|token| !token.is_empty()), variable("SEED_ADMIN_EMAIL"), variable("SEED_ADMIN_PASSWORD")) {
            (Some(token), _, _) => Self::Token(Secret::new(token)),
            (None, Some(email), Some(password)) => Self::Password { email, password: Secret::new(password) },
            _ => Self::Nobody,
        }
    }
}

/// Makes calls of a server over the network.
struct Remote {
    server: String,
    client: reqwest::Client,
    access: Access,
    session: Mutex<Option<Secret>>,
}

impl Remote {
    /// The token to send, signed in for where there is none yet.
    async fn token(&self) -> Result<Option<Secret>, String> {
        let (email, password) = match &self.access {
            Access::Nobody => return Ok(None),
            Access::Token(token) => return Ok(Some(token.clone())),
            Access::Password { email, password } => (email, password),
        };
        let mut session = self.session.lock().await;
        if session.is_none() {
            let body = serde_json::json!({"email": email, "password": password.expose()}).to_string();
            let request = self.client.post(format!("{}/auth/token", self.server)).timeout(CONNECT);
            let request = request.header("content-type", "application/json").body(body);
            let response = request.send().await.map_err(words)?;
            if !response.status().is_success() {
                return Err(format!("signing in was answered with status {}", response.status().as_u16()));
            }
            let answer = response.bytes().await.map_err(words)?;
            let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|_| "signing in gave no token")?;
            let token = answer["access_token"].as_str().ok_or("signing in gave no token")?;
            *session = Some(Secret::new(token));
        }
        Ok(session.clone())
    }

    async fn call(&self, job: &ScheduledJob) -> Result<JobAnswer, String> {
        let method = job.method.parse().map_err(|_| "the method is not known".to_owned())?;
        let mut request = self.client.request(method, format!("{}{}", self.server, job.path)).timeout(job.timeout);
        if let Some(token) = self.token().await? {
            request = request.bearer_auth(token.expose());
        }
        let mut response = request.send().await.map_err(words)?;
        let (status, mut body) = (response.status().as_u16(), Vec::new());
        while body.len() < 4096
            && let Some(bytes) = response.chunk().await.map_err(words)?
        {
            body.extend_from_slice(&bytes);
        }
        Ok(JobAnswer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// What went wrong, without the address: it may hold a password.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[async_trait]
impl Perform for Remote {
    async fn perform(&self, job: &ScheduledJob) -> Result<JobAnswer, String> {
        let answer = self.call(job).await?;
        if answer.status == 401 && matches!(self.access, Access::Password { .. }) {
            *self.session.lock().await = None;
            return self.call(job).await;
        }
        Ok(answer)
    }
}
