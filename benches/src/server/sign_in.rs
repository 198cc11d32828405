//! Whether the time of a refusal tells who has an account.

use serde_json::json;

use super::load::{Asked, Client};
use super::process::Server;
use super::{Fallible, PEOPLE, person, row};
use crate::measure::{Row, median, show};

/// Signs in with a wrong password and as somebody unknown, in turn, and compares the times by
/// the rank test of Mann and Whitney: beyond 3.3 standard deviations one in a thousand runs is
/// chance.
pub(super) async fn timing(server: &Server, tries: usize) -> Fallible<Row> {
    let mut client = Client::connect(server.address).await?;
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for number in 0..tries {
        // Few tries of each: an account that is guessed at is slowed down, known or not.
        let mut pair =
            [(person(number % PEOPLE), &mut wrong), (format!("x{}@acme.example", number % PEOPLE), &mut unknown)];
        // In no fixed order: what the server does now and then must not meet one kind more often.
        if (number as u32).wrapping_mul(0x9E37_79B1) >> 31 == 1 {
            pair.reverse();
        }
        for (email, times) in pair {
            let body = json!({"email": email, "password": "not the password"});
            let reply = client.expect(&Asked::post("/auth/token", None, &body), 401).await?;
            times.push(reply.took);
        }
    }
    let mut ranked: Vec<_> = wrong.iter().map(|t| (*t, true)).chain(unknown.iter().map(|t| (*t, false))).collect();
    ranked.sort_unstable();
    let n = tries as f64;
    let ranks: f64 =
        ranked.iter().enumerate().filter(|(_, (_, is_wrong))| *is_wrong).map(|(rank, _)| rank as f64 + 1.0).sum();
    let u = ranks - n * (n + 1.0) / 2.0;
    let z = (u - n * n / 2.0) / (n * n * (2.0 * n + 1.0) / 12.0).sqrt();
    let (wrong, unknown) = (median(wrong), median(unknown));
    let told = format!("unknown: {}", show(unknown));
    Ok(row(
        "refusal of a wrong password and of an unknown person",
        show(wrong),
        told,
        format!("z = {z:.1}"),
        "3.3",
        z.abs() < 3.3,
    ))
}
