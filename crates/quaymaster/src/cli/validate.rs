//! `validate`: manifests judged by the one admission, in this process, with every problem shown on its YAML.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use qm_api::admit::{Admission, Attached, FileInput, Known, LastGood, Set, Unreadable, admit_set};
use qm_api::field::Severity;
use qm_api::manifest::{self, Limits, parse_file};
use qm_api::name::Name;
use qm_source::{Attachment, Health, Manifest, Options, References, RelPath, scan_once};
use serde_json::{Value, json};

use super::{CliError, Done, End};
use crate::output::{self, Style, Tone, count};
use crate::report;

/// Check manifests without an operator or an engine
///
/// Shows every problem at once, on the text. Exits 2 when something is an error, 0 when there are only warnings.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster validate
  quaymaster validate ./manifests ./more/app.yaml
  quaymaster validate ./manifests --format json")]
pub(crate) struct ValidateArgs {
    /// Folders or files; `-` is standard input; all are checked as one set
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// The form of the output
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The most bytes that are read from standard input.
const MAX_INPUT_BYTES: u64 = 64 << 20;

pub(crate) fn validate(args: &ValidateArgs) -> Done {
    let checked = check(&args.paths)?;
    match args.format {
        Format::Text => output::print(&checked.text(Style::of_stdout()))?,
        Format::Json => output::print(&output::json(&checked.json()))?,
    }
    Ok(if checked.admission.has_errors() { End::Invalid } else { End::Fine })
}

/// The texts of files, by source and path, each with the name under which it is shown.
#[derive(Debug, Default)]
pub(crate) struct Texts(BTreeMap<(Name, Name), Text>);

#[derive(Debug)]
struct Text {
    shown: String,
    text: Arc<str>,
}

impl Texts {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes in the files of a source that is the folder `dir`.
    pub(crate) fn add(&mut self, source: &str, dir: &Path, files: &BTreeMap<Name, Arc<[u8]>>) {
        for (path, bytes) in files {
            let shown = dir.join(path.as_str()).display().to_string();
            let shown = shown.strip_prefix("./").map(str::to_owned).unwrap_or(shown);
            self.insert(source, path, shown, bytes);
        }
    }

    fn insert(&mut self, source: &str, path: &Name, shown: String, bytes: &[u8]) {
        // Places count bytes of the file: a text with replaced bytes would shift them.
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        self.0.insert((source.into(), path.clone()), Text { shown, text: text.into() });
    }

    /// How a file is called, and its text.
    pub(crate) fn get(&self, source: &Name, path: &Name) -> Option<(&str, &Arc<str>)> {
        self.0.get(&(source.clone(), path.clone())).map(|text| (text.shown.as_str(), &text.text))
    }
}

/// What was read of one folder or file.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Manifests and what they refer to, by path.
    pub(crate) files: BTreeMap<Name, Arc<[u8]>>,
    /// Which of them are manifests.
    manifests: Vec<Name>,
    attachments: BTreeMap<Name, Attached>,
    /// Manifests that cannot be had.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Entries that are neither.
    problems: Vec<String>,
}

/// Reads a folder as a source would.
pub(crate) fn read_folder(dir: &Path) -> Read {
    let references: References = Arc::new(|path: &RelPath, bytes: &[u8]| {
        manifest::references(&path.as_str().into(), bytes).iter().filter_map(|file| RelPath::parse(file).ok()).collect()
    });
    let snapshot = scan_once(dir, &Options::default(), &references);
    let mut read = Read::default();
    if let Health::Unreadable { reason } = &snapshot.health {
        read.unreadable.push(Unreadable { source: Name::default(), file: Name::default(), reason: reason.clone() });
    }
    for (path, manifest) in &snapshot.manifests {
        let path = Name::from(path.as_str());
        match manifest {
            Manifest::File(file) => {
                read.files.insert(path.clone(), file.bytes.clone());
                read.manifests.push(path);
            }
            Manifest::Refused(problem) => {
                read.unreadable.push(Unreadable { source: Name::default(), file: path, reason: problem.to_string() });
            }
        }
    }
    for (path, attachment) in &snapshot.attachments {
        let path = Name::from(path.as_str());
        let attached = match attachment {
            Attachment::File(file) => {
                read.files.entry(path.clone()).or_insert_with(|| file.bytes.clone());
                Attached::File { digest: file.digest, bytes: file.bytes.clone() }
            }
            Attachment::Missing => Attached::Missing,
            Attachment::Refused(problem) => Attached::Refused(problem.to_string()),
        };
        read.attachments.insert(path, attached);
    }
    read.problems = snapshot.problems.iter().map(|(path, problem)| format!("{} {problem}", dir.join(path).display())).collect();
    read
}

