//! The sources Agnes reads. Each is one folder that satisfies core's
//! [`Connector`](agnes_core::connector::Connector).

pub mod files;

use agnes_core::connector::ConnectorRegistry;

/// All connectors of this build.
#[must_use]
pub fn builtin() -> ConnectorRegistry {
    ConnectorRegistry::new().with(files::FilesConnector::new())
}
