//! People and groups: who exists, who is active, who belongs where, what is granted to whom;
//! how they prove who they are, and what they ask for.

mod bootstrap;
mod codes;
mod credentials;
mod grants;
mod groups;
mod password;
mod recovery;
mod requests;
mod service;
mod session;
mod sign_in;
mod sign_in_error;
mod sign_in_password;
mod token;
mod tokens;
mod users;
mod uses;

pub use bootstrap::{FirstAdmin, Startup};
pub use codes::{DesktopToken, NewCode};
pub use credentials::*;
pub use grants::*;
pub use groups::*;
pub use password::{LONGEST_PASSWORD, SHORTEST_PASSWORD};
pub use recovery::BreakGlass;
pub use requests::*;
pub(crate) use service::resolve;
pub use service::*;
pub(crate) use sign_in::SignInState;
pub use sign_in::{Me, MyGroup, SESSION_LIFETIME, Session, SignIn};
pub use sign_in_error::SignInError;
pub use sign_in_password::{Letter, SignedIn};
pub use token::*;
pub use tokens::{NewToken, TokenError, TokenLife, Tokens};
pub use users::*;
