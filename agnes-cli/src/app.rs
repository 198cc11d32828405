//! What every command has at hand: the data folder's door, who calls, where output goes.

use std::path::PathBuf;
use std::sync::Arc;

use agnes_connectors::outbound::{Outbound, Rules};
use agnes_connectors::server::{Account, Place, Served, ServerClient, Told};
use agnes_core::connector::Progress;
use agnes_core::local::{Caller, Door, Rows, Verb};
use agnes_core::query::Query;
use agnes_core::rbac::ClientKind;
use agnes_core::{Engine, EngineBuilder};
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::args::{AsUser, Global, Yes};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::place::{self, Meant};

/// What every command has at hand.
pub(crate) struct App {
    pub(crate) global: Global,
    pub(crate) out: Output,
    pub(crate) account: Account,
    /// Whether the command has nothing to do in a data folder that is not there yet.
    only_reads: bool,
    caller: Caller,
    door: OnceCell<Arc<Door>>,
}

impl App {
    pub(crate) fn new(global: Global, only_reads: bool) -> Self {
        let out = Output::new(&global);
        let account = Account::of_user(&place::variable);
        Self { global, out, account, only_reads, caller: Caller::owner(ClientKind::Cli), door: OnceCell::new() }
    }

    /// How this command line opens the data folder, apart from its configuration.
    fn builder(global: &Global) -> EngineBuilder {
        let mut builder = Engine::builder(global.folder()).connectors(agnes_connectors::builtin());
        if let Some(state) = folder_variable("STATE_DIR") {
            builder = builder.state_dir(state);
        }
        if let Some(scratch) = folder_variable("AGNES_TEMP_DIR") {
            builder = builder.scratch(scratch);
        }
        builder
    }

    /// Where the data folder's files are.
    pub(crate) fn folder(&self) -> agnes_core::layout::DataFolder {
        Self::builder(&self.global).folder().clone()
    }

    /// The server, when the command runs at one.
    pub(crate) fn at_server(&self) -> Outcome<Option<ServerClient>> {
        match place::meant(&self.global, &self.account)? {
            Meant::Folder => Ok(None),
            Meant::Server { address, .. } => Ok(Some(place::client(&address, None, &self.account)?)),
        }
    }

    /// The server of a command that needs one.
    pub(crate) fn server(&self) -> Outcome<ServerClient> {
        place::client(&place::address(&self.global, &self.account)?, None, &self.account)
    }

    /// Asks for one verb, of the data folder or the server.
    pub(crate) fn ask<V: Served>(&self, verb: V) -> BoxFuture<'_, Outcome<Told<V::Reply>>> {
        self.ask_as(verb, &AsUser { as_user: None })
    }

    /// Asks for one verb as the user `--as` names, of the data folder or the server.
    pub(crate) fn ask_as<V: Served>(&self, verb: V, who: &AsUser) -> BoxFuture<'_, Outcome<Told<V::Reply>>> {
        let as_user = who.as_user.clone();
        // Boxed: nested, the compiler cannot see that it may be sent.
        Box::pin(async move {
            let place = match self.at_server()? {
                Some(server) => Place::server(server),
                None => Place::Folder(self.shared_door().await?),
            };
            let caller = self.caller.acting_as(as_user.as_deref());
            Ok(place.ask(verb, &caller, Progress::default()).await?)
        })
    }

    /// The data folder, opened when first asked for.
    pub(crate) async fn door(&self) -> Outcome<&Door> {
        self.opened().await.map(Arc::as_ref)
    }

    /// The data folder, for what goes on asking it.
    pub(crate) async fn shared_door(&self) -> Outcome<Arc<Door>> {
        self.opened().await.cloned()
    }

    async fn opened(&self) -> Outcome<&Arc<Door>> {
        if let Some(server) = &self.global.server {
            let what = format!("this works on a data folder, not at `{server}`");
            return Err(Failure::usage_hint(what, "run it where the data folder is, with `--data-dir`"));
        }
        if let Some(file) = self.global.config.as_ref().filter(|file| !file.exists()) {
            return Err(Failure::usage(format!("there is no configuration file `{}`", file.display())));
        }
        if self.only_reads && self.global.named_folder().is_none() && !self.global.folder().exists() {
            return Err(Failure::usage_hint(
                "there is no data folder `./data`, no workspace around and no server named",
                "`agnes init` sets up a workspace, `agnes source add` begins a data folder, `--data-dir` and `--server` name one",
            ));
        }
        let opened = self.door.get_or_try_init(|| async {
            // Read once: a warning is told once, however often the folder is tried.
            let folder = Self::builder(&self.global).folder().clone();
            let (config, files) = crate::config::load(&self.global, &folder)?;
            let global = self.global.clone();
            let secrets = Arc::new(files.environment);
            let builder = move || {
                let connectors = agnes_connectors::builtin_for(&config);
                Self::builder(&global).for_one_command().connectors(connectors).config(config.clone())
            };
            Door::open(move || Ok(builder().secrets(secrets.clone()))).await.map(Arc::new)
        });
        Ok(opened.await?)
    }

    /// The engine of the data folder, held by this process as long as it serves others.
    pub(crate) async fn hold(&self) -> Outcome<Engine> {
        if let Some(file) = self.global.config.as_ref().filter(|file| !file.exists()) {
            return Err(Failure::usage(format!("there is no configuration file `{}`", file.display())));
        }
        let builder = Self::builder(&self.global);
        let (config, files) = crate::config::load(&self.global, builder.folder())?;
        let secrets = Arc::new(files.environment.clone());
        let rules = Outbound::new(Rules::default().allowing(&config.allowed_private_hosts));
        let builder = builder.connectors(agnes_connectors::builtin_for(&config));
        let builder = builder.config(config).secrets(secrets).config_files(files);
        let builder = builder.mailer_of(agnes_connectors::mail::mailer);
        let git = agnes_connectors::git::Git::new(rules.clone(), &place::variable);
        Ok(builder.repositories(git.shared()).address_rules(Arc::new(rules)).open().await?)
    }

    /// Asks for one verb of the data folder, as its owner.
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
