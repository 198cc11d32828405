//! When a table is due. Pure: schedules and times in, answers out.
//!
//! | Form | Meaning |
//! |---|---|
//! | `every 15m`, `every 2h` | an interval; `every 0m` is always due |
//! | `daily 05:00,13:30` | UTC times of day |
//! | `cron 0 5 * * 1` | minute, hour, day of month, month, day of week (0 is Sunday), UTC; both days must match |

use std::str::FromStr;

use chrono::{DateTime, Days, Duration, NaiveTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// How far an occurrence of a cron schedule is searched.
const CRON_HORIZON_DAYS: i64 = 8 * 366;

/// A parsed schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Every so often.
    Every(Duration),
    /// At these UTC times of every day.
    Daily(Vec<NaiveTime>),
    /// When the five fields match.
    Cron(Box<Cron>),
}

impl Schedule {
    /// Parses the text; `None` when it is no schedule. Case-sensitive, single spaces.
    ///
    /// ```
    /// use agnes_core::schedule::Schedule;
    /// assert!(Schedule::parse("daily 05:00,17:30").is_some());
    /// assert!(Schedule::parse("hourly").is_none());
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ')?;
        match kind {
            "every" => {
                let (number, unit) = rest.split_at_checked(rest.len().checked_sub(1)?)?;
                if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let number: i64 = number.parse().ok()?;
                let every = match unit {
                    "m" => Duration::try_minutes(number),
                    "h" => Duration::try_hours(number),
                    _ => None,
                }?;
                // Longer than a century is a typing error, and could overflow a date.
                (every <= Duration::days(36_600)).then_some(Self::Every(every))
            }
            "daily" => rest.split(',').map(time_of_day).collect::<Option<_>>().map(Self::Daily),
            "cron" => {
                // croner knows more than this grammar: names, `L`, `W`, `#`, 7 for Sunday.
                let fields: Vec<&str> = rest.split(' ').collect();
                let most = [59, 23, 31, 12, 6];
                if fields.len() != most.len() || !fields.iter().zip(most).all(|(field, most)| is_field(field, most)) {
                    return None;
                }
                let parser =
                    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).dom_and_dow(true).build();
                parser.parse(rest).ok().map(Box::new).map(Self::Cron)
            }
            _ => None,
        }
    }

    /// Whether a run is due at `now` when the last one ended at `last`.
    ///
    /// A `last` in the future means that the clock was set back since: the table is due,
    /// so that no table stands still until the clock has caught up.
    #[must_use]
    pub fn is_due(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
        let Some(last) = last else { return true };
        if last > now {
            return true;
        }
        match self {
            Self::Every(every) => now - last >= *every,
            Self::Daily(times) => times.iter().any(|time| latest_slot(*time, now).is_some_and(|slot| slot > last)),
            Self::Cron(cron) => {
                // An occurrence in (last, now]; one that long ago counts as none.
                let from = last.max(now - Duration::days(CRON_HORIZON_DAYS));
                cron.find_next_occurrence(&from, false).is_ok_and(|next| next <= now)
            }
        }
    }

    /// Time between two runs, as of `now`: the longest where they are not the same.
    #[must_use]
    pub fn interval(&self, now: DateTime<Utc>) -> Option<Duration> {
        match self {
            Self::Every(every) => Some(*every),
            Self::Daily(_) => Some(Duration::days(1)),
            Self::Cron(cron) => {
                let first = cron.find_next_occurrence(&now, false).ok()?;
                Some(cron.find_next_occurrence(&first, false).ok()? - first)
            }
        }
    }

    /// The next time a run becomes due after `now`, when the last one ended at `last`.
    #[must_use]
    pub fn next_after(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.is_due(last, now) {
            return Some(now);
        }
        match self {
            Self::Every(every) => last?.checked_add_signed(*every),
            Self::Daily(times) => {
                let today = now.date_naive();
                let slots = [Some(today), today.checked_add_days(Days::new(1))];
                let slots =
                    slots.into_iter().flatten().flat_map(|day| times.iter().map(move |t| day.and_time(*t).and_utc()));
                slots.filter(|slot| *slot > now).min()
            }
            Self::Cron(cron) => cron.find_next_occurrence(&now, false).ok(),
        }
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;
    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        Self::parse(text).ok_or(InvalidSchedule)
    }
}

/// A text is no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a schedule such as `every 15m`, `daily 05:00` or `cron 0 5 * * 1`")]
pub struct InvalidSchedule;

