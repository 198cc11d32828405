//! What there is to ask, and about one table.

use clap::Args;

use super::AsUser;

#[derive(Debug, Args)]
pub(crate) struct CatalogArgs {
    /// Ask anew; every answer is
    #[arg(long, hide = true)]
    pub(crate) refresh: bool,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// The table
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// The table
    pub(crate) table: String,
    /// How many rows
    #[arg(short = 'n', long = "rows", default_value_t = 5)]
    pub(crate) rows: usize,
    #[command(flatten)]
    pub(crate) who: AsUser,
}

#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    /// The table
    pub(crate) table: String,
    /// Make it again from the data
    #[arg(long)]
    pub(crate) refresh: bool,
    #[command(flatten)]
    pub(crate) who: AsUser,
}
