//! Ports for servers that tests start as processes of their own.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The ports handed out: below what Linux (32768) and macOS (49152) give to whoever asks for
/// any port, so that neither a listener on port 0 nor an outgoing connection takes one between
/// the look and the use.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A TCP port of this computer at which nobody listens, never given twice in one process.
/// Processes begin at different places.
///
/// # Panics
/// If all of the ports are taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(101);
    (0..COUNT)
        .map(|_| {
            let turn = start.wrapping_add(u32::from(NEXT.fetch_add(1, Ordering::Relaxed)));
            // The remainder is below `COUNT`.
            FIRST + u16::try_from(turn % u32::from(COUNT)).unwrap_or_default()
        })
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .unwrap_or_else(|| panic!("no port from {FIRST} on is free"))
}
