//! Owns [`Timestamp`]: wall-clock instants as data. Nothing here reads a clock; instants come in as arguments.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A wall-clock instant in microseconds since the Unix epoch (UTC).
///
/// Its text form is RFC 3339 with exactly six fraction digits, the form that Kubernetes calls `MicroTime`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Seconds since the Unix epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This instant moved by `millis` (which may be negative); saturates at the ends of the range.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Milliseconds from `earlier` to this instant; negative when `earlier` is the later one.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0).div_euclid(1_000)
    }

    /// Reads RFC 3339 text with any number of fraction digits and any offset (Docker prints nanoseconds).
    ///
    /// # Errors
    /// The text of the parser's complaint when `text` is no RFC 3339 instant.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed: jiff::Timestamp = text.parse().map_err(|e: jiff::Error| e.to_string())?;
        Ok(Self(parsed.as_microsecond()))
    }

    /// RFC 3339 with whole seconds, the form that Kubernetes calls `Time`.
    pub fn to_seconds_string(self) -> String {
        match jiff::Timestamp::from_microsecond(self.as_seconds() * 1_000_000) {
            Ok(t) => t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            Err(_) => "1970-01-01T00:00:00Z".to_owned(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{}", t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ")),
            Err(_) => f.write_str("1970-01-01T00:00:00.000000Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_six_digits_and_reads_nanoseconds() {
        let t = Timestamp::parse("2026-11-22T10:00:00.123456789Z").unwrap();
        assert_eq!(t.to_string(), "2026-11-22T10:00:00.123456Z");
        assert_eq!(t.to_seconds_string(), "2026-11-22T10:00:00Z");
        assert_eq!(Timestamp::parse("2026-11-22T12:00:00+02:00").unwrap().to_string(), "2026-11-22T10:00:00.000000Z");
        assert!(Timestamp::parse("yesterday").is_err());
    }
}
