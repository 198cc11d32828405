//! The verbs: each is the engine method it names, as a value.

use serde_json::Value;

use super::{LocalError, Verb};
use crate::connector::Progress;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Makes a struct and a [`Verb`] of each line, and a table that finds them by name.
macro_rules! verbs {
    ($(
        $(#[$doc:meta])*
        $name:ident($wire:literal) { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? } -> $reply:ty
        = |$engine:ident, $ctx:ident, $progress:ident| $work:expr;
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type),* }

            impl Verb for $name {
                const NAME: &'static str = $wire;
                type Reply = $reply;

                async fn run(self, $engine: &Engine, $ctx: &CallContext, $progress: Progress) -> Result<$reply> {
                    let Self { $($field),* } = self;
                    let _ = &$progress;
                    $work.await
                }
            }
        )*

        /// Runs the verb of this name on the holder's side, and takes its arguments; none where there is
        /// no such verb here.
        pub(super) async fn dispatch(
            name: &str,
            args: &mut Value,
            engine: &Engine,
            ctx: &CallContext,
            progress: Progress,
        ) -> Option<Result<Value>> {
            Some(match name {
                $($wire => Box::pin(super::handle::<$name>(std::mem::take(args), engine, ctx, progress)).await,)*
                _ => return None,
            })
        }
    };
}

mod data;
mod people;

pub use data::*;
pub use people::*;

/// Runs the verb of this name on the holder's side.
pub(super) async fn dispatch(
    name: &str,
    mut args: Value,
    engine: &Engine,
    ctx: &CallContext,
    progress: Progress,
) -> Result<Value> {
    if let Some(done) = people::dispatch(name, &mut args, engine, ctx, progress.clone()).await {
        return done;
    }
    match data::dispatch(name, &mut args, engine, ctx, progress).await {
        Some(done) => done,
        None => Err(LocalError::UnknownVerb { verb: crate::ident::printable(name, 64) }.into()),
    }
}

async fn handle<V: Verb>(args: Value, engine: &Engine, ctx: &CallContext, progress: Progress) -> Result<Value> {
    let verb: V = serde_json::from_value(args).map_err(|e| LocalError::BadMessage { reason: e.to_string() })?;
    let reply = verb.run(engine, ctx, progress).await?;
    serde_json::to_value(reply).map_err(|e| Error::internal("encode a reply", e))
}
