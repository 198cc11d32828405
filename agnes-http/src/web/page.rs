//! The frame of every page.

use agnes_core::identity::Me;
use axum::body::Body;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, SET_COOKIE};
use axum::http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, html};

use super::{Visit, assets};
use crate::problem::Problem;
use crate::state::App;

/// A page, before it is written.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    body: Markup,
    status: StatusCode,
    cookie: Option<HeaderValue>,
    /// Who is signed in, and the value of the form that signs them out.
    who: Option<(String, String)>,
    /// Where its forms may lead, beside this server.
    form_target: Option<String>,
}

impl Page {
    /// A page with this title and content.
    pub(crate) fn new(title: impl Into<String>, body: Markup) -> Self {
        let title = title.into();
        Self { title, body, status: StatusCode::OK, cookie: None, who: None, form_target: None }
    }

    /// Answers with this status.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Has forms: the browser gets what they have to repeat.
    pub(crate) fn with_forms(mut self, visit: &Visit) -> Self {
        self.cookie = visit.form_cookie();
        self
    }

    /// Says who is signed in, with a way to sign out.
    pub(crate) fn signed_in(mut self, visit: &Visit, me: &Me) -> Self {
        self.who = Some((me.email.clone(), visit.form_token().to_owned()));
        self.with_forms(visit)
    }

    /// Its forms lead to this origin of the same machine.
    pub(crate) fn form_target(mut self, origin: String) -> Self {
        self.form_target = Some(origin);
        self
    }

    /// The whole answer.
    pub(crate) fn render(self, app: &App) -> Response<Body> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let config = app.engine().live_config();
        let site = &config.site;
        let is_dev = app.engine().config().dev.is_some();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="robots" content="noindex";
                    title { (self.title) " · " (site.product) }
                    link rel="icon" type="image/svg+xml" href=(assets::icon());
                    link rel="stylesheet" href=(assets::style());
                    @if let Some(theme) = assets::theme_of(site) { link rel="stylesheet" href=(theme); }
                    script src=(assets::script()) nonce=(nonce) defer {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    @if is_dev {
                        p.banner role="note" {
                            strong { "Development mode." } " Nobody has to sign in: everybody who reaches this server is an Admin."
                        }
                    }
                    header.top {
                        a.brand href="/" { img src=(assets::mark_of(site)) alt="" width="28" height="28"; span { (site.product) } }
                        @if let Some((email, token)) = &self.who {
                            form.who method="post" action="/auth/logout" {
                                span { (email) }
                                (hidden("csrf_token", token))
                                button.quiet type="submit" { "Sign out" }
                            }
                        }
                    }
                    main id="main" { (self.body) }
                    footer {
                        @if let Some(subtitle) = &site.subtitle { (subtitle) " · " }
                        "Agnes " (env!("CARGO_PKG_VERSION"))
                    }
                }
            }
        };
        let mut response = Response::new(Body::from(page.into_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        let target = self.form_target.map(|target| format!(" {target}")).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src 'self'; script-src 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; \
             form-action 'self'{target}; base-uri 'none'; frame-ancestors 'none'"
        );
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        if let Some(cookie) = self.cookie {
            headers.append(SET_COOKIE, cookie);
        }
        response
    }
}

/// A field that nobody sees.
pub(crate) fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// A labelled field. A password can be shown.
pub(crate) fn field(
    label: &str,
    name: &str,
    kind: &str,
    autocomplete: &str,
    value: &str,
    hint: Option<&str>,
) -> Markup {
    let hint_id = format!("{name}-hint");
    let is_password = kind == "password";
    let is_new = autocomplete == "new-password";
    html! {
        div.field {
            label for=(name) { (label) }
            div.input {
                input id=(name) name=(name) type=(kind) autocomplete=(autocomplete) value=(value)
                    required[name != "name"] minlength=[is_new.then_some("8")]
                    aria-describedby=[hint.map(|_| hint_id.as_str())] spellcheck="false" autocapitalize="none";
                @if is_password {
                    button.quiet type="button" data-shows=(name) aria-pressed="false" hidden { "Show" }
                }
            }
            @if let Some(hint) = hint { p.hint id=(hint_id) { (hint) } }
        }
    }
}

/// Something to tell above a form.
pub(crate) fn message(is_error: bool, text: &str) -> Markup {
    html! { p.message.error[is_error] role=(if is_error { "alert" } else { "status" }) { (text) } }
}

/// Something everybody should see first.
pub(crate) fn banner(content: &Markup) -> Markup {
    html! { div.notice role="note" { (content) } }
}

/// The page of a request that failed.
pub(crate) fn error_page(app: &App, problem: &Problem, path: &str, request_id: &str) -> Response<Body> {
    let title = problem.status().canonical_reason().unwrap_or("Error");
    let body = html! {
        section.card {
            p.code { (problem.status().as_u16()) }
            h1 { (title) }
            p { (problem.sentence()) }
            @if let Some(hint) = problem.hint_text() { p.hint { (hint) } }
            dl.facts {
                dt { "Code" } dd { code { (problem.code()) } }
                dt { "Address" } dd { code { (path) } }
                dt { "Reference" } dd { code { (request_id) } }
            }
            p { a.button href="/" { "Go to the start page" } }
        }
    };
    Page::new(title, body).status(problem.status()).render(app)
}
