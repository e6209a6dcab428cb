//! `test` and `what-if`: drills out of files, and one act on manifests or on what a running operator has. Reading, playing and judging are
//! in [`crate::drill`]; here are the arguments, the order of work, and what is printed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use qm_api::codes::Code;
use qm_api::field::{Problem, Violation};
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::registry;

use super::target::{KindArg, list_path, namespace_name};
use super::validate::{self, Texts};
use super::{CliError, Connect, Done, End, block_on};
use crate::drill::bind::{self, Nodes};
use crate::drill::cast::Cast;
use crate::drill::format::{self, Act, At, Drill, Given, Said, Spot, Step, Verb, What};
use crate::drill::load::{self, Manifests};
use crate::drill::play::{Outcome, on_stage};
use crate::drill::report::{self, Played};
use crate::output::{self, Style};

/// Play drills: what becomes of your manifests when something fails
///
/// Runs every `*.drill.yaml` below the folders on a simulated engine, in virtual time, with the operator itself: no Docker is needed, and
/// ten minutes of outage take a moment. Exits 0 when all expectations are met, 1 when one is not, 2 when a drill or a manifest is not
/// valid. docs/guide/drills.md says how drills are written.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster test ./manifests
  quaymaster test ./manifests --filter vault --timeline
  quaymaster test ./manifests --junit drills.xml")]
pub(crate) struct TestArgs {
    /// Folders with drills, or drills
    #[arg(value_name = "DIR", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Only drills with this in their name or path
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write what came of them as JUnit XML too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The form of the output
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
    /// Show everything that happened
    #[arg(long)]
    timeline: bool,
}

/// Show what would come of a failure: who flips when, who reloads, what does not heal
///
/// ACT is `down SERVICE [for TIME]`, `crash SERVICE`, `slow SERVICE TIME [for TIME]` or `block SERVICE [for TIME]`. It is played on a
/// simulated engine in virtual time; nothing that runs is touched. Without a DIR the running operator is asked for what it has. Exits 0
/// when everything heals, 1 when something does not.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster what-if 'down vault 10m'
  quaymaster what-if 'crash redis' -n notify
  quaymaster what-if 'down notify/vault for 10m' ./manifests -o json")]
pub(crate) struct WhatIfArgs {
    /// What happens
    #[arg(value_name = "ACT")]
    act: String,
    /// Folders of manifests; without one, what the running operator has
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The namespace of the service
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// The form of the output
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    output: Format,
    #[command(flatten)]
    connect: Connect,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is said where there are no drills.
const HOW_TO: &str = "\
write one, such as vault.drill.yaml beside your manifests:

  drill: vault away for ten minutes
  given: {manifests: .}
  steps:
    - {at: 0s, do: down vault for 10m}
    - {at: 9m, expect: {app: {usable: true}}}
    - {at: end, expect: {restarts: 0, all: usable}}

docs/guide/drills.md has the rest";

pub(crate) fn test(args: &TestArgs) -> Done {
    let mut files = Vec::new();
    for path in &args.paths {
        let found = load::find(path).map_err(|error| CliError::Usage(format!("{} cannot be read: {error}", path.display())))?;
        files.extend(found);
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        let places: Vec<String> = args.paths.iter().map(|path| path.display().to_string()).collect();
        return Err(CliError::Usage(format!("there is no *{} in {}; {HOW_TO}", load::ENDING, places.join(", "))));
    }
    let Some(drills) = prepare(&files)? else { return Ok(End::Invalid) };
    let wanted = |p: &&Prepared| args.filter.as_ref().is_none_or(|text| p.drill.name.contains(text) || p.file.contains(text));
    let chosen: Vec<&Prepared> = drills.iter().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = drills.iter().map(|p| p.drill.name.as_str()).collect();
        let filter = args.filter.as_deref().unwrap_or_default();
        return Err(CliError::Usage(format!("no drill has `{filter}` in its name; there are: {}", names.join(", "))));
    }
    let (mut played, style) = (Vec::new(), Style::of_stdout());
    for prepared in chosen {
        let one = Played { file: prepared.file.clone(), name: prepared.drill.name.clone(), outcome: prepared.play()? };
        if args.format == Format::Text {
            output::print(&report::text(&one, args.timeline, style))?;
        }
        played.push(one);
    }
    match args.format {
        Format::Text => output::print(&report::summary(&played, style))?,
        Format::Json => output::print(&output::json(&report::json(&played)))?,
    }
    if let Some(file) = &args.junit {
        fs::write(file, report::junit(&played))
            .map_err(|error| CliError::because(format!("{} cannot be written", file.display()), error))?;
    }
    Ok(if played.iter().all(Played::is_ok) { End::Fine } else { End::Differs })
}

