//! Finds the configuration: flag, then environment, then the usual place, then defaults.

use std::path::PathBuf;

use agnes_core::config::{Config, LoadOptions};
use agnes_core::layout::DataFolder;

use crate::args::Global;
use crate::output::Output;

/// The configuration of this command line; what should be said about it goes to standard error.
pub(crate) fn load(global: &Global, folder: &DataFolder) -> agnes_core::Result<Config> {
    let loaded = Config::load(&LoadOptions {
        file: Some(place(global)),
        overlay: Some(folder.config_overlay()),
        env: &|name| std::env::var(name).ok(),
        lenient: global.lenient_config,
    })?;
    let out = Output::new(global);
    for warning in &loaded.warnings {
        out.warn(warning);
    }
    Ok(loaded.config)
}

/// `--config`, else `$CONFIG_DIR/instance.yaml`, else `./config/instance.yaml`.
fn place(global: &Global) -> PathBuf {
    let usual = || {
        let folder =
            std::env::var_os("CONFIG_DIR").filter(|v| !v.is_empty()).map_or_else(|| "config".into(), PathBuf::from);
        folder.join("instance.yaml")
    };
    global.config.clone().unwrap_or_else(usual)
}
