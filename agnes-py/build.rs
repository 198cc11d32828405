//! Lets the module find the DuckDB library that the wheel carries.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => {
            println!("cargo::rustc-link-arg-cdylib=-Wl,-rpath,@loader_path/lib");
            // Python's own symbols are there once Python loads the module.
            println!("cargo::rustc-link-arg-cdylib=-Wl,-undefined,dynamic_lookup");
        }
        _ => println!("cargo::rustc-link-arg-cdylib=-Wl,-rpath,$ORIGIN/lib"),
    }
}
