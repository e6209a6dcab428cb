//! Owns [`Schedule`]: when a scheduled job is due. Five fields as cron has them, in a time zone of the database that is compiled in; time
//! is an argument.
//!
//! Clocks that are put forward or back (ADR 0013): an hour that is named runs once a day, whatever the clock does: what would be in the
//! hour that is left out runs when it is over, and of an hour that comes twice the first counts. A schedule for every hour follows real
//! time: it is due in both.

use std::collections::BTreeSet;
use std::fmt;

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp as Instant, ToSpan};

use crate::time::Timestamp;

/// No day that matches so far ahead, and there is none: 29 February comes at least once in so many days, of any weekday in some more.
const DAYS_AHEAD: u32 = 366 * 41;

/// When something is due.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    zone: TimeZone,
    zone_name: String,
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    days: BTreeSet<i8>,
    months: BTreeSet<i8>,
    /// 0 is Sunday.
    weekdays: BTreeSet<i8>,
    /// Both kinds of days are restricted: then one of them is enough, as cron has it.
    either_day: bool,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({} in {})", self.text, self.zone_name)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone_name == other.zone_name
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The time zone of this name, from the database that is compiled in.
///
/// # Errors
/// What is wrong, for people.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    let known = || TimeZoneDatabase::bundled().get(name);
    known().map_err(|_| "write it as Europe/Zurich, America/New_York or UTC".to_owned())
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    name: &'static str,
    first: i8,
    last: i8,
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, words: &[] },
    Field { name: "hour", first: 0, last: 23, words: &[] },
    Field { name: "day of the month", first: 1, last: 31, words: &[] },
    Field { name: "month", first: 1, last: 12, words: &MONTHS },
    // 7 is Sunday too.
    Field { name: "day of the week", first: 0, last: 7, words: &WEEKDAYS },
];

impl Field {
    fn value(&self, text: &str) -> Result<i8, String> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let number = match word {
            Some(at) => Some(at as i8 + if self.last == 12 { 1 } else { 0 }),
            None => text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit())),
        };
        number
            .filter(|n| (self.first..=self.last).contains(n))
            .ok_or_else(|| format!("`{text}` is no {}: {} to {}", self.name, self.first, self.last))
    }

    fn parse(&self, text: &str) -> Result<BTreeSet<i8>, String> {
        let mut values = BTreeSet::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let step: i8 = step.parse().ok().filter(|s| *s > 0).ok_or_else(|| format!("`{step}` is no step: a number from 1"))?;
                    (range, step)
                }
                None => (part, 1),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.first, self.last),
                Some((from, to)) => (self.value(from)?, self.value(to)?),
                // `5/10` means from 5 on, as other crons have it.
                None if part.contains('/') => (self.value(range)?, self.last),
                None => (self.value(range)?, self.value(range)?),
            };
            if from > to {
                return Err(format!("`{range}` ends before it begins"));
            }
            values.extend((from..=to).step_by(step as usize));
        }
        Ok(values)
    }
}

