//! Finds the configuration: flag, then environment, then the usual place, then defaults.

use std::path::PathBuf;

use agnes_core::config::{Config, Environment, LoadOptions};
use agnes_core::layout::DataFolder;
use agnes_core::settings::ConfigFiles;

use crate::args::Global;
use crate::output::Output;

/// The configuration of this command line, and what it was read from; what should be said about
/// it goes to standard error.
pub(crate) fn load(global: &Global, folder: &DataFolder) -> agnes_core::Result<(Config, ConfigFiles)> {
    let environment = environment(folder)?;
    let files = ConfigFiles { file: place(global), environment, lenient: global.lenient_config };
    let loaded = Config::load(&LoadOptions {
        file: Some(files.file.clone()),
        overlay: Some(folder.config_overlay()),
        env: &|name| files.environment.var(name),
        lenient: files.lenient,
    })?;
    let out = Output::new(global);
    for warning in &loaded.warnings {
        out.warn(warning);
    }
    Ok((loaded.config, files))
}

/// Variables of the process, with secrets over them that were entered while the server ran.
/// `AGNES_ENV_FILE`, else `.env` in the working folder, is where they come from.
pub(crate) fn environment(folder: &DataFolder) -> agnes_core::Result<Environment> {
    let file = std::env::var_os("AGNES_ENV_FILE").filter(|file| !file.is_empty());
    let file = file.map_or_else(|| ".env".into(), PathBuf::from);
    Environment::load(folder, |name| std::env::var(name).ok(), Some(&file))
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
