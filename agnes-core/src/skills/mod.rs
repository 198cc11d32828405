//! Guides that the program carries, for people and their assistants: read by name, without a server.

/// A guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skill {
    /// Its name, e.g. `connectors`.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub description: &'static str,
    /// The guide: Markdown.
    pub text: &'static str,
}

/// Every guide, by name.
///
/// ```
/// let connectors = agnes_core::skills::named("connectors").unwrap();
/// assert!(connectors.text.starts_with("# "));
/// assert!(agnes_core::skills::ALL.contains(connectors));
/// ```
pub static ALL: [Skill; 7] = [
    skill("agnes-data-querying", "how to ask the data", include_str!("agnes-data-querying.md")),
    skill("agnes-table-registration", "tables and who may read them", include_str!("agnes-table-registration.md")),
    skill("connectors", "where data comes from", include_str!("connectors.md")),
    skill("deploy", "running a server", include_str!("../../../docs/guides/serve.md")),
    skill("security", "row filters, masks, hidden columns", include_str!("../../../docs/guides/policies.md")),
    skill("setup", "the first day of a server", include_str!("setup.md")),
    skill("troubleshoot", "when something is wrong", include_str!("troubleshoot.md")),
];

const fn skill(name: &'static str, description: &'static str, text: &'static str) -> Skill {
    Skill { name, description, text }
}

/// The guide of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Skill> {
    ALL.iter().find(|skill| skill.name == name)
}

/// The names of all guides, as a sentence lists them.
#[must_use]
pub fn names() -> String {
    ALL.each_ref().map(|skill| skill.name).join(", ")
}
