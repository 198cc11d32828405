//! How often, from environment variables.

use std::time::Duration;

use chrono::TimeDelta;

use super::{JOBS, ScheduledJob};
use crate::error::{Coded, ErrorKind, Result};
use crate::schedule::Schedule;

const TICK: &str = "SCHEDULER_TICK_SECONDS";
const GRACE: &str = "SCHEDULER_STARTUP_GRACE_SECONDS";
/// A year: longer is a typing error.
const LONGEST: u64 = 366 * 86_400;

/// What can be wrong with the settings of a scheduler.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SchedulerError {
    #[error("`{variable}` is not a whole number of seconds from {least} to {LONGEST}")]
    NotSeconds { variable: &'static str, least: u64 },
    #[error("`{TICK}` is {tick} s, longer than the {interval} s between two runs of `{job}`")]
    TickTooLong { tick: u64, job: &'static str, interval: u64 },
}

impl Coded for SchedulerError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ConfigInvalid
    }
    fn code(&self) -> &str {
        match self {
            Self::NotSeconds { .. } => "scheduler_setting_invalid",
            Self::TickTooLong { .. } => "scheduler_tick_too_long",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotSeconds { variable, .. } => format!("correct `{variable}`, or unset it for its default"),
            Self::TickTooLong { interval, .. } => format!("set `{TICK}` to {interval} or less"),
        })
    }
}

/// How often a scheduler looks, and what it calls when.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// Time between two looks.
    pub tick: Duration,
    /// Time before the first look.
    pub grace: Duration,
    pub(super) jobs: Vec<Planned>,
}

/// A job, and when it runs here.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) job: &'static ScheduledJob,
    pub(super) schedule: Schedule,
    /// How long the first run of all waits.
    pub(super) first_after: TimeDelta,
}

impl SchedulerSettings {
    /// Those that the environment describes, every job of [`JOBS`] among them.
    ///
    /// # Errors
    /// [`SchedulerError`], naming the variable. A variable that is set but empty is an error,
    /// too: somebody meant something by it.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let seconds = |variable: &'static str, least: u64| -> Result<Option<u64>> {
            let Some(text) = env(variable) else { return Ok(None) };
            let number = text.trim().parse().ok().filter(|number| (least..=LONGEST).contains(number));
            number.map(Some).ok_or_else(|| SchedulerError::NotSeconds { variable, least }.into())
        };
        let tick = seconds(TICK, 1)?.unwrap_or(30);
        let grace = seconds(GRACE, 0)?.unwrap_or(60);
        let mut jobs = Vec::with_capacity(JOBS.len());
        for job in JOBS {
            let given = match job.variable {
                Some(variable) => seconds(variable, 1)?,
                None => None,
            };
            if let Some(interval) = given.filter(|interval| tick > *interval) {
                return Err(SchedulerError::TickTooLong { tick, job: job.name, interval }.into());
            }
            let text = given.map_or_else(|| job.schedule.to_owned(), schedule);
            let schedule = Schedule::parse(&text);
            let schedule = schedule.ok_or_else(|| crate::Error::internal("read the schedule of a job", text))?;
            if let Schedule::Every(every) = &schedule
                && let Ok(interval) = u64::try_from(every.num_seconds())
                && tick > interval
            {
                return Err(SchedulerError::TickTooLong { tick, job: job.name, interval }.into());
            }
            let within = match job.first_within {
                Some((usual, variable)) => seconds(variable, 0)?.unwrap_or(usual),
                None => 0,
            };
            let (_, chance) = uuid::Uuid::new_v4().as_u64_pair();
            let first_after = TimeDelta::seconds(i64::try_from(chance % (within + 1)).unwrap_or_default());
            jobs.push(Planned { job, schedule, first_after });
        }
        Ok(Self { tick: Duration::from_secs(tick), grace: Duration::from_secs(grace), jobs })
    }
}

/// Whole hours, else minutes, rounded up.
fn schedule(seconds: u64) -> String {
    if seconds.is_multiple_of(3600) {
        format!("every {}h", seconds / 3600)
    } else {
        format!("every {}m", seconds.div_ceil(60))
    }
}