/// Reads one file, and what it refers to beside it.
fn read_file(path: &Path, bytes: Vec<u8>) -> Read {
    let name = Name::from(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut read = Read::default();
    for file in manifest::references(&name, &bytes) {
        let attached = match std::fs::read(dir.join(file.as_str())) {
            Ok(bytes) => {
                let held = qm_source::File::new(bytes);
                read.files.insert(file.clone(), held.bytes.clone());
                Attached::File { digest: held.digest, bytes: held.bytes }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Attached::Missing,
            Err(error) => Attached::Refused(format!("cannot be read: {error}")),
        };
        read.attachments.insert(file, attached);
    }
    read.files.insert(name.clone(), bytes.into());
    read.manifests.push(name);
    read
}

fn read(path: &Path) -> Result<Read, CliError> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let mut input = std::io::stdin().lock().take(MAX_INPUT_BYTES);
        input.read_to_end(&mut bytes).map_err(|error| CliError::because("standard input cannot be read", error))?;
        return Ok(read_file(Path::new("<stdin>"), bytes));
    }
    let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
    if !is_file {
        return Ok(read_folder(path));
    }
    let bytes = std::fs::read(path).map_err(|error| CliError::Usage(format!("{} cannot be read: {error}", path.display())))?;
    Ok(read_file(path, bytes))
}

/// What admission says of a set.
pub(crate) struct Checked {
    pub(crate) admission: Admission,
    texts: Texts,
    problems: Vec<String>,
    manifests: usize,
    documents: usize,
}

/// Judges folders and files as one set.
///
/// # Errors
/// When one of them cannot be read at all.
pub(crate) fn check(paths: &[PathBuf]) -> Result<Checked, CliError> {
    let mut texts = Texts::new();
    let (mut files, mut attachments, mut unreadable) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut problems = Vec::new();
    for path in paths {
        let read = read(path)?;
        let source = Name::from(path.display().to_string());
        if let Some(whole) = read.unreadable.iter().find(|problem| problem.file.is_empty()) {
            return Err(CliError::Usage(format!("{} cannot be read: {}", path.display(), whole.reason)));
        }
        let dir = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new("")) };
        texts.add(&source, dir, &read.files);
        for name in &read.manifests {
            let parsed = read.files.get(name).map(|bytes| parse_file(name, bytes, &Limits::default())).unwrap_or_default();
            files.push(FileInput { source: source.clone(), parsed: Arc::new(parsed) });
        }
        attachments.extend(read.attachments.into_iter().map(|(file, attached)| ((source.clone(), file), attached)));
        unreadable.extend(read.unreadable.into_iter().map(|problem| Unreadable { source: source.clone(), ..problem }));
        problems.extend(read.problems);
    }
    let existing = Known::default();
    let set = Set { files: &files, attachments: &attachments, existing: &existing, unreadable: &unreadable };
    let admission = admit_set(&set, &LastGood::new());
    let documents = files.iter().map(|file| file.parsed.documents.len() + file.parsed.bad.len()).sum();
    Ok(Checked { admission, texts, problems, manifests: files.len(), documents })
}

impl Checked {
    fn count_of(&self, severity: Severity) -> usize {
        self.admission.violations.iter().filter(|violation| violation.severity == severity).count()
    }

    /// The report with its last line.
    pub(crate) fn text(&self, style: Style) -> String {
        let mut out = report::render(&self.admission.violations, &self.texts, style);
        for problem in &self.problems {
            let _ = writeln!(out, "{} {}", style.paint(Tone::Warn, "note:"), output::clean(problem));
        }
        let _ = writeln!(out, "{}", self.summary(style));
        out
    }

    fn summary(&self, style: Style) -> String {
        let (errors, warnings) = (self.count_of(Severity::Error), self.count_of(Severity::Warning));
        let mut line = format!("{} in {}", count(self.documents, "object"), count(self.manifests, "file"));
        if self.admission.skipped > 0 {
            let _ = write!(line, " ({} of others left out)", count(self.admission.skipped, "document"));
        }
        let (verdict, tone) = match (errors, warnings) {
            _ if self.documents == 0 && errors == 0 => ("nothing of quaymaster.dev was found".to_owned(), Tone::Warn),
            (0, 0) => ("all valid".to_owned(), Tone::Good),
            (0, warnings) => (format!("valid, with {}", count(warnings, "warning")), Tone::Warn),
            (errors, 0) => (count(errors, "error"), Tone::Bad),
            (errors, warnings) => (format!("{}, {}", count(errors, "error"), count(warnings, "warning")), Tone::Bad),
        };
        let mut line = format!("{line}: {}", style.paint(tone, &verdict));
        if !self.admission.frozen.is_empty() {
            let names: Vec<&str> = self.admission.frozen.keys().map(Name::as_str).collect();
            let _ = write!(line, "; nothing would change in {}", names.join(", "));
        }
        line
    }

    fn json(&self) -> Value {
        json!({
            "violations": self.admission.violations,
            "problems": self.problems,
            "frozen": self.admission.frozen.keys().collect::<Vec<_>>(),
            "summary": {
                "files": self.manifests, "objects": self.documents, "skipped": self.admission.skipped,
                "errors": self.count_of(Severity::Error), "warnings": self.count_of(Severity::Warning),
            },
        })
    }
}
