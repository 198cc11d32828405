//! What the mails say.

use chrono::TimeDelta;

use super::Mail;
use crate::identity::{AccessRequest, Account, Letter, RequestStatus, UserToken};
use crate::secret::Secret;

/// The mail with the link of `letter`.
pub(super) fn mail(letter: &Letter, origin: &str, product: &str) -> Mail {
    let link = format!("{}{}", origin.trim_end_matches('/'), letter.path().expose());
    let (subject, why, action, otherwise) = match letter.kind {
        UserToken::Setup => (
            format!("Set your password for {product}"),
            format!("you have an account at {product}. Choose a password to sign in with:"),
            "Choose a password",
            "If you did not expect this mail, you can leave it alone.",
        ),
        UserToken::Reset => (
            format!("A new password for {product}"),
            format!("somebody, most likely you, asked for a new password for {product}. Choose it here:"),
            "Choose a new password",
            "If it was not you, leave this mail alone: your password stays as it is.",
        ),
        UserToken::Login => (
            format!("Sign in to {product}"),
            format!("here is your link to sign in to {product}:"),
            "Sign in",
            "If you did not ask for it, leave this mail alone: nobody is signed in without it.",
        ),
    };
    let hello = match letter.name.as_deref().map(str::trim) {
        Some(name) if !name.is_empty() => format!("Hello {name},"),
        _ => "Hello,".to_owned(),
    };
    let life = format!("The link works once, for {}.", in_words(letter.kind.lifetime()));
    let text = format!("{hello}\n\n{why}\n\n{link}\n\n{life}\n{otherwise}\n");
    let [hello, why, shown] = [&hello, &why, &link].map(|text| escaped(text));
    let html = format!(
        "<!doctype html><html lang=\"en\"><body style=\"margin:0;padding:24px;background:#f5f6f4;color:#1c2420;\
         font:16px/1.5 -apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif\">\
         <div style=\"max-width:480px;margin:0 auto;padding:32px;background:#ffffff;border-radius:12px\">\
         <p style=\"margin-top:0\">{hello}</p><p>{why}</p>\
         <p style=\"margin:28px 0\"><a href=\"{shown}\" style=\"display:inline-block;padding:12px 20px;\
         border-radius:8px;background:#12634a;color:#ffffff;font-weight:600;text-decoration:none\">{action}</a></p>\
         <p style=\"color:#5a665f;font-size:14px\">{life} {otherwise}</p>\
         <p style=\"margin-bottom:0;color:#5a665f;font-size:13px;word-break:break-all\">{shown}</p>\
         </div></body></html>"
    );
    Mail {
        to: letter.email.clone(),
        name: letter.name.clone(),
        subject,
        text: Secret::new(text),
        html: Secret::new(html),
    }
}

/// The mail that says how a request for access ended.
pub(super) fn answer(request: &AccessRequest, to: &Account, product: &str) -> Mail {
    let how = if request.status == RequestStatus::Approved { "was approved" } else { "was refused" };
    let hello = match to.name.as_deref().map(str::trim) {
        Some(name) if !name.is_empty() => format!("Hello {name},"),
        _ => "Hello,".to_owned(),
    };
    let told = format!("your request for `{}` at {product} {how}.", request.resource_id);
    let note = request.review_note.as_ref().map(|note| format!("They wrote: {note}")).unwrap_or_default();
    let text = format!("{hello}\n\n{told}\n\n{note}");
    let html = format!(
        "<!doctype html><html lang=\"en\"><body><p>{}</p><p>{}</p><p>{}</p></body></html>",
        escaped(&hello),
        escaped(&told),
        escaped(&note)
    );
    Mail {
        to: to.email.clone(),
        name: to.name.clone(),
        subject: format!("Your request at {product} {how}"),
        text: Secret::new(format!("{}\n", text.trim_end())),
        html: Secret::new(html),
    }
}

/// A time as people say it: the largest unit that says it exactly.
fn in_words(time: TimeDelta) -> String {
    let minutes = time.num_minutes().max(1);
    let (count, unit) = match minutes {
        // A day is told in hours, as the others say it too.
        days if days > 1440 && days % 1440 == 0 => (days / 1440, "day"),
        hours if hours % 60 == 0 => (hours / 60, "hour"),
        minutes => (minutes, "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Text for a place between tags or in a quoted attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_said_as_they_are() {
        let said = |minutes| in_words(TimeDelta::minutes(minutes));
        assert_eq!(
            [60, 90, 1440, 10_080, 1, 0, 2880].map(said),
            ["1 hour", "90 minutes", "24 hours", "7 days", "1 minute", "1 minute", "2 days"]
        );
    }

    #[test]
    fn a_mail_says_who_what_and_for_how_long_and_no_name_is_markup() {
        for (kind, page, life) in [
            (UserToken::Setup, "/auth/password/setup?", "7 days"),
            (UserToken::Reset, "/auth/password/reset?", "24 hours"),
            (UserToken::Login, "/auth/email/verify?", "1 hour"),
        ] {
            let letter = Letter {
                email: "ann@x.example".to_owned(),
                name: Some("<b>Ann</b>".to_owned()),
                kind,
                token: Secret::new("to-ken_"),
                expires_at: chrono::DateTime::UNIX_EPOCH,
                next: None,
            };
            let mail = mail(&letter, "https://a.example/", "Acme & Co");
            let link = format!("https://a.example{page}email=ann%40x.example&token=to-ken_");
            assert!(mail.text.expose().contains(&format!("\n{link}\n")), "{kind:?}");
            assert!(mail.text.expose().contains(life) && mail.html.expose().contains(life));
            assert!(!mail.html.expose().contains("<b>") && mail.html.expose().contains("Acme &amp; Co"));
            assert!(!format!("{mail:?}").contains("to-ken_"));
        }
    }
}
