//! Owns quantities as people write them: durations (`1m30s`), sizes (`512Mi`), processor shares (`0.5`), and free scalars.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a quantity could not be read; the text is meant for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QuantityError(pub String);

/// A length of time in whole milliseconds, written as `250ms`, `5s`, `1m30s`, `2h` or `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    millis: u64,
}

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Duration {
    /// From whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self { millis: seconds * 1_000 }
    }
    /// In milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.millis
    }
    /// As the standard library's type.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.millis)
    }
}

impl FromStr for Duration {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError(format!("`{text}` is not a duration: write a number with a unit, such as 500ms, 5s, 1m30s, 2h or 7d"));
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(bad());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f).ok_or_else(bad)?;
            let value: f64 = number.parse().map_err(|_| bad())?;
            let millis = value * factor as f64;
            if !millis.is_finite() || millis > 1e15 {
                return Err(QuantityError(format!("`{text}` is longer than this program can count")));
            }
            total = total.saturating_add(millis.round() as u64);
            rest = tail;
        }
        Ok(Self { millis: total })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, factor) in DURATION_UNITS.iter().rev() {
            let count = rest / factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written as `512Mi`, `1.5Gi`, `64k` or a plain number of bytes. `Ki Mi Gi Ti` count in 1024, `k M G T` in 1000;
/// `KB MB GB` and the single letters of Docker (`b k m g`, counting in 1024) are read too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    bytes: u64,
}

impl Size {
    /// From bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { bytes }
    }
    /// In bytes.
    pub const fn as_bytes(self) -> u64 {
        self.bytes
    }
}

const SIZE_UNITS: [(&str, u64); 16] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("b", 1),
    ("B", 1),
];

impl FromStr for Size {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError(format!("`{text}` is not a size: write a number of bytes with a unit, such as 64Ki, 512Mi or 2Gi"));
        let text_trimmed = text.trim();
        let split = text_trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text_trimmed.len());
        let (number, unit) = text_trimmed.split_at(split);
        let value: f64 = number.parse().map_err(|_| bad())?;
        let factor = match unit {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f).ok_or_else(bad)?,
        };
        let bytes = value * factor as f64;
        if !bytes.is_finite() || bytes > 9e15 {
            return Err(QuantityError(format!("`{text}` is larger than any machine's memory")));
        }
        Ok(Self { bytes: bytes.round() as u64 })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in &SIZE_UNITS[..4] {
            if self.bytes >= *factor && self.bytes.is_multiple_of(*factor) {
                return write!(f, "{}{unit}", self.bytes / factor);
            }
        }
        write!(f, "{}", self.bytes)
    }
}

/// A share of processors in thousandths, written as `0.5`, `2` or `250m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus {
    millis: u64,
}

impl Cpus {
    /// From thousandths of a processor.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }
    /// In billionths of a processor, the unit of Docker's `NanoCpus`.
    pub const fn as_nanos(self) -> i64 {
        (self.millis * 1_000_000) as i64
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError(format!("`{text}` is not a number of processors: write 0.5, 2 or 250m"));
        let trimmed = text.trim();
        let (number, factor) = match trimmed.strip_suffix('m') {
            Some(number) => (number, 1.0),
            None => (trimmed, 1_000.0),
        };
        let value: f64 = number.parse().map_err(|_| bad())?;
        let millis = value * factor;
        if !(0.0..=10_000_000.0).contains(&millis) {
            return Err(bad());
        }
        Ok(Self { millis: millis.round() as u64 })
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.millis as f64 / 1_000.0)
    }
}

/// A text that may also be written as a bare number or `true`/`false`; it is kept exactly as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scalar(pub String);

impl Scalar {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Scalar {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Ok(Self(text.to_owned()))
    }
}

/// How long the loss of a dependency is tolerated: a duration, or `Lease` (as long as the service's own leased secrets can be trusted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerate {
    /// This long.
    For(Duration),
    /// Until the service's own leased secrets near their end.
    Lease,
}

impl FromStr for Tolerate {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text == "Lease" {
            return Ok(Self::Lease);
        }
        text.parse().map(Self::For).map_err(|e: QuantityError| QuantityError(format!("{e}; or write Lease")))
    }
}

