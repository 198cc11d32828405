//! An Agnes server, seen from outside: for the command line, and for programs.
//!
//! [`ServerClient`] asks it, [`Served`] says how a [`Verb`](agnes_core::local::Verb) of a data folder
//! is asked of a server, [`Place`] is either of the two, [`Account`] is what is kept of somebody who signed in. The server is the one
//! that its user named, on whatever network: the rules of [`outbound`](crate::outbound) about
//! addresses are for servers that act for others.

mod account;
mod call;
mod client;
mod error;
mod keyring;
mod origin;
mod place;
mod release;
mod rows;
mod scan;
mod verbs;

pub use account::{Account, Kept, TokenFrom, TokenStore};
pub use call::Call;
pub use client::{Answer, ServerClient, ServerOptions};
pub use error::ServerError;
pub use place::Place;
pub use release::{Latest, Piece};
pub use reqwest::Method;
pub use verbs::{Served, Told};
