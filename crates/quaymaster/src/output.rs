//! Owns how text reaches the terminal: aligned tables, YAML, colour, ages, and writing that survives a closed pipe.
//!
//! Everything that draws is a function from values to text; only [`print`], [`note`], [`caught`] and
//! [`Style::of_stdout`] touch the process. Texts
//! that come from containers and manifests go through [`clean`], so that none of them can drive the terminal.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use comfy_table::{ColumnConstraint, Table, Width, presets};
use qm_api::time::Timestamp;
use serde_json::Value;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Not usable.
    Bad,
    /// Beside the point.
    Dim,
    /// A heading.
    Strong,
}

impl Style {
    /// Without colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false };

    /// Colour where standard output is a terminal and `NO_COLOR` is not set.
    pub(crate) fn of_stdout() -> Self {
        Self { colour: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    pub(crate) fn is_coloured(self) -> bool {
        self.colour
    }

    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The name of an availability in its tone.
    pub(crate) fn availability(self, word: &str) -> String {
        let tone = match word {
            "Available" | "AlmostAvailable" => Tone::Good,
            "PartiallyAvailable" => Tone::Warn,
            "TemporarilyUnavailable" | "Unavailable" | "SystemFailure" => Tone::Bad,
            _ => Tone::Dim,
        };
        self.paint(tone, word)
    }
}

/// The text without what would drive a terminal or break a line.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Rows under headings, columns three spaces apart; no heading line when `headings` is `None`.
pub(crate) fn table(headings: Option<&[String]>, rows: &[Vec<String>], widths: &[u16]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(headings) = headings {
        table.set_header(headings.to_vec());
    }
    table.add_rows(rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect::<Vec<_>>()));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 3));
        if let Some(width) = widths.get(index) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + 3)));
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// How wide each column of a table is, for rows that follow it.
pub(crate) fn widths(headings: &[String], rows: &[Vec<String>]) -> Vec<u16> {
    let width = |text: &str| u16::try_from(text.chars().count()).unwrap_or(u16::MAX - 3);
    let mut widths: Vec<u16> = headings.iter().map(|heading| width(heading)).collect();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            match widths.get_mut(at) {
                Some(known) => *known = (*known).max(width(cell)),
                None => widths.push(width(cell)),
            }
        }
    }
    widths
}

/// A JSON value as a person reads it in a cell: texts bare, nothing for null.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        other => other.to_string(),
    }
}

/// The value as YAML.
pub(crate) fn yaml(value: &Value) -> String {
    match serde_saphyr::to_string(value) {
        Ok(mut text) => {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text
        }
        // JSON is YAML; nothing that was parsed as JSON fails here.
        Err(_) => json(value),
    }
}

/// The value as JSON over several lines.
pub(crate) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The wall clock: the one place where the command line reads it.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// A span of time as people say it: `45s`, `5m10s`, `3h20m`, `2d4h`.
pub(crate) fn span(millis: i64) -> String {
    let seconds = millis.max(0) / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let (large, small, units) = match () {
        () if days > 0 => (days, hours % 24, ("d", "h")),
        () if hours > 0 => (hours, minutes % 60, ("h", "m")),
        () if minutes > 0 => (minutes, seconds % 60, ("m", "s")),
        () => return format!("{seconds}s"),
    };
    if small == 0 { format!("{large}{}", units.0) } else { format!("{large}{}{small}{}", units.0, units.1) }
}

/// The time from `instant` (RFC 3339) to `now`; empty when it cannot be read.
pub(crate) fn age(instant: &Value, now: Timestamp) -> String {
    let Some(Ok(at)) = instant.as_str().map(Timestamp::parse) else { return String::new() };
    span(now.millis_since(at))
}

/// `n thing` or `n things`.
pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Every line of `text` behind `indent`.
pub(crate) fn indent(text: &str, indent: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let _ = if line.is_empty() { writeln!(out) } else { writeln!(out, "{indent}{line}") };
        out
    })
}

thread_local! {
    /// What this thread prints, while [`caught`] collects it.
    static CAUGHT: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Collects what `work` prints on this thread, instead of printing it: for one command that shows the output of another.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> (T, String) {
    CAUGHT.set(Some(Vec::new()));
    let result = work();
    let bytes = CAUGHT.take().unwrap_or_default();
    (result, String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes to standard output, at once.
///
/// # Errors
/// When nobody reads it any more, or it cannot be written.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// [`print`] for bytes.
///
/// # Errors
/// As there.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let is_caught = CAUGHT.with_borrow_mut(|caught| caught.as_mut().map(|caught| caught.extend_from_slice(bytes)).is_some());
    if is_caught {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line to standard error, as well as that goes.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spans() {
        let table = [(0, "0s"), (-5, "0s"), (59_999, "59s"), (60_000, "1m"), (310_000, "5m10s"), (7_200_000, "2h"), (93_600_000, "1d2h")];
        for (millis, text) in table {
            assert_eq!(span(millis), text);
        }
    }

    #[test]
    fn columns_are_aligned_and_later_rows_fit_under_them() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let (headings, rows) = (row(&["NAME", "LEVEL", "REASON"]), [row(&["a-long-name", "0", "Healthy"]), row(&["b", "10", ""])]);
        insta::assert_snapshot!(table(Some(&headings), &rows, &[]), @r"
        NAME          LEVEL   REASON
        a-long-name   0       Healthy
        b             10
        ");
        let later = table(None, &[row(&["c", "1", "Starting"])], &widths(&headings, &rows));
        assert_eq!(later, "c             1       Starting\n");
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\nc"), "a [31mb c");
        assert_eq!(cell(&json!("x\ty")), "x y");
        assert_eq!((cell(&json!(null)), cell(&json!(3)), cell(&json!(true))), (String::new(), "3".into(), "true".into()));
        assert_eq!(Style::PLAIN.paint(Tone::Bad, "x"), "x");
        assert_eq!(Style { colour: true }.paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn yaml_is_read_back_as_the_same_value() {
        let value = json!({"a": [1, "two", null, {"b": "true"}], "c": "x: y", "d": "1.10", "e": {}, "f": "line\nline\n", "g": [], "h": "", "i": "~", "k": "0x10"});
        let back: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(back, value, "{}", yaml(&value));
    }
}