impl Schedule {
    /// Reads five fields (minute, hour, day of the month, month, day of the week), or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str, zone: &str) -> Result<Self, String> {
        let expanded = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let parts: Vec<&str> = expanded.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(format!("there are {} fields: minute, hour, day of the month, month, day of the week are five", parts.len()));
        };
        let weekdays = FIELDS[4].parse(weekday)?.into_iter().map(|day| day % 7).collect();
        let schedule = Self {
            text: text.trim().to_owned(),
            zone: time_zone(zone)?,
            zone_name: zone.to_owned(),
            minutes: FIELDS[0].parse(minute)?,
            hours: FIELDS[1].parse(hour)?,
            days: FIELDS[2].parse(day)?,
            months: FIELDS[3].parse(month)?,
            weekdays,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        match schedule.next_after(Timestamp::default()) {
            Some(_) => Ok(schedule),
            None => Err("there is no such day".to_owned()),
        }
    }

    /// The name of its time zone, as it was given.
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// The first instant after this one at which it is due.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let start = Instant::from_second(after.as_seconds()).ok()?;
        let mut day = start.to_zoned(self.zone.clone()).date();
        // The day before may end after midnight where clocks are put forward there.
        day = day.yesterday().unwrap_or(day);
        for _ in 0..DAYS_AHEAD {
            if self.is_day(day)
                && let Some(due) = self.on_day(day, start)
            {
                return Some(Timestamp::from_millis(due.as_millisecond()));
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The last instant after `after` and not after `until` at which it was due, and how many there were; never more than 100 are counted.
    pub fn last_between(&self, after: Timestamp, until: Timestamp) -> Option<(Timestamp, u32)> {
        const MOST: u32 = 100;
        let mut count = 0;
        let mut at = after;
        let mut last = None;
        while let Some(due) = self.next_after(at).filter(|due| *due <= until) {
            (at, last, count) = (due, Some(due), count + 1);
            if count == MOST {
                break;
            }
        }
        if count < MOST {
            return last.map(|last| (last, count));
        }
        // Far behind: look back from the end, further and further, for the last one.
        for back_ms in [3_600_000_i64, 86_400_000, 40 * 86_400_000, 800 * 86_400_000] {
            let mut at = until.plus_millis(-back_ms).max(after);
            let mut found = None;
            while let Some(due) = self.next_after(at).filter(|due| *due <= until) {
                (at, found) = (due, Some(due));
            }
            if let Some(found) = found {
                return Some((found, MOST));
            }
        }
        last.map(|last| (last, MOST))
    }

    fn is_day(&self, day: Date) -> bool {
        if !self.months.contains(&day.month()) {
            return false;
        }
        let of_month = self.days.contains(&day.day());
        let of_week = self.weekdays.contains(&day.weekday().to_sunday_zero_offset());
        if self.either_day { of_month || of_week } else { of_month && of_week }
    }

    /// The first instant of this day that is after `after`.
    fn on_day(&self, day: Date, after: Instant) -> Option<Instant> {
        if self.hours.len() == 24 {
            return self.every_hour(day, after);
        }
        let times = self.hours.iter().flat_map(|hour| self.minutes.iter().map(|minute| day.at(*hour, *minute, 0, 0)));
        // A time that is left out is moved behind the gap, of one that comes twice the first is taken.
        let instants = times.filter_map(|time| Some(self.zone.to_ambiguous_zoned(time).compatible().ok()?.timestamp()));
        instants.filter(|instant| *instant > after).min()
    }

    /// Real time, minute by minute: one of the next minutes matches.
    fn every_hour(&self, day: Date, after: Instant) -> Option<Instant> {
        let begin = self.zone.to_ambiguous_zoned(day.at(0, 0, 0, 0)).compatible().ok()?.timestamp();
        let end = self.zone.to_ambiguous_zoned(day.tomorrow().ok()?.at(0, 0, 0, 0)).compatible().ok()?.timestamp();
        let next_minute = Instant::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
        let mut at = begin.max(next_minute);
        while at < end {
            if self.minutes.contains(&at.to_zoned(self.zone.clone()).minute()) {
                return Some(at);
            }
            at = at.checked_add(1.minute()).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let mut at = Timestamp::parse(after).unwrap();
        (0..count)
            .map(|_| {
                at = schedule.next_after(at).unwrap();
                at.to_seconds_string()
            })
            .collect()
    }

    #[test]
    fn fields_mean_what_cron_says() {
        let table = [
            ("*/20 * * * *", "2026-01-31T23:30:30Z", ["2026-01-31T23:40:00Z", "2026-02-01T00:00:00Z", "2026-02-01T00:20:00Z"]),
            ("5/30 4 * * *", "2026-01-01T00:00:00Z", ["2026-01-01T04:05:00Z", "2026-01-01T04:35:00Z", "2026-01-02T04:05:00Z"]),
            ("0 9-17/4 * * mon-fri", "2026-11-27T10:00:00Z", ["2026-11-27T13:00:00Z", "2026-11-27T17:00:00Z", "2026-11-30T09:00:00Z"]),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z", "2036-02-29T00:00:00Z"]),
            ("0 0 13 * 5", "2026-11-01T00:00:00Z", ["2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"]),
            ("0 0 * jan,JUL 7", "2026-01-24T00:00:00Z", ["2026-01-25T00:00:00Z", "2026-07-05T00:00:00Z", "2026-07-12T00:00:00Z"]),
            ("@monthly", "2026-11-01T00:00:00Z", ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"]),
            ("59 23 31 * *", "2026-04-01T00:00:00Z", ["2026-05-31T23:59:00Z", "2026-07-31T23:59:00Z", "2026-08-31T23:59:00Z"]),
        ];
        for (schedule, after, expected) in table {
            assert_eq!(due(schedule, "UTC", after, 3), expected, "{schedule}");
        }
    }

    #[test]
    fn a_clock_put_forward_runs_what_is_left_out_when_the_gap_is_over_and_once() {
        // In Zurich 02:00 is 03:00 on 29 March 2026.
        let nightly = ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(due("30 2 * * *", "Europe/Zurich", "2026-03-27T12:00:00Z", 4)[0..1], nightly[0..1]);
        assert_eq!(due("30 2 * * *", "Europe/Zurich", "2026-03-28T12:00:00Z", 2), nightly[1..]);
        // 02:00 and 03:00 are one instant on that day.
        assert_eq!(due("0 2,3 * * *", "Europe/Zurich", "2026-03-28T12:00:00Z", 2), ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]);
        let hourly = ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"];
        assert_eq!(due("30 * * * *", "Europe/Zurich", "2026-03-29T00:00:00Z", 3), hourly);
    }

    #[test]
    fn a_clock_put_back_runs_a_named_hour_once_and_every_hour_in_both() {
        // In Zurich 03:00 is 02:00 on 25 October 2026.
        assert_eq!(due("30 2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let hourly = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"];
        assert_eq!(due("30 * * * *", "Europe/Zurich", "2026-10-25T00:00:00Z", 3), hourly);
        // In Apia a whole day was left out: 30 December 2011.
        assert_eq!(due("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 2), ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"]);
    }

    #[test]
    fn what_was_missed_is_counted_and_the_last_one_is_found() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let last = |schedule: &str, after: &str, until: &str| {
            let found = Schedule::parse(schedule, "UTC").unwrap().last_between(at(after), at(until));
            found.map(|(last, count)| (last.to_seconds_string(), count))
        };
        assert_eq!(last("0 4 * * *", "2026-01-01T04:00:00Z", "2026-01-02T03:59:59Z"), None);
        assert_eq!(last("0 4 * * *", "2026-01-01T04:00:00Z", "2026-01-03T04:00:00Z"), Some(("2026-01-03T04:00:00Z".into(), 2)));
        assert_eq!(last("* * * * *", "2020-01-01T00:00:00Z", "2026-01-03T04:05:06Z"), Some(("2026-01-03T04:05:00Z".into(), 100)));
        assert_eq!(last("0 4 * * *", "2020-01-01T00:00:00Z", "2026-01-03T03:05:06Z"), Some(("2026-01-02T04:00:00Z".into(), 100)));
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        let table = [
            ("* * * *", "UTC", "there are 4 fields: minute, hour, day of the month, month, day of the week are five"),
            ("60 * * * *", "UTC", "`60` is no minute: 0 to 59"),
            ("* 24 * * *", "UTC", "`24` is no hour: 0 to 23"),
            ("* * * * mond", "UTC", "`mond` is no day of the week: 0 to 7"),
            ("*/0 * * * *", "UTC", "`0` is no step: a number from 1"),
            ("0 5-3 * * *", "UTC", "`5-3` ends before it begins"),
            ("0 0 30 2 *", "UTC", "there is no such day"),
            ("0 0 +3 * *", "UTC", "`+3` is no day of the month: 1 to 31"),
            ("* * * * *", "Europe/Zürich", "write it as Europe/Zurich, America/New_York or UTC"),
        ];
        for (text, zone, expected) in table {
            assert_eq!(Schedule::parse(text, zone).unwrap_err(), expected);
        }
    }
}
