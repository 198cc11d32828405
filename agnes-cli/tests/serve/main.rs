//! The server as operators run it: the built binary over loopback.

#![allow(clippy::unwrap_used)]

mod access;
mod afar;
mod arriving;
mod audit;
mod basics;
mod beside;
mod bigquery;
mod browser;
mod catalog;
mod contract;
mod crooked;
mod data;
mod described;
mod distribution;
mod documents;
mod elsewhere;
mod figures;
mod first_contact;
#[cfg(target_os = "linux")]
mod full;
mod fuzz;
mod gits;
#[path = "../../../agnes-connectors/tests/bigquery/google.rs"]
#[allow(dead_code)]
mod google;
mod governing;
mod health;
mod initial;
mod jira;
#[path = "../../../agnes-connectors/tests/jira/fake.rs"]
#[allow(dead_code)]
mod jira_site;
mod keboola;
#[cfg(target_os = "linux")]
mod keyring;
#[cfg(target_os = "linux")]
mod kills;
mod laptop;
mod mailbox;
mod mails;
mod matrix;
mod mcp;
#[cfg(target_os = "linux")]
mod neighbours;
mod oauth;
mod pages;
mod people;
mod process;
mod pulls;
mod query;
mod registry;
mod requests;
mod running;
mod scan;
mod scheduler;
mod see_as;
mod settings;
#[cfg(unix)]
mod shell;
mod sign_in;
mod slow;
mod snapshots;
mod texts;
mod uploads;
mod visible;
mod visitor;
#[cfg(target_os = "linux")]
mod workers;
mod workspace;
mod world;

/// The Storage API that the connector's own tests hold to the vendor's client.
#[allow(dead_code)]
#[path = "../../../agnes-connectors/tests/keboola/fake/mod.rs"]
mod fake;
#[allow(dead_code)]
#[path = "../../../agnes-connectors/tests/keboola/wire.rs"]
mod wire;
