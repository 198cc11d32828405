//! Who calls, under which request id, until when. First argument of every governed call.

use std::time::{Duration, Instant};

use crate::rbac::Principal;

/// The context of one call.
#[derive(Debug, Clone)]
pub struct CallContext {
    principal: Principal,
    request_id: String,
    deadline: Option<Instant>,
}

impl CallContext {
    /// A context for `principal` with a fresh request id and no deadline of its own
    /// (the engine's limits still hold).
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        let request_id = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        Self { principal, request_id, deadline: None }
    }

    /// Uses `id` (`[A-Za-z0-9_-]{1,64}`) as the request id; any other text is ignored.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        let valid =
            (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if valid {
            self.request_id = id.to_owned();
        }
        self
    }

    /// Ends the call after `timeout`.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Instant::now().checked_add(timeout);
        self
    }

    /// Who calls.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The request id, in every audit row of this call.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// When the call must end, if it must.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
