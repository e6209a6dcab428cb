//! Owns how drills are written: from the text of a `*.drill.yaml` to closed enums, with every problem at its place. Reads no file and
//! knows no manifests: names are bound to services in [`super::bind`].

mod schema;

pub(crate) use schema::schema;

use qm_api::availability::Availability;
use qm_api::codes::Code;
use qm_api::conditions::Reason;
use qm_api::field::{FieldPath, Place, Problem, Violation};
use qm_api::manifest::tree::{Content, Entry, Node, ScalarKind, Span};
use qm_api::manifest::walk::{list_words, suggest};
use qm_api::manifest::{Limits, yaml};
use qm_api::name::Name;
use qm_api::spec::quantity::Duration;
use qm_dockersim::World;
use serde_json::Value;

/// A name as the drill writes it, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) at: Spot,
}

/// A place in a drill.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spot {
    pub(crate) path: FieldPath,
    pub(crate) span: Span,
}

/// Something that is wrong, at its place.
pub(crate) type Fault = (Problem, Span);

/// One drill; `S` is how it names services: [`Said`], and bound to manifests their keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drill<S> {
    /// What it is about.
    pub(crate) name: String,
    pub(crate) given: Given,
    pub(crate) steps: Vec<Step<S>>,
}

/// What is there before it begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Given {
    /// Folders of manifests, relative to the drill's own.
    pub(crate) manifests: Vec<Said>,
    /// What the engine and its containers are like; with the images that it speaks of.
    pub(crate) world: Option<World>,
    /// Whether the world says which images there are.
    pub(crate) names_images: bool,
    pub(crate) start: Start,
}

/// When the drill's clock starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// When everything is up.
    #[default]
    Warm,
    /// Before anything is created.
    Cold,
}

/// Something at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step<S> {
    pub(crate) at: At,
    pub(crate) what: What<S>,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// So many milliseconds after the beginning.
    Ms(u64),
    /// When nothing changes any more.
    End,
}

/// What is done, or what must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What<S> {
    Do(Vec<Act<S>>),
    Expect(Vec<Expected<S>>),
}

/// Something that happens to a service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Act<S> {
    pub(crate) verb: Verb,
    pub(crate) on: S,
    /// As it is written.
    pub(crate) text: String,
    pub(crate) at: Spot,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// It does not work; for so long, or to the end.
    Down { for_ms: Option<u64> },
    /// What the drill did to it is over.
    Up,
    /// Its containers end by themselves, once.
    Crash,
    /// It takes so long until it answers.
    Slow { takes_ms: u64, for_ms: Option<u64> },
    /// A person keeps others from using it.
    Block { for_ms: Option<u64> },
    /// The person has ended that.
    Unblock,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected<S> {
    pub(crate) what: Claim<S>,
    pub(crate) at: Spot,
}

/// What must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Claim<S> {
    /// Of one service.
    Of(S, Quality<S>),
    /// Of every service that is not off.
    All(Together),
    /// So many restarts of all services.
    Restarts(u64),
    /// So many reloads of all services.
    Reloads(u64),
    /// They reloaded, or started, in this order.
    Order(Vec<S>),
    /// Events with these reasons were told, of whomever.
    Events(Vec<Reason>),
}

/// What must hold of one service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Quality<S> {
    Availability(Availability),
    Usable(bool),
    /// These are to blame.
    Because(Vec<S>),
    Reason(Reason),
    Reloads(u64),
    Restarts(u64),
    Events(Vec<Reason>),
}

/// What must hold of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Together {
    /// 3 or better.
    Usable,
    /// 1.
    Available,
}

/// Keys of an expectation that are no services.
const TOTALS: [&str; 5] = ["all", "restarts", "reloads", "order", "events"];
/// What can be expected of one service.
const QUALITIES: [&str; 7] = ["availability", "usable", "because", "reason", "reloads", "restarts", "events"];
/// How each verb is written.
const VERBS: [(&str, &str); 6] = [
    ("down", "down SERVICE [for TIME]"),
    ("up", "up SERVICE"),
    ("crash", "crash SERVICE"),
    ("slow", "slow SERVICE TIME [for TIME]"),
    ("block", "block SERVICE [for TIME]"),
    ("unblock", "unblock SERVICE"),
];