impl fmt::Display for Tolerate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(duration) => fmt::Display::fmt(duration, f),
            Self::Lease => f.write_str("Lease"),
        }
    }
}

/// Reads a scalar of any type as its text, then parses it: a person may write `cpus: 0.5` without quotes.
struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = QuantityError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        value.to_string().parse().map_err(E::custom)
    }
}

/// The schema keyword that tells admission which of these parsers reads a scalar.
pub const FORMAT_KEYWORD: &str = "format";

/// A text that may also be a bare number or `true`/`false`. A CRD knows no lists of types: there it is any value, which admission
/// judges.
fn scalar_schema(generator: &SchemaGenerator, format: &str, description: &str) -> Schema {
    if generator.settings().definitions_path.contains("components") {
        return json_schema!({"x-kubernetes-preserve-unknown-fields": true, "description": description});
    }
    json_schema!({"type": ["string", "number", "boolean"], "format": format, "description": description})
}

fn string_schema(_: &SchemaGenerator, format: &str, description: &str) -> Schema {
    json_schema!({"type": "string", "format": format, "description": description})
}

macro_rules! text_form {
    ($type:ty, $name:literal, $schema:ident, $format:literal, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor::<Self>(std::marker::PhantomData))
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                $schema(generator, $format, $description)
            }
        }
    };
}

text_form!(Duration, "Duration", string_schema, "quaymaster-duration", "A length of time: 500ms, 5s, 1m30s, 2h, 7d.");
text_form!(Size, "Size", scalar_schema, "quaymaster-size", "A number of bytes: 64Ki, 512Mi, 2Gi, or a plain number.");
text_form!(Cpus, "Cpus", scalar_schema, "quaymaster-cpus", "Processors: 0.5, 2, or 250m.");
text_form!(Scalar, "Scalar", scalar_schema, "quaymaster-scalar", "A text; numbers and true/false may stand without quotes.");
text_form!(Tolerate, "Tolerate", string_schema, "quaymaster-tolerate", "A duration, or Lease.");

/// Checks the text of a scalar against the `format` its schema names; formats of others always pass.
///
/// # Errors
/// What is wrong with the text, in words for its author.
pub fn check_format(format: &str, text: &str) -> Result<(), QuantityError> {
    match format {
        "quaymaster-duration" => text.parse::<Duration>().map(drop),
        "quaymaster-size" => text.parse::<Size>().map(drop),
        "quaymaster-cpus" => text.parse::<Cpus>().map(drop),
        "quaymaster-tolerate" => text.parse::<Tolerate>().map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [("5s", 5_000), ("1m30s", 90_000), ("250ms", 250), ("1.5h", 5_400_000), ("0", 0), ("7d", 604_800_000)] {
            assert_eq!(text.parse::<Duration>().map(Duration::as_millis), Ok(millis), "{text}");
        }
        for text in ["", "5", "s", "5 s", "5x", "-1s", "1s2", "99999999999999999d"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        assert_eq!(Duration::from_millis(90_500).to_string(), "1m30s500ms");
    }

    #[test]
    fn sizes_and_shares() {
        for (text, bytes) in
            [("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("64k", 64 << 10), ("10m", 10 << 20), ("1000", 1000), ("1MB", 1_000_000)]
        {
            assert_eq!(text.parse::<Size>().map(Size::as_bytes), Ok(bytes), "{text}");
        }
        assert!("12Q".parse::<Size>().is_err());
        assert!("".parse::<Size>().is_err());
        assert_eq!("0.5".parse::<Cpus>().map(Cpus::as_nanos), Ok(500_000_000));
        assert_eq!("250m".parse::<Cpus>().map(Cpus::as_nanos), Ok(250_000_000));
        assert!("-1".parse::<Cpus>().is_err());
        assert_eq!(serde_json::from_str::<Cpus>("1.5").ok(), Some(Cpus::from_millis(1500)));
        assert_eq!(serde_json::from_str::<Scalar>("true").ok(), Some(Scalar("true".into())));
    }
}
