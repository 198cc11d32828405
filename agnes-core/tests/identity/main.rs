//! Who is calling: signing in, tokens, sessions, the first Admin, access requests; on both stores.
#![allow(clippy::unwrap_used)]

mod first_admin;
mod groups;
mod passwords;
mod requests;
mod sessions;
mod support;
mod tokens;