/// Reads the drills of one file.
///
/// # Errors
/// Everything that is wrong with it; places have no source.
pub(crate) fn parse(file: &Name, bytes: &[u8]) -> Result<Vec<Drill<Said>>, Vec<Violation>> {
    let mut reader = Reader::default();
    let mut drills = Vec::new();
    match documents(bytes) {
        Ok(documents) => {
            let mut documents = documents.iter().filter(|document| !document.is_null()).peekable();
            if documents.peek().is_none() {
                reader.fault(Code::Missing, &Spot::default(), "the file has no drill", "begin with `drill: what it is about`");
            }
            drills.extend(documents.filter_map(|document| reader.drill(document)));
        }
        Err(faults) => reader.faults = faults,
    }
    if reader.faults.is_empty() { Ok(drills) } else { Err(place(reader.faults, file)) }
}

/// Faults as they are shown.
pub(crate) fn place(faults: Vec<Fault>, file: &Name) -> Vec<Violation> {
    let whole = || Place { file: file.clone(), ..Place::default() };
    faults.into_iter().map(|(problem, span)| problem.placed(None, Some(span.place(&Name::default(), file).unwrap_or_else(whole)))).collect()
}

fn documents(bytes: &[u8]) -> Result<Vec<Node>, Vec<Fault>> {
    let fault = |fault: yaml::Fault| {
        let problem = Problem::error(fault.code, FieldPath::root(), fault.message).help(fault.help);
        (problem, fault.span)
    };
    let text = yaml::check_text(bytes).map_err(|wrong| vec![fault(wrong)])?;
    let stream = yaml::parse(text, &Limits::default());
    let faults: Vec<Fault> = stream.fatal.into_iter().chain(stream.faults.into_iter().map(|(_, wrong)| wrong)).map(fault).collect();
    if faults.is_empty() { Ok(stream.documents) } else { Err(faults) }
}

/// Reads `VERB SERVICE ..`.
///
/// # Errors
/// What is wrong, and what to write.
pub(crate) fn act(text: &str) -> Result<(Verb, String), (String, String)> {
    let mut words = text.split_whitespace();
    let verb = words.next().unwrap_or_default();
    let Some((_, form)) = VERBS.iter().find(|(known, _)| *known == verb) else {
        let near = suggest(verb, VERBS.iter().map(|(word, _)| *word)).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        let forms = VERBS.map(|(_, form)| form).join(", ");
        return Err((format!("`{verb}` is nothing that can be done in a drill"), format!("{near}write one of: {forms}")));
    };
    let wrong = |what: &str| (format!("`{text}` {what}"), format!("write `{form}`, with a time such as 30s or 10m"));
    let on = words.next().ok_or_else(|| wrong("names no service"))?.to_owned();
    let mut rest: Vec<&str> = words.collect();
    let read =
        |time: &str| time.parse::<Duration>().map(Duration::as_millis).map_err(|_| wrong(&format!("has `{time}` where a time must be")));
    let takes = match verb {
        "slow" if rest.is_empty() => return Err(wrong("does not say how slow")),
        "slow" => Some(read(rest.remove(0))?),
        _ => None,
    };
    // `down vault 10m` is how people say it on a command line.
    if rest.first() == Some(&"for") && rest.len() > 1 {
        rest.remove(0);
    }
    let lasts = matches!(verb, "down" | "slow" | "block");
    let for_ms = match rest.as_slice() {
        [] => None,
        [time] if lasts => Some(read(time)?),
        [word, ..] => return Err(wrong(&format!("goes on with `{word}`"))),
    };
    let verb = match (verb, takes) {
        ("down", _) => Verb::Down { for_ms },
        ("up", _) => Verb::Up,
        ("crash", _) => Verb::Crash,
        ("slow", takes) => Verb::Slow { takes_ms: takes.unwrap_or_default(), for_ms },
        ("block", _) => Verb::Block { for_ms },
        _ => Verb::Unblock,
    };
    Ok((verb, on))
}

