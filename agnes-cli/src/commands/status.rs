//! `agnes status`: what is in this workspace.

use serde_json::json;

use crate::app::App;
use crate::failure::Outcome;
use crate::output::text::{bytes, plural, safe, time};
use crate::place;

pub(super) async fn run(app: &App) -> Outcome {
    let Ok(workspace) = place::here() else {
        let told = json!({
            "workspace": null, "initialized": false, "server": app.account.server()?, "parquet_tables": 0,
            "duckdb_exists": false, "last_synced": null, "sessions_pending_upload": 0, "hooks_installed": false,
        });
        app.out.show(&told, |out| Ok(writeln!(out, "this folder is not a workspace")?))?;
        app.out.hint("`agnes init` makes one");
        return Ok(());
    };
    let state = workspace.state()?;
    let size: u64 = state.tables.values().map(|table| table.size_bytes).sum();
    let told = json!({
        "workspace": workspace.root(),
        "initialized": workspace.is_initialized(),
        "server": state.server,
        "email": state.email,
        "parquet_tables": state.tables.len(),
        "bytes": size,
        "duckdb_exists": workspace.database().is_file(),
        "last_synced": state.last_sync,
        "generation": state.generation,
        "signed": state.public_key.is_some(),
        "lazy": state.lazy,
        "not_here": state.known.keys().collect::<Vec<_>>(),
        "sessions_pending_upload": workspace.pending_sessions(),
        "hooks_installed": workspace.has_hooks(),
    });
    app.out.show(&told, |out| {
        let signed = if state.public_key.is_some() { ", signed" } else { "" };
        let lines = [
            ("workspace", safe(&workspace.root().to_string_lossy())),
            ("server", safe(&state.server)),
            ("who", safe(&state.email)),
            ("tables", format!("{}, {}", plural(state.tables.len(), "table"), bytes(size))),
            ("data of", format!("generation {}{signed}, pulled {}", state.generation, time(state.last_sync))),
        ];
        for (name, value) in lines {
            writeln!(out, "{name:<10} {value}")?;
        }
        if !state.known.is_empty() {
            let names: Vec<String> = state.known.keys().map(|name| safe(name)).collect();
            writeln!(out, "{:<10} {}", "not here", names.join(", "))?;
        }
        Ok(())
    })
}
