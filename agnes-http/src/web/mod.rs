//! What pages need beside their content: a frame to look at, forms that only our own pages
//! send, cookies, redirects that never leave the site.

pub(crate) mod assets;
mod form;
mod page;
mod visit;

pub(crate) use form::{Body, Form, MaybeForm};
pub(crate) use page::{Page, banner, error_page, field, hidden, message};
pub(crate) use visit::{Origin, Visit, begin_session, encoded, is_https, landing, redirect, session_gone};
