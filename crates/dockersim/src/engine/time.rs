//! Instants as the daemon writes them.

/// The daemon's "never".
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with as many decimals as are needed, as Go writes it.
pub(crate) fn nano(ns: i64) -> String {
    let text = fixed(ns);
    let trimmed = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{trimmed}Z")
}

/// RFC 3339 with nine decimals, as log lines have it.
pub(crate) fn fixed(ns: i64) -> String {
    format!("{}.{:09}Z", civil(ns.div_euclid(1_000_000_000)), ns.rem_euclid(1_000_000_000))
}

/// RFC 3339 without decimals.
pub(crate) fn seconds(ns: i64) -> String {
    format!("{}Z", civil(ns.div_euclid(1_000_000_000)))
}

/// `nano`, or "never".
pub(crate) fn maybe(ns: Option<i64>) -> String {
    ns.map_or_else(|| NEVER.to_owned(), nano)
}

fn civil(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the proleptic Gregorian calendar, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Reads the times of queries: Unix seconds with decimals, or RFC 3339. `None` = neither.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>() {
        let digits: String = decimals.chars().take_while(char::is_ascii_digit).chain("000000000".chars()).take(9).collect();
        return seconds.checked_mul(1_000_000_000)?.checked_add(digits.parse().ok()?);
    }
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse::<i64>().ok());
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13).unwrap_or(0), number(14..16).unwrap_or(0), number(17..19).unwrap_or(0));
    let decimals: String =
        text.get(20..).unwrap_or("").chars().take_while(char::is_ascii_digit).chain("000000000".chars()).take(9).collect();
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let of_era_year = shifted_year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era_year * 365 + of_era_year / 4 - of_era_year / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(decimals.parse().unwrap_or(0))
}

/// A duration as `docker ps` words it.
pub(crate) fn human(ns: i64) -> String {
    let seconds = (ns / 1_000_000_000).max(0);
    let minutes = seconds / 60;
    // The daemon rounds hours.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_as_go_does() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_572_027_237_117_744, "2026-11-25T02:00:27.237117744Z"),
            (1_795_572_027_100_000_000, "2026-11-25T02:00:27.1Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
        ] {
            assert_eq!(nano(ns), text);
            assert_eq!(parse(text), Some(ns));
        }
        assert_eq!(parse("1.5"), Some(1_500_000_000));
        assert_eq!(parse("zz"), None);
    }
}