/// Reads nodes, and notes what is wrong with them.
#[derive(Debug, Default)]
struct Reader {
    faults: Vec<Fault>,
}

/// A node, and what to call it.
#[derive(Clone, Copy)]
struct Field<'a> {
    node: &'a Node,
    spot: &'a Spot,
}

fn spot_of(node: &Node, at: Span, path: FieldPath) -> Spot {
    let span = if matches!(node.content, Content::Scalar(..)) && !node.is_null() { node.span } else { at };
    Spot { path, span }
}

impl Reader {
    fn fault(&mut self, code: Code, spot: &Spot, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push((Problem::error(code, spot.path.clone(), message).help(help), spot.span));
    }

    /// The entries of a map; `None` and a fault when it is none.
    fn map<'a>(&mut self, field: Field<'a>, wanted: &str) -> Option<&'a [Entry]> {
        match &field.node.content {
            Content::Map(entries) => Some(entries),
            _ => {
                self.wrong_type(field, wanted);
                None
            }
        }
    }

    fn wrong_type(&mut self, field: Field<'_>, wanted: &str) {
        let path = if field.spot.path.as_str().is_empty() { "a drill".to_owned() } else { format!("`{}`", field.spot.path) };
        self.fault(Code::WrongType, field.spot, format!("{path} must be {wanted}, not {}", field.node.describe()), "");
    }

    /// Notes keys that are not known.
    fn only(&mut self, entries: &[Entry], path: &FieldPath, known: &[&str]) {
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let spot = Spot { path: path.key(&entry.key), span: entry.span };
            let place = if path.as_str().is_empty() { "a drill".to_owned() } else { format!("`{path}`") };
            let help = match suggest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", list_words(known.iter().copied())),
            };
            self.fault(Code::UnknownField, &spot, format!("there is no field `{}` in {place}", entry.key), help);
        }
    }

    fn text(&mut self, field: Field<'_>, wanted: &str) -> Option<String> {
        let text = field.node.text().map(str::to_owned);
        if text.is_none() {
            self.wrong_type(field, wanted);
        }
        text
    }

    fn count(&mut self, field: Field<'_>) -> Option<u64> {
        let number = field.node.text().and_then(|text| text.parse().ok());
        if number.is_none() {
            self.wrong_type(field, "a number from 0");
        }
        number
    }

    fn drill(&mut self, node: &Node) -> Option<Drill<Said>> {
        let root = Spot { path: FieldPath::root(), span: node.span };
        let entries = self.map(Field { node, spot: &root }, "a map with `drill` and `steps`")?;
        self.only(entries, &root.path, &["drill", "given", "steps"]);
        let spot = |name: &str| node.entry(name).map(|e| (&e.value, spot_of(&e.value, e.span, root.path.key(name))));
        let name = match spot("drill") {
            Some((node, spot)) => self.text(Field { node, spot: &spot }, "a text: what the drill is about"),
            None => {
                self.fault(Code::Missing, &root, "`drill` is missing", "add `drill: what it is about`");
                None
            }
        };
        let given = match spot("given") {
            Some((node, spot)) if !node.is_null() => self.given(Field { node, spot: &spot }),
            _ => Given::default(),
        };
        let steps = match spot("steps") {
            Some((node, spot)) => self.steps(Field { node, spot: &spot }),
            None => {
                self.fault(Code::Missing, &root, "`steps` is missing", "add what happens and what is expected");
                Vec::new()
            }
        };
        Some(Drill { name: name?, given, steps })
    }

    fn given(&mut self, field: Field<'_>) -> Given {
        let mut given = Given::default();
        let Some(entries) = self.map(field, "a map") else { return given };
        self.only(entries, &field.spot.path, &["manifests", "world", "start"]);
        for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
            let spot = spot_of(&entry.value, entry.span, field.spot.path.key(&entry.key));
            let below = Field { node: &entry.value, spot: &spot };
            match &*entry.key {
                "manifests" => given.manifests = self.names(below, "a folder, or a list of folders"),
                "world" => (given.world, given.names_images) = self.world(below),
                "start" => {
                    given.start = match self.word(below, &["Warm", "Cold"]) {
                        Some("Cold") => Start::Cold,
                        _ => Start::Warm,
                    };
                }
                _ => {}
            }
        }
        given
    }

    /// A world has the shape of the sandbox's; where something is wrong within it, its own reader says what.
    fn world(&mut self, field: Field<'_>) -> (Option<World>, bool) {
        let Some(value) = value(field.node) else {
            self.wrong_type(field, "a map");
            return (None, false);
        };
        match World::parse(&value.to_string()) {
            Ok(world) => (Some(world), value.get("images").is_some()),
            Err(error) => {
                let first = error.lines().next().unwrap_or_default().to_owned();
                let message = format!("the world is not right: {first}");
                self.fault(
                    Code::WrongValue,
                    field.spot,
                    message,
                    "it is written as the file of `--engine sim --world`: docs/guide/sandbox.md",
                );
                (None, false)
            }
        }
    }

    /// One of some words.
    fn word<'w>(&mut self, field: Field<'_>, words: &[&'w str]) -> Option<&'w str> {
        let text = field.node.text().unwrap_or_default();
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let help = suggest(text, words.iter().copied()).map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            let message = format!("`{}` must be one of {}, not `{text}`", field.spot.path, list_words(words.iter().copied()));
            self.fault(Code::WrongValue, field.spot, message, help);
        }
        found
    }

    /// A text or a list of texts, each with its place.
    fn names(&mut self, field: Field<'_>, wanted: &str) -> Vec<Said> {
        let Content::List(items) = &field.node.content else {
            let text = self.text(field, wanted);
            return text.into_iter().map(|text| Said { text, at: field.spot.clone() }).collect();
        };
        if items.is_empty() {
            let message = format!("`{}` is an empty list: that says nothing", field.spot.path);
            self.fault(Code::WrongValue, field.spot, message, format!("write {wanted}, or leave it out"));
        }
        let mut names = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let spot = spot_of(item, item.span, field.spot.path.index(index));
            if let Some(text) = self.text(Field { node: item, spot: &spot }, "a text") {
                names.push(Said { text, at: spot });
            }
        }
        names
    }

    fn steps(&mut self, field: Field<'_>) -> Vec<Step<Said>> {
        let Content::List(items) = &field.node.content else {
            self.wrong_type(field, "a list");
            return Vec::new();
        };
        if items.is_empty() {
            self.fault(Code::Missing, field.spot, "there are no steps", "add what happens and what is expected");
        }
        let (mut steps, mut last) = (Vec::new(), At::Ms(0));
        for (index, item) in items.iter().enumerate() {
            let spot = spot_of(item, item.span, field.spot.path.index(index));
            let Some(step) = self.step(Field { node: item, spot: &spot }) else { continue };
            let is_late = match (last, step.at) {
                (At::End, At::Ms(_)) => true,
                (At::Ms(last), At::Ms(this)) => this < last,
                (_, At::End) => false,
            };
            if is_late {
                let spot = spot_of(item, item.entry("at").map_or(item.span, |e| e.value.span), spot.path.key("at"));
                self.fault(Code::OutOfRange, &spot, "a step is earlier than the one before it", "write the steps in the order of time");
            }
            last = step.at;
            steps.push(step);
        }
        steps
    }

    fn step(&mut self, field: Field<'_>) -> Option<Step<Said>> {
        let entries = self.map(field, "a map with `at`, and `do` or `expect`")?;
        self.only(entries, &field.spot.path, &["at", "do", "expect"]);
        let spot = |name: &str| field.node.entry(name).map(|e| (&e.value, spot_of(&e.value, e.span, field.spot.path.key(name))));
        let at = match spot("at") {
            Some((node, spot)) => self.at(Field { node, spot: &spot }),
            None => {
                self.fault(
                    Code::Missing,
                    field.spot,
                    format!("`at` is missing in `{}`", field.spot.path),
                    "a time such as 0s or 9m, or `end`",
                );
                None
            }
        };
        let what = match (spot("do"), spot("expect")) {
            (Some((node, spot)), None) => What::Do(self.acts(Field { node, spot: &spot })),
            (None, Some((node, spot))) => What::Expect(self.expected(Field { node, spot: &spot })),
            _ => {
                let message = format!("`{}` must have one of `do` and `expect`", field.spot.path);
                self.fault(Code::OneOf, field.spot, message, "one step does something, another one expects something");
                return None;
            }
        };
        if let (Some(At::End), What::Do(_)) = (at, &what) {
            self.fault(
                Code::BadCombination,
                field.spot,
                "nothing can be done at the end: the end is when nothing happens any more",
                "give it a time",
            );
        }
        Some(Step { at: at?, what })
    }

    fn at(&mut self, field: Field<'_>) -> Option<At> {
        let text = self.text(field, "a time such as 9m, or `end`")?;
        if text == "end" {
            return Some(At::End);
        }
        match text.parse::<Duration>() {
            Ok(time) => Some(At::Ms(time.as_millis())),
            Err(error) => {
                self.fault(Code::BadFormat, field.spot, error.to_string(), "the time since the drill began, or `end`");
                None
            }
        }
    }

    fn acts(&mut self, field: Field<'_>) -> Vec<Act<Said>> {
        let mut acts = Vec::new();
        for said in self.names(field, "a text such as `down vault for 10m`, or a list of them") {
            match act(&said.text) {
                Ok((verb, on)) => {
                    let on = Said { text: on, at: said.at.clone() };
                    acts.push(Act { verb, on, text: said.text, at: said.at });
                }
                Err((message, help)) => self.fault(Code::BadFormat, &said.at, message, help),
            }
        }
        acts
    }

    fn expected(&mut self, field: Field<'_>) -> Vec<Expected<Said>> {
        let mut expected = Vec::new();
        let Some(entries) = self.map(field, "a map") else { return expected };
        if entries.is_empty() {
            self.fault(Code::Missing, field.spot, "nothing is expected", "name a service, or say `all: usable`");
        }
        for entry in entries {
            let spot = spot_of(&entry.value, entry.span, field.spot.path.key(&entry.key));
            let below = Field { node: &entry.value, spot: &spot };
            if TOTALS.contains(&&*entry.key) {
                let claim = self.total(&entry.key, below);
                expected.extend(claim.map(|what| Expected { what, at: spot.clone() }));
            } else {
                self.service(entry, below, &mut expected);
            }
        }
        expected
    }

    fn total(&mut self, key: &str, field: Field<'_>) -> Option<Claim<Said>> {
        Some(match key {
            "all" => match self.word(field, &["usable", "available"])? {
                "usable" => Claim::All(Together::Usable),
                _ => Claim::All(Together::Available),
            },
            "restarts" => Claim::Restarts(self.count(field)?),
            "reloads" => Claim::Reloads(self.count(field)?),
            "order" => Claim::Order(self.names(field, "a list of services")),
            _ => Claim::Events(self.reasons(field)),
        })
    }

    fn service(&mut self, entry: &Entry, field: Field<'_>, expected: &mut Vec<Expected<Said>>) {
        let name = Said { text: entry.key.to_string(), at: Spot { path: field.spot.path.clone(), span: entry.span } };
        let Some(entries) = self.map(field, "a map such as {usable: true}") else { return };
        if entries.is_empty() {
            let message = format!("`{}` is an empty map: nothing is expected", field.spot.path);
            self.fault(Code::WrongValue, field.spot, message, "write what must hold, such as {usable: true}".to_owned());
        }
        self.only(entries, &field.spot.path, &QUALITIES);
        for entry in entries {
            let spot = spot_of(&entry.value, entry.span, field.spot.path.key(&entry.key));
            if let Some(quality) = self.quality(&entry.key, Field { node: &entry.value, spot: &spot }) {
                expected.push(Expected { what: Claim::Of(name.clone(), quality), at: spot });
            }
        }
    }

    fn quality(&mut self, key: &str, field: Field<'_>) -> Option<Quality<Said>> {
        Some(match key {
            "availability" => Quality::Availability(self.availability(field)?),
            "usable" => Quality::Usable(self.word(field, &["true", "false"])? == "true"),
            "because" => Quality::Because(self.names(field, "a service, or a list of services")),
            "reason" => Quality::Reason(self.reason(field)?),
            "reloads" => Quality::Reloads(self.count(field)?),
            "restarts" => Quality::Restarts(self.count(field)?),
            "events" => Quality::Events(self.reasons(field)),
            _ => return None,
        })
    }

    fn availability(&mut self, field: Field<'_>) -> Option<Availability> {
        let text = field.node.text().unwrap_or_default();
        let found = ALL.iter().find(|a| a.severity().to_string() == text || a.to_string() == text).copied();
        if found.is_none() {
            let names: Vec<String> = ALL.iter().map(|a| format!("{} {a}", a.severity())).collect();
            let message = format!("`{}` must be a number from 1 to 6 or its name, not `{text}`", field.spot.path);
            self.fault(Code::WrongValue, field.spot, message, names.join(", "));
        }
        found
    }

    fn reasons(&mut self, field: Field<'_>) -> Vec<Reason> {
        let said = self.names(field, "a list of reasons");
        said.into_iter().filter_map(|said| self.reason_of(&said.text, &said.at)).collect()
    }

    fn reason(&mut self, field: Field<'_>) -> Option<Reason> {
        let text = self.text(field, "a reason such as ProbeFailed")?;
        self.reason_of(&text, field.spot)
    }

    fn reason_of(&mut self, text: &str, spot: &Spot) -> Option<Reason> {
        // The list is long and closed, and its one table is the enum itself.
        let read = serde_json::from_value::<Reason>(Value::from(text)).ok();
        if read.is_none() {
            let known = reasons();
            let near = suggest(text, known.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            self.fault(Code::WrongValue, spot, format!("`{text}` is no reason that the operator gives"), near);
        }
        read
    }
}

/// Every reason, as the enum itself lists them to whoever asks for one that does not exist.
fn reasons() -> Vec<String> {
    let refusal = serde_json::from_value::<Reason>(Value::from("?")).err().map(|error| error.to_string()).unwrap_or_default();
    refusal.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

const ALL: [Availability; 6] = [
    Availability::Available,
    Availability::AlmostAvailable,
    Availability::PartiallyAvailable,
    Availability::TemporarilyUnavailable,
    Availability::Unavailable,
    Availability::SystemFailure,
];

/// The value of a node; `None` where something in it has none.
fn value(node: &Node) -> Option<Value> {
    Some(match &node.content {
        Content::Map(entries) => {
            let pairs: Option<serde_json::Map<String, Value>> =
                entries.iter().map(|entry| Some((entry.key.to_string(), value(&entry.value)?))).collect();
            Value::Object(pairs?)
        }
        Content::List(items) => Value::Array(items.iter().map(value).collect::<Option<_>>()?),
        Content::Scalar(text, ScalarKind::Text) => Value::from(&**text),
        Content::Scalar(text, _) => serde_json::from_str(text).ok().filter(|value: &Value| !value.is_null())?,
    })
}

#[cfg(test)]
mod tests;