/// Whether this is one field of a cron schedule: a list of `*`, numbers and ranges, each
/// with or without a step.
fn is_field(field: &str, most: u32) -> bool {
    let number = |text: &str| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits && text.parse::<u32>().is_ok_and(|n| n <= most)
    };
    field.split(',').all(|item| {
        let (base, step) = item.split_once('/').map_or((item, None), |(base, step)| (base, Some(step)));
        let based = base == "*" || base.split_once('-').map_or_else(|| number(base), |(a, b)| number(a) && number(b));
        based && step.is_none_or(|step| number(step) && !step.trim_start_matches('0').is_empty())
    })
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    let (hours, minutes) = text.split_once(':')?;
    let two =
        |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u32>().ok()).flatten();
    NaiveTime::from_hms_opt(two(hours)?, two(minutes)?, 0)
}

/// The latest moment not after `now` with this time of day.
fn latest_slot(time: NaiveTime, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let today = now.date_naive().and_time(time).and_utc();
    if today <= now { Some(today) } else { today.checked_sub_days(Days::new(1)) }
}

/// Whether a table belongs into a scheduled run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is due, or has no schedule.
    Yes,
    /// Not yet.
    No,
    /// Its schedule is invalid: it runs, since a redundant run beats a silent gap.
    Invalid,
}

