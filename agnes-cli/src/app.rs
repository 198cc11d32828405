//! What every command has at hand: the data folder's door, who calls, where output goes.

use std::path::PathBuf;

use agnes_core::connector::Progress;
use agnes_core::local::{Caller, Door, Rows, Verb};
use agnes_core::query::Query;
use agnes_core::rbac::ClientKind;
use agnes_core::{Engine, EngineBuilder};
use tokio::sync::OnceCell;

use crate::args::{AsUser, Global, Yes};
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// What every command has at hand.
pub(crate) struct App {
    pub(crate) global: Global,
    pub(crate) out: Output,
    caller: Caller,
    door: OnceCell<Door>,
}

impl App {
    pub(crate) fn new(global: Global) -> Self {
        let out = Output::new(&global);
        Self { global, out, caller: Caller::owner(ClientKind::Cli), door: OnceCell::new() }
    }

    /// How this command line opens the data folder, apart from its configuration.
    fn builder(global: &Global) -> EngineBuilder {
        let mut builder = Engine::builder(&global.data_dir).connectors(agnes_connectors::builtin());
        if let Some(state) = folder_variable("STATE_DIR") {
            builder = builder.state_dir(state);
        }
        if let Some(scratch) = folder_variable("AGNES_TEMP_DIR") {
            builder = builder.scratch(scratch);
        }
        builder
    }

    /// The data folder, opened when first asked for.
    pub(crate) async fn door(&self) -> Outcome<&Door> {
        if let Some(file) = self.global.config.as_ref().filter(|file| !file.exists()) {
            return Err(Failure::usage(format!("there is no configuration file `{}`", file.display())));
        }
        let opened = self.door.get_or_try_init(|| async {
            // Read once: a warning is told once, however often the folder is tried.
            let folder = Self::builder(&self.global).folder().clone();
            let config = crate::config::load(&self.global, &folder)?;
            let global = self.global.clone();
            Door::open(move || Ok(Self::builder(&global).for_one_command().config(config.clone()))).await
        });
        Ok(opened.await?)
    }

    /// The engine of the data folder, held by this process as long as it serves others.
    pub(crate) async fn hold(&self) -> Outcome<Engine> {
        if let Some(file) = self.global.config.as_ref().filter(|file| !file.exists()) {
            return Err(Failure::usage(format!("there is no configuration file `{}`", file.display())));
        }
        let builder = Self::builder(&self.global);
        let config = crate::config::load(&self.global, builder.folder())?;
        Ok(builder.config(config).open().await?)
    }

    /// Asks for one verb as the owner of the folder.
    pub(crate) async fn call<V: Verb>(&self, verb: V) -> Outcome<V::Reply> {
        self.call_with(verb, Progress::default()).await
    }

    /// Asks for one verb that reports progress.
    pub(crate) async fn call_with<V: Verb>(&self, verb: V, progress: Progress) -> Outcome<V::Reply> {
        Ok(self.door().await?.call(verb, &self.caller, progress).await?)
    }

    /// Asks for one verb as the user `--as` names.
    pub(crate) async fn call_as<V: Verb>(&self, verb: V, who: &AsUser) -> Outcome<V::Reply> {
        let caller = self.caller.acting_as(who.as_user.as_deref());
        Ok(self.door().await?.call(verb, &caller, Progress::default()).await?)
    }

    /// Asks a query as the user `--as` names.
    pub(crate) async fn query_as(&self, query: Query, who: &AsUser) -> Outcome<Rows> {
        let caller = self.caller.acting_as(who.as_user.as_deref());
        Ok(self.door().await?.query(query, &caller).await?)
    }

    /// Asks before something is lost; without a terminal, `--yes` has to be given.
    pub(crate) fn confirm(&self, yes: &Yes, what: &str) -> Outcome {
        if yes.yes {
            return Ok(());
        }
        if !self.out.can_ask() {
            return Err(Failure::usage_hint(format!("{what}: this needs a confirmation"), "add `--yes`"));
        }
        if self.out.ask(&format!("{what}? [y/N] "))? { Ok(()) } else { Err(Failure::usage("nothing was changed")) }
    }

    /// Lets go of the data folder.
    pub(crate) async fn close(&self) -> Outcome {
        match self.door.get() {
            Some(door) => Ok(door.close().await?),
            None => Ok(()),
        }
    }
}

fn folder_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
