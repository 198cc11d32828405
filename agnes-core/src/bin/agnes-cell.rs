//! A worker for queries, for programs that cannot be one themselves: an embedder whose `main`
//! is not its own names this executable in `CellOptions::worker`.

fn main() {
    agnes_core::cell::serve_if_asked();
    eprintln!("`agnes-cell` is started by programs that embed Agnes");
    std::process::exit(2);
}