/// A drill that can be played.
struct Prepared {
    /// The file as people name it.
    file: String,
    drill: Drill<ObjectKey>,
    manifests: Arc<Manifests>,
}

impl Prepared {
    fn play(&self) -> Result<Outcome, CliError> {
        let cast = Cast::of(&self.manifests.admission.objects, &self.drill.given);
        on_stage(cast, &self.drill, self.manifests.inputs.clone()).map_err(|error| CliError::because("the drill cannot be played", error))
    }
}

/// Reads drills and their manifests; `None` when something is not valid, which is reported then.
fn prepare(files: &[PathBuf]) -> Result<Option<Vec<Prepared>>, CliError> {
    let (mut drills, mut read, mut is_valid) = (Vec::new(), Library::default(), true);
    for path in files {
        let shown = path.strip_prefix("./").unwrap_or(path).display().to_string();
        let bytes = fs::read(path).map_err(|error| CliError::Usage(format!("{shown} cannot be read: {error}")))?;
        let name = Name::from(shown.as_str());
        match of_file(path, &name, &bytes, &mut read) {
            Ok(found) => drills.extend(found),
            Err(violations) => {
                is_valid = false;
                let mut texts = Texts::new();
                texts.add("", Path::new(""), &BTreeMap::from([(name, bytes.into())]));
                output::print(&crate::report::render(&violations, &texts, Style::of_stdout()))?;
            }
        }
    }
    for report in &read.refused {
        output::print(report)?;
    }
    Ok((is_valid && read.refused.is_empty()).then_some(drills))
}

/// Manifests that were read already, by their folders.
#[derive(Default)]
struct Library {
    read: BTreeMap<Vec<PathBuf>, Arc<Manifests>>,
    /// What is wrong with some of them, as it is shown.
    refused: Vec<String>,
}

impl Library {
    fn read(&mut self, dirs: Vec<PathBuf>) -> Result<Arc<Manifests>, String> {
        if let Some(manifests) = self.read.get(&dirs) {
            return Ok(Arc::clone(manifests));
        }
        let manifests = Arc::new(Manifests::of_folders(&dirs)?);
        if manifests.admission.has_errors() {
            match validate::check(&dirs) {
                Ok(checked) => self.refused.push(checked.text(Style::of_stdout())),
                Err(error) => self.refused.push(format!("{error}\n")),
            }
        }
        self.read.insert(dirs, Arc::clone(&manifests));
        Ok(manifests)
    }
}

/// The drills of one file, bound to their manifests.
fn of_file(path: &Path, name: &Name, bytes: &[u8], library: &mut Library) -> Result<Vec<Prepared>, Vec<Violation>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut prepared = Vec::new();
    for drill in format::parse(name, bytes)? {
        let dirs = folders(folder, &drill.given).map_err(|fault| format::place(vec![fault], name))?;
        let unreadable = |message| {
            let at = drill.given.manifests.first().map(|said| said.at.clone()).unwrap_or_default();
            let problem = Problem::error(Code::Unreadable, at.path, message);
            format::place(vec![(problem.help("`given.manifests` names the folder, seen from the drill's own"), at.span)], name)
        };
        let manifests = library.read(dirs).map_err(unreadable)?;
        // Names cannot be found in what could not be read; that is reported by itself.
        if manifests.admission.has_errors() {
            continue;
        }
        let nodes = Nodes::of(&manifests.admission.objects);
        let drill = bind::bind(drill, &nodes).map_err(|faults| format::place(faults, name))?;
        prepared.push(Prepared { file: name.to_string(), drill, manifests });
    }
    Ok(prepared)
}

