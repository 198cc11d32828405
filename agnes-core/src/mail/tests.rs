//! Mails are written and sent off the request, and their outcome is kept.

use super::*;
use crate::context::CallContext;
use crate::rbac::{ClientKind, Principal};

#[derive(Debug, Default)]
struct Letterbox(Mutex<Vec<Mail>>, Mutex<bool>);

#[async_trait]
impl Mailer for Letterbox {
    fn name(&self) -> &'static str {
        "box"
    }
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        if *self.1.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(MailError::Refused);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mail.clone());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_have_one_gets_a_mail_and_the_outcome_is_kept() -> Result<()> {
    let root = tempfile::tempdir().map_err(|e| crate::Error::io("make a folder", e))?;
    let boxed = Arc::new(Letterbox::default());
    let engine = Engine::builder(root.path()).mailer(boxed.clone()).open().await?;
    let owner = CallContext::new(Principal::trusted_owner_of_the_data_folder("a test", ClientKind::Api));
    engine.identity().add_user(&owner, "ann@x.example", None).await?;
    let origin = "https://agnes.example";
    for (asked, email) in [
        (Asked::Setup, " Ann@X.example"),
        (Asked::Reset, "ann@x.example"),
        (Asked::Login, "ann@x.example"),
        (Asked::Login, "nobody@x.example"),
        (Asked::Setup, "scheduler@system.local"),
    ] {
        engine.mails().send_later(asked, email, origin, None);
    }
    engine.mails().settle().await;
    let subjects = || {
        let sent = boxed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut subjects: Vec<String> = sent.iter().map(|mail| mail.subject.clone()).collect();
        subjects.sort();
        subjects
    };
    // Who has no password yet gets a link to set the first one.
    let set = "Set your password for Agnes";
    assert_eq!(subjects(), [set, set, "Sign in to Agnes"]);
    assert_eq!((engine.mails().status().sent, engine.mails().status().transport), (3, Some("box")));
    *boxed.1.lock().unwrap_or_else(PoisonError::into_inner) = true;
    let letter = engine.identity().invite(&owner, "ann@x.example").await?;
    let refused = engine.mails().send(&letter, origin).await.map_err(|error| error.code().to_owned());
    assert_eq!(refused, Err("mail_refused".to_owned()));
    let status = engine.mails().status();
    assert_eq!((status.failed, status.last_error.as_deref()), (1, Some("mail_refused")));
    engine.close().await
}
