//! What every route has at hand.

use std::sync::{Arc, OnceLock};

use agnes_connectors::outbound::{Outbound, Rules};
use agnes_connectors::workspace::WorkspaceDirectory;
use agnes_core::Engine;
use agnes_core::config::Config;
use agnes_core::distribution::Distribution;
use agnes_core::identity::Directory;

use crate::authority::KnownAuthority;
use crate::health::Health;
use crate::mcp::Turns;
use crate::meters::Meters;
use crate::oidc::Oidc;
use crate::rates::Rates;
use crate::routes::Unpacked;
use crate::server::Limits;

/// What every route has at hand; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    engine: Engine,
    health: Health,
    meters: Meters,
    rates: Rates,
    turns: Turns,
    documentation: Unpacked,
    distribution: Distribution,
    authority: KnownAuthority,
    limits: Limits,
    /// Identity providers that are set up.
    elsewhere: Vec<Oidc>,
    /// The company's directory of groups.
    directory: Option<WorkspaceDirectory>,
    /// Where it listens, once it does.
    bound: OnceLock<String>,
}

impl App {
    pub(crate) fn new(engine: Engine, limits: Limits) -> Self {
        let (health, meters) = (Health::probed(limits.probe_every), Meters::default());
        let rates = Rates::new(limits.sign_in_rates);
        let outbound = Outbound::new(Rules::default().allowing(&engine.config().allowed_private_hosts));
        let elsewhere = engine.config().oidc.iter().map(|one| Oidc::new(one.clone(), outbound.clone())).collect();
        let directory = directory(engine.config(), outbound);
        let (documentation, bound) = (Unpacked::default(), OnceLock::new());
        let (turns, distribution) = (Turns::default(), Distribution::in_folder(&limits.cli_archives));
        let inner = Inner {
            engine,
            health,
            meters,
            rates,
            turns,
            documentation,
            distribution,
            authority: KnownAuthority::default(),
            limits,
            elsewhere,
            directory,
            bound,
        };
        Self(Arc::new(inner))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    /// How often people's assistants asked.
    pub(crate) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// Identity providers that are set up, switched off ones among them.
    pub(crate) fn elsewhere(&self) -> &[Oidc] {
        &self.0.elsewhere
    }

    /// The company's directory of groups, where there is one to ask.
    pub(crate) fn directory(&self) -> Option<&dyn Directory> {
        self.0.directory.as_ref().map(|directory| directory as &dyn Directory)
    }

    /// Says where it listens.
    pub(crate) fn set_bound(&self, address: std::net::SocketAddr) {
        // Every interface is no address to go to: this machine is one of them.
        let ip = if address.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { address.ip() };
        let _ = self.0.bound.set(std::net::SocketAddr::new(ip, address.port()).to_string());
    }

    /// Host and port where it listens.
    pub(crate) fn bound(&self) -> &str {
        self.0.bound.get().map_or("localhost", String::as_str)
    }

    pub(crate) fn documentation(&self) -> &Unpacked {
        &self.0.documentation
    }

    /// The authority of the certificates that the proxy in front shows.
    pub(crate) fn authority(&self) -> &KnownAuthority {
        &self.0.authority
    }

    /// Archives of the command that are offered.
    pub(crate) fn distribution(&self) -> &Distribution {
        &self.0.distribution
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }
}

fn directory(config: &Config, outbound: Outbound) -> Option<WorkspaceDirectory> {
    let subject = config.directory.subject.clone()?;
    Some(WorkspaceDirectory::new(outbound, subject, config.directory.service_account.clone()))
}

/// The time, as [`time`] writes it.
pub(crate) fn now() -> String {
    time(chrono::Utc::now())
}

/// A time as every answer has it: RFC 3339 in UTC with `Z`, to the microsecond, in a form that
/// needs no escape in an address.
pub(crate) fn time(at: chrono::DateTime<chrono::Utc>) -> String {
    use chrono::SubsecRound as _;
    at.trunc_subsecs(6).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}
