//! What `/metrics` tells of queries.

use super::running::{ENDLESS, leave_running, wait_for};
use super::world::World;

#[test]
fn queries_that_run_and_those_without_a_row_are_counted() {
    let world = World::start();
    let ask = |sql: &str| leave_running(&world, "member", "text/csv", sql);
    wait_for(&world, 0, 0);
    let without_rows = ask(ENDLESS);
    wait_for(&world, 1, 1);
    let with_rows = ask("select i, i * 7 as n from range(10000000000000) a(i)");
    wait_for(&world, 2, 1);
    drop(without_rows);
    wait_for(&world, 1, 0);
    drop(with_rows);
    wait_for(&world, 0, 0);
}
