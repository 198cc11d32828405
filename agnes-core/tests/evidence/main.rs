//! Evidence that queries hold: what is honest works, what is not stays out, and nothing of
//! what a caller may not read shows. `docs/security/query-sandbox.md` says which test proves
//! what.

#![allow(clippy::unwrap_used)]

mod attack;
mod canary;
mod fuzz;
mod honest;
mod oracle;
mod support;