/// Whether a table with this schedule text belongs into a run at `now`.
#[must_use]
pub fn due(schedule: Option<&str>, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Due {
    let Some(text) = schedule else { return Due::Yes };
    match Schedule::parse(text) {
        Some(schedule) if schedule.is_due(last, now) => Due::Yes,
        Some(_) => Due::No,
        None => {
            tracing::warn!(schedule = crate::ident::printable(text, 64), "an invalid schedule is ignored");
            Due::Invalid
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("{text}Z").parse().unwrap()
    }

    #[test]
    fn grammar() {
        for good in [
            "every 15m",
            "every 0m",
            "every 2h",
            "daily 05:00",
            "daily 07:00,13:00",
            "cron 0 5 * * 1",
            "cron */15 8-18 1,15 * 0",
        ] {
            assert!(Schedule::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            " ",
            "every 15 m",
            "every -1m",
            "every m",
            "every 15s",
            "every 99999999999999999999m",
            "daily 25:00",
            "daily 5:00",
            "daily 05:60",
            "daily 05:00,",
            "daily 05:00, 06:00",
            "hourly",
            "Every 15m",
            "every  15m",
            "cron 0 5 * *",
            "cron 60 5 * * *",
            "cron 0 5 * * 1 2026",
            "cron 0  5 * * 1",
            "cron @daily",
            "cron 0 5 * * MON",
            "cron 0 5 * * 7",
            "cron 0 5 * * 5-7",
            "cron 0 5 * * 1,07",
            "cron 0 5 L * *",
            "cron 0 5 0 * *",
            "cron 0 5 * 13 *",
            "cron */0 5 * * *",
            "cron 5-1 5 * * *",
            "cron , 5 * * *",
            "cron - 5 * * *",
            "cron 0 5 * * 1#2",
            "cron 0 5 * * 1,",
            "cron 0 5 * * 1--2",
            "cron 0 5 * * */",
            "cron 0 5 * * /2",
            "cron 0 5 */2/2 * *",
            "cron 0 5 * * １",
            "every 15m\n",
        ] {
            assert!(Schedule::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn due_or_not() {
        let check = |schedule: &str, last: Option<&str>, now: &str, wanted: Due| {
            assert_eq!(due(Some(schedule), last.map(at), at(now)), wanted, "{schedule} {last:?} {now}");
        };
        let (yes, no) = (Due::Yes, Due::No);
        check("every 15m", Some("2026-01-01T10:00:00"), "2026-01-01T10:14:59", no);
        check("every 15m", Some("2026-01-01T10:00:00"), "2026-01-01T10:15:00", yes);
        check("every 0m", Some("2026-01-01T10:00:00"), "2026-01-01T10:00:00", yes);
        check("daily 05:00", Some("2026-01-01T05:00:01"), "2026-01-01T23:00:00", no);
        check("daily 05:00", Some("2026-01-01T04:59:00"), "2026-01-01T05:00:00", yes);
        check("daily 07:00,13:00", Some("2026-01-01T07:05:00"), "2026-01-01T13:01:00", yes);
        check("daily 07:00,13:00", Some("2026-01-01T07:05:00"), "2026-01-01T12:59:00", no);
        // Yesterday's slot was missed.
        check("daily 05:00", Some("2025-12-31T04:00:00"), "2026-01-01T01:00:00", yes);
        check("daily 25:00", Some("2026-01-01T05:00:00"), "2026-01-02T05:00:00", Due::Invalid);
        check("nonsense", Some("2026-01-01T05:00:00"), "2026-01-02T05:00:00", Due::Invalid);
        check("every 15m", None, "2026-01-02T05:00:00", yes);
        // 2026-01-05 is a Monday.
        check("cron 0 5 * * 1", Some("2026-01-04T06:00:00"), "2026-01-05T04:59:00", no);
        check("cron 0 5 * * 1", Some("2026-01-04T06:00:00"), "2026-01-05T05:00:00", yes);
        // Both the day of the month and the day of the week: the next Monday the 1st is in June.
        check("cron 0 0 1 * 1", Some("2026-01-02T00:00:00"), "2026-05-31T23:59:00", no);
        check("cron 0 0 1 * 1", Some("2026-01-02T00:00:00"), "2026-06-01T00:00:00", yes);
        check("cron 0 0 30 2 *", Some("2016-01-02T00:00:00"), "2026-06-01T00:00:00", no);
        // The clock was set back.
        check("every 2h", Some("2026-01-02T00:00:00"), "2026-01-01T00:00:00", yes);
        assert_eq!(due(None, Some(at("2026-01-01T00:00:00")), at("2026-01-01T00:00:00")), yes);
    }

    #[test]
    fn the_next_time() {
        let next = |schedule: &str, last: &str, now: &str| {
            Schedule::parse(schedule).unwrap().next_after(Some(at(last)), at(now)).unwrap()
        };
        assert_eq!(next("every 15m", "2026-01-01T10:00:00", "2026-01-01T10:05:00"), at("2026-01-01T10:15:00"));
        assert_eq!(next("daily 05:00", "2026-01-01T05:00:01", "2026-01-01T06:00:00"), at("2026-01-02T05:00:00"));
        assert_eq!(next("cron 0 5 * * 1", "2026-01-05T05:00:01", "2026-01-05T06:00:00"), at("2026-01-12T05:00:00"));
    }

    #[test]
    fn rare_days_are_found_and_impossible_ones_end() {
        let started = std::time::Instant::now();
        let check = |schedule: &str, last: &str, now: &str| due(Some(schedule), Some(at(last)), at(now));
        // A leap day, and one that is a Monday too: 2044.
        assert_eq!(check("cron 0 0 29 2 *", "2024-03-01T00:00:00", "2028-02-28T23:59:59"), Due::No);
        assert_eq!(check("cron 0 0 29 2 *", "2024-03-01T00:00:00", "2028-02-29T00:00:00"), Due::Yes);
        assert_eq!(check("cron 0 0 29 2 1", "2024-03-01T00:00:00", "2043-12-31T00:00:00"), Due::No);
        assert_eq!(check("cron 0 0 29 2 1", "2040-03-01T00:00:00", "2044-02-29T00:00:00"), Due::Yes);
        // Weekdays: Sunday is 0.
        assert_eq!(check("cron 0 0 * * 0", "2026-01-03T12:00:00", "2026-01-04T00:00:00"), Due::Yes);
        assert_eq!(check("cron 0 0 * * 1-5", "2026-01-02T12:00:00", "2026-01-04T23:59:00"), Due::No);
        assert_eq!(check("cron */20 8-10/2 * * *", "2026-01-02T08:40:00", "2026-01-02T09:59:00"), Due::No);
        assert_eq!(check("cron */20 8-10/2 * * *", "2026-01-02T08:40:00", "2026-01-02T10:00:00"), Due::Yes);
        for schedule in ["cron 0 0 30 2 *", "cron 0 0 31 4,6,9,11 *"] {
            assert_eq!(check(schedule, "1970-01-01T00:00:00", "2026-01-01T00:00:00"), Due::No);
            let parsed = Schedule::parse(schedule).unwrap();
            let next = parsed.next_after(Some(at("2025-01-01T00:00:00")), at("2026-01-01T00:00:00"));
            assert_eq!(next, None, "{schedule}");
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
    }

    proptest::proptest! {
        /// Whatever somebody types, it is a schedule that answers, or none.
        #[test]
        fn no_text_panics(
            text in "(every |daily |cron )?[0-9*,/:hm -]{0,20}",
            last in 0i64..4_000_000_000,
            now in 0i64..4_000_000_000,
        ) {
            let (last, now) = (DateTime::from_timestamp(last, 0), DateTime::from_timestamp(now, 0).unwrap());
            if let Some(schedule) = Schedule::parse(&text) {
                let next = schedule.next_after(last, now);
                proptest::prop_assert!(next.is_none_or(|next| next >= now));
                proptest::prop_assert_eq!(schedule.is_due(last, now), next == Some(now));
                proptest::prop_assert!(schedule.is_due(None, now));
            }
        }
    }
}
