//! Mails by the SendGrid API, against a server that checks what that service checks.

use std::time::Duration;

use agnes_connectors::mail::SendGrid;
use agnes_core::config::EmailConfig;
use agnes_core::error::Coded as _;
use agnes_core::mail::{Mail, Mailer as _};
use agnes_core::secret::Secret;
use serde_json::{Value, json};

use super::peer::{Peer, Table, answer, client};

fn mail() -> Mail {
    Mail {
        to: "ann@acme.example".into(),
        name: Some("Ann \"A\" Ž".into()),
        subject: "Sign in to Acme".into(),
        text: Secret::new("go to https://agnes.example/?token=t0ken\n"),
        html: Secret::new("<a href=\"https://agnes.example/?token=t0ken\">go</a>"),
    }
}

fn config() -> EmailConfig {
    EmailConfig {
        sendgrid_key: Some(Secret::new("SG.k3y")),
        from: Some("agnes@acme.example".into()),
        from_name: Some("Acme".into()),
        ..EmailConfig::default()
    }
}

fn by(peer: &Peer) -> SendGrid {
    SendGrid::new(&config(), client(Table::default())).unwrap().at(peer.url("good.example", ""))
}

#[tokio::test]
async fn a_mail_is_handed_over_as_it_is() {
    let peer = Peer::saying(answer(202, "", ""));
    by(&peer).send(&mail()).await.unwrap();
    let sent = peer.requests().remove(0);
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v3/mail/send HTTP/1.1\r\n") && head.contains("Bearer SG.k3y"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["personalizations"], json!([{"to": [{"email": "ann@acme.example", "name": "Ann \"A\" Ž"}]}]));
    assert_eq!(body["from"], json!({"email": "agnes@acme.example", "name": "Acme"}));
    assert_eq!(body["content"][0], json!({"type": "text/plain", "value": mail().text.expose()}));
    assert_eq!(body["content"][1]["type"], "text/html");
    assert_eq!(body["tracking_settings"]["click_tracking"], json!({"enable": false, "enable_text": false}));
}

#[tokio::test]
async fn what_the_service_refuses_is_told_apart_and_sent_once() {
    for (status, code) in [
        (400, "mail_refused"),
        (401, "mail_sign_in_refused"),
        (403, "mail_refused"),
        (413, "mail_refused"),
        (429, "mail_unreachable"),
        (503, "mail_unreachable"),
        (302, "mail_refused"),
    ] {
        let peer = Peer::new(move |_, _| (Duration::ZERO, answer(status, "", "{\"errors\": []}")));
        let error = by(&peer).send(&mail()).await.unwrap_err();
        assert_eq!(error.code(), code, "{status}");
        assert_eq!(peer.requests().len(), 1, "{status}: a mail must not come twice");
    }
    let nowhere = SendGrid::new(&config(), client(Table::default())).unwrap().at("http://10.0.0.1");
    assert_eq!(nowhere.send(&mail()).await.unwrap_err().code(), "mail_setup_invalid");
    assert!(!format!("{nowhere:?}").contains("k3y"));
    for wrong in [EmailConfig { from: None, ..config() }, EmailConfig { sendgrid_key: None, ..config() }] {
        let error = SendGrid::new(&wrong, client(Table::default())).unwrap_err();
        assert_eq!(error.code(), "mail_setup_invalid");
    }
}
