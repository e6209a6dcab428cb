//! Owns how violations are shown on the text they stand in, with miette: code, message, snippet, help, related places.
//!
//! Draws only; what is wrong was decided by admission. A violation without a text (of a file that is not at hand) shows its place by name.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use qm_api::field::{Place, Severity, Violation};

use crate::cli::validate::Texts;
use crate::output::{Style, clean, count};

/// So many violations are drawn; the others are counted.
const MAX_DRAWN: usize = 100;
/// So many related places of one violation are drawn.
const MAX_RELATED: usize = 16;
/// How wide reports are.
const WIDTH: usize = 120;

/// All violations, each on its text.
pub(crate) fn render(violations: &[Violation], texts: &Texts, style: Style) -> String {
    let theme = if style.is_coloured() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
    let mut out = String::new();
    for violation in violations.iter().take(MAX_DRAWN) {
        // A report is text; writing one into a string fails only where it itself does.
        if handler.render_report(&mut out, &Shown::new(violation, texts)).is_err() {
            let _ = writeln!(out, "{} {}", violation.code, clean(&violation.message));
        }
        out.push('\n');
    }
    if violations.len() > MAX_DRAWN {
        let _ = writeln!(out, "and {} (--format json has all)\n", count(violations.len() - MAX_DRAWN, "more problem"));
    }
    // The drawing pads some lines to their full width.
    out.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

/// One violation, or one of its related places, as miette wants it.
#[derive(Debug)]
struct Shown {
    code: Option<String>,
    severity: miette::Severity,
    message: String,
    help: String,
    source: Option<NamedSource<Arc<str>>>,
    labels: Vec<LabeledSpan>,
    related: Vec<Shown>,
}

impl Shown {
    fn new(violation: &Violation, texts: &Texts) -> Self {
        let severity = match violation.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let found = violation.place.as_ref().and_then(|place| Some((place, texts.get(&place.source, &place.file)?)));
        let (mut source, mut labels) = (None, Vec::new());
        let mut message = clean(&violation.message);
        // What a related place says of the very same spot says more than the path of the field.
        let same = violation.related.iter().find(|(place, _)| violation.place.as_ref() == Some(place));
        let words = same.map_or(violation.path.as_str(), |(_, text)| text);
        match found {
            Some((place, (shown, text))) => match label(place, text, Some(clean(words))) {
                Some(label) => {
                    labels.push(label);
                    source = Some(NamedSource::new(shown, text.clone()));
                }
                None => message = elsewhere(&Place { file: shown.into(), ..place.clone() }, &message),
            },
            None => message = violation.place.as_ref().map_or(message.clone(), |place| elsewhere(place, &message)),
        }
        let mut related = Vec::new();
        for (place, text) in violation.related.iter().filter(|(place, _)| violation.place.as_ref() != Some(place)).take(MAX_RELATED) {
            let is_here =
                source.is_some() && violation.place.as_ref().is_some_and(|own| own.source == place.source && own.file == place.file);
            match texts.get(&place.source, &place.file) {
                Some((_, whole)) if is_here => labels.extend(label(place, whole, Some(clean(text)))),
                found => related.push(Self::beside(place, &clean(text), found)),
            }
        }
        Self {
            code: Some(format!("{} {}", violation.code, violation.code.title())),
            severity,
            message,
            help: clean(&violation.help),
            source,
            labels,
            related,
        }
    }

    /// A related place in another file.
    fn beside(place: &Place, text: &str, found: Option<(&str, &Arc<str>)>) -> Self {
        let mut shown = Self {
            code: None,
            severity: miette::Severity::Advice,
            message: text.to_owned(),
            help: String::new(),
            source: None,
            labels: Vec::new(),
            related: Vec::new(),
        };
        match found.and_then(|(name, whole)| Some((name, whole, label(place, whole, None)?))) {
            Some((name, whole, label)) => {
                shown.source = Some(NamedSource::new(name, whole.clone()));
                shown.labels.push(label);
            }
            None => shown.message = elsewhere(place, text),
        }
        shown
    }
}

/// What is said of a place whose text cannot be shown.
fn elsewhere(place: &Place, message: &str) -> String {
    if place.file.is_empty() { message.to_owned() } else { format!("{}: {message}", clean(&place.to_string())) }
}

/// The part of the text that is pointed at: the first line of the place. None for a whole file.
fn label(place: &Place, text: &str, words: Option<String>) -> Option<LabeledSpan> {
    let rest = text.get(place.start..).filter(|_| place.line > 0)?;
    let line = rest.find(['\n', '\r']).unwrap_or(rest.len());
    let length = place.end.saturating_sub(place.start).min(line);
    Some(LabeledSpan::new(words.filter(|words| !words.is_empty()), place.start, length))
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.code.as_ref().map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }
    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        (!self.related.is_empty())
            .then(|| Box::new(self.related.iter().map(|shown| shown as &dyn Diagnostic)) as Box<dyn Iterator<Item = &dyn Diagnostic>>)
    }
}