fn folders(folder: &Path, given: &Given) -> Result<Vec<PathBuf>, format::Fault> {
    let here = [Said { text: ".".to_owned(), at: Spot::default() }];
    let written = if given.manifests.is_empty() { &here[..] } else { &given.manifests };
    let dir = |said: &Said| {
        let dir = load::seen_from(folder, &said.text);
        if dir.is_dir() {
            return Ok(dir);
        }
        let problem = Problem::error(Code::Unreadable, said.at.path.clone(), format!("{} is no folder", dir.display()));
        Err((problem.help("the folder of the manifests, seen from the drill's own"), said.at.span))
    };
    written.iter().map(dir).collect()
}

pub(crate) fn what_if(args: &WhatIfArgs) -> Done {
    let usage = |(message, help): (String, String)| CliError::Usage(if help.is_empty() { message } else { format!("{message}: {help}") });
    let (verb, name) = format::act(&args.act).map_err(usage)?;
    let name = match &args.namespace {
        Some(namespace) if !name.contains('/') => format!("{namespace}/{name}"),
        _ => name,
    };
    let manifests = match args.dirs.as_slice() {
        [] => live(&args.connect).inspect_err(|error| {
            if matches!(error, CliError::Client(error) if error.is_absent()) {
                output::note("note: without an operator, name the folder of the manifests: quaymaster what-if ACT DIR");
            }
        })?,
        dirs => Manifests::of_folders(dirs).map_err(CliError::Usage)?,
    };
    if manifests.admission.has_errors() {
        output::print(&validate::check(&args.dirs)?.text(Style::of_stdout()))?;
        return Ok(End::Invalid);
    }
    let nodes = Nodes::of(&manifests.admission.objects);
    let (on, form) = nodes.find(&name).map_err(usage)?;
    bind::suits(verb, form).map_err(|(why, help)| CliError::Usage(format!("{name} {why}: {help}")))?;
    let act = Act { verb, on: on.clone(), text: args.act.clone(), at: Spot::default() };
    let has_end = match verb {
        Verb::Down { for_ms } | Verb::Slow { for_ms, .. } | Verb::Block { for_ms } => for_ms.is_some(),
        Verb::Up | Verb::Crash | Verb::Unblock => true,
    };
    let steps = vec![Step { at: At::Ms(0), what: What::Do(vec![act]) }, Step { at: At::End, what: What::Expect(Vec::new()) }];
    let drill = Drill { name: args.act.clone(), given: Given::default(), steps };
    let prepared = Prepared { file: String::new(), drill, manifests: Arc::new(manifests) };
    let outcome = prepared.play()?;
    match args.output {
        Format::Text => output::print(&report::what_if(&args.act, has_end, &outcome, Style::of_stdout()))?,
        Format::Json => output::print(&output::json(&report::what_if_json(&args.act, &outcome)))?,
    }
    Ok(if report::has_healed(&outcome) { End::Fine } else { End::Differs })
}

/// What a running operator has.
fn live(connect: &Connect) -> Result<Manifests, CliError> {
    let objects = block_on(async {
        let client = connect.client();
        let mut objects = Vec::new();
        for kind in registry::user_kinds() {
            let list = client.get(&list_path(KindArg(kind), None)).await?;
            for mut item in list["items"].as_array().cloned().unwrap_or_default() {
                // The items of a list leave out what the list says.
                item["apiVersion"] = qm_api::meta::API_VERSION.into();
                item["kind"] = kind.kind.into();
                objects.push(item);
            }
        }
        Ok(objects)
    })?;
    let (manifests, emptied) = Manifests::of_objects(&objects).map_err(CliError::failed)?;
    if !emptied.is_empty() {
        output::note(&format!("note: the operator does not give out files; these are empty here: {}", emptied.join(", ")));
    }
    Ok(manifests)
}
