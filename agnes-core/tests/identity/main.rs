//! Who is calling: signing in, tokens, sessions, the first Admin, access requests; on both stores.
#![allow(clippy::unwrap_used)]

mod external;
mod first_admin;
mod groups;
mod passwords;
mod people;
mod requests;
mod scheduler;
mod sessions;
mod support;
mod tokens;
