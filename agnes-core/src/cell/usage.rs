//! What a worker process takes of the machine, and how much it may take.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Niceness of a worker whose query runs long.
const YIELDING: i32 = 15;

/// What a worker may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ceilings {
    /// How long a query may take to stop.
    pub(super) grace: Duration,
    /// Processor time that a query takes before it yields to others.
    pub(super) long: Duration,
    /// Resident memory of one at work, bytes.
    pub(super) resident: u64,
    /// Resident memory of one without work, bytes.
    pub(super) idle: u64,
    /// Bytes in its spill folder.
    pub(super) spill: u64,
}

/// Lets every thread of a process run when nobody else wants to. There is no way back without
/// rights that a server does not have.
pub(super) fn yield_to_others(pid: u32) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    let tasks = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    for task in tasks.filter_map(rustix::process::Pid::from_raw) {
        let _ = rustix::process::setpriority_process(Some(task), YIELDING);
    }
}

/// Processor time of all threads of a process; 0 where it has ended.
pub(super) fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in brackets, the state is field 3; fields 14 and 15 are ticks in user and system mode.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1))
}

/// Resident memory of a process; 0 where it has ended.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Bytes of all files below a folder; what cannot be read counts nothing.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    let (mut folders, mut bytes) = (Vec::<PathBuf>::from([folder.to_owned()]), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => folders.push(entry.path()),
                Ok(about) => bytes += about.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
