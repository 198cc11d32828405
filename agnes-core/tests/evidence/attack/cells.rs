//! What must not get out of a worker process: without the parser wall, without that and the
//! engine wall, and of all the memory there is.

use agnes_core::cell::{CellOptions, Cells, Hooks};

use super::*;
use crate::support::alone;

/// Cells over the blobs of `target`.
fn cells(target: &Target, scratch: &Path, limits: QueryLimits, hooks: Hooks) -> Cells {
    let worker = env!("CARGO_BIN_EXE_agnes-cell").into();
    let blobs = target.at.folder.path().join("data");
    let mut options = CellOptions::new(worker, limits, scratch.to_owned(), vec![blobs]);
    options.grace = Duration::from_millis(500);
    options.warm = 2;
    options.hooks = hooks;
    Cells::start(options).unwrap()
}

/// Asks every attack, any statement and any number of them, of cells that leave out the
/// walls `hooks` say besides the parser's.
async fn attack_cells(hooks: Hooks) {
    let target = Target::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let cells = cells(&target, scratch.path(), limits(), hooks);
    let honest = || Checked::unguarded("SELECT customer, count(*), sum(amount) FROM orders GROUP BY ALL", &GRANTED);
    let neighbour = Arc::new(target.grant_set("neighbour"));
    let answer = run(&cells, neighbour.clone(), honest()).await.unwrap();
    let (before, mut wrong, mut ran) = (target.traces(), Vec::new(), 0);
    let (mut lives, mut set) = (0, Arc::new(target.grant_set("0")));
    for Attack { name, sql, .. } in &target.attacks {
        let outcome = run(&cells, set.clone(), Checked::unguarded(sql, &GRANTED)).await;
        ran += usize::from(outcome.is_ok());
        if outcome.is_ok() || sql.contains(';') || always_fresh() {
            // What was not refused may have changed the cell.
            lives += 1;
            set = Arc::new(target.grant_set(&lives.to_string()));
        }
        let through = from_outside(&outcome.unwrap_or_default()).map(str::to_owned);
        wrong.extend(through.or_else(|| target.touched(&before)).map(|how| format!("{name}: {how}: {sql}")));
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), target.attacks.len(), wrong.join("\n"));
    assert_eq!(run(&cells, neighbour, honest()).await.unwrap(), answer);
    // They were asked for real: statements that harm nobody but their cell do run.
    assert!(ran > 50, "{ran}");
    cells.close().await;
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_out_of_a_cell_without_the_parser_wall() {
    attack_cells(Hooks::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_out_of_a_cell_without_the_parser_and_the_engine_wall() {
    attack_cells(Hooks { no_engine_wall: true, ..Hooks::default() }).await;
}

/// Resident memory of a process, bytes; 0 where it has ended.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.map_or(0, |kib| kib.parse::<u64>().unwrap() << 10)
}

/// Queries that every wall lets pass and that want all the memory there is.
#[tokio::test(flavor = "multi_thread")]
async fn memory_bombs_end_in_their_own_cell() {
    if !alone("attack::cells::memory_bombs_end_in_their_own_cell") {
        return;
    }
    let target = Target::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let limits = QueryLimits { spill_bytes: 64 << 20, threads: 2, ..limits() };
    let cells = Arc::new(cells(&target, scratch.path(), limits, Hooks::default()));
    let honest = || Checked::unread("SELECT customer, count(*) FROM orders GROUP BY ALL", &GRANTED);
    let (calm, bombed) = (Arc::new(target.grant_set("calm")), Arc::new(target.grant_set("bombed")));
    let answer = run(&*cells, calm.clone(), honest()).await.unwrap();
    let own = resident(std::process::id());
    let text = std::fs::read_to_string(data("attacks/bombs.tsv")).unwrap();
    let gate = agnes_core::sandbox::Gate::start().await.unwrap();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for [name, sql] in rows(&text) {
        count += 1;
        assert!(gate.parse(&sql).await.is_ok(), "{name}: it should pass the gate");
        let bomb = run(&*cells, bombed.clone(), Checked::unread(&sql, &GRANTED));
        tokio::pin!(bomb);
        let mut most = 0;
        let outcome = loop {
            tokio::select! {
                outcome = &mut bomb => break outcome,
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    most = cells.processes().0.into_iter().map(resident).max().unwrap_or(0).max(most);
                }
            }
        };
        let code = outcome.as_ref().map_or_else(|e| e.code().to_owned(), |_| "answered".to_owned());
        let known = [
            "query_memory",
            "query_spill",
            "query_timeout",
            "query_worker_lost",
            "query_out_of_range",
            // A list or a text longer than the engine makes.
            "query_failed",
        ];
        if !known.contains(&code.as_str()) {
            wrong.push(format!("{name}: {code}: {outcome:?}"));
        }
        // What the engine may have, and what a process may have besides.
        if most > limits.memory_bytes + (1 << 30) {
            wrong.push(format!("{name}: {} MiB", most >> 20));
        }
        if run(&*cells, calm.clone(), honest()).await.unwrap() != answer {
            wrong.push(format!("{name}: the neighbour's answer changed"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 15, "{count}");
    assert!(resident(std::process::id()) < own + (512 << 20), "the rows did not pile up here");
}
