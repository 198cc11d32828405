//! The sources Agnes reads. Each is one folder that satisfies core's
//! [`Connector`](agnes_core::connector::Connector). Beside them, how mails leave, the directory of
//! groups, the HTTP client ([`outbound`]) that they and the frontends share, and the client of an
//! Agnes server ([`server`]).

pub mod bigquery;
mod calls;
pub mod files;
pub mod git;
pub mod jira;
pub mod keboola;
pub mod mail;
pub mod outbound;
pub mod server;
pub mod sql;
mod watch;
pub mod workspace;

use agnes_core::config::Config;
use agnes_core::connector::{ConnectorRegistry, SourceContext};

use outbound::{Outbound, Rules};

/// All connectors of this build; they call public addresses only.
#[must_use]
pub fn builtin() -> ConnectorRegistry {
    builtin_for(&Config::default())
}

/// All connectors of this build; they call public addresses, and hosts that `config` names.
#[must_use]
pub fn builtin_for(config: &Config) -> ConnectorRegistry {
    let outbound = Outbound::new(Rules::default().allowing(&config.allowed_private_hosts));
    ConnectorRegistry::new()
        .with(files::FilesConnector::new())
        .with(bigquery::BigQueryConnector::new(outbound.clone()))
        .with(jira::JiraConnector::new(outbound.clone()))
        .with(keboola::KeboolaConnector::new(outbound))
        .with(sql::SqlConnector::postgres())
        .with(sql::SqlConnector::mysql())
        .with(sql::SqlConnector::sqlite())
}

/// Whether the operator listed the host of an address, or it is one of the vendor's own, which end
/// in `vendor`.
fn is_listed(address: &str, source: &SourceContext, vendor: &str) -> bool {
    let Ok(url) = url::Url::parse(address) else { return false };
    let Some(host) = url.host_str() else { return false };
    let with_port = url.port().map(|port| format!("{host}:{port}"));
    let is_it = |listed: &String| {
        let listed = listed.to_ascii_lowercase();
        listed == host || with_port.as_ref() == Some(&listed)
    };
    let is_vendors = url.scheme() == "https" && with_port.is_none() && host.ends_with(vendor);
    is_vendors || source.attach.hosts.iter().any(is_it)
}
