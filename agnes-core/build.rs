//! Says in plain words that the DuckDB library is missing, long before the linker would.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    let Some(folder) = std::env::var_os("DUCKDB_LIB_DIR") else { return };
    if std::env::var_os("CARGO_FEATURE_BUNDLED").is_some() {
        return;
    }
    let folder = Path::new(&folder);
    let files = ["libduckdb.so", "libduckdb.dylib", "libduckdb_static.a", "duckdb.lib"].map(|file| folder.join(file));
    let there: Vec<_> = files.iter().filter(|file| file.exists()).collect();
    // A file that is missing would count as changed at every build.
    for file in &there {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    if there.is_empty() {
        println!("cargo::error=the DuckDB library is not in {}", folder.display());
        println!(
            "cargo::error=run `make duckdb`, or build it from source with `--features bundled` (20 minutes or more)"
        );
    }
}
