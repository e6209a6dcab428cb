//! Owns what only the whole set can tell: duplicates, unknown references, cycles, and what two objects cannot both have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::LazyLock;

use super::Attached;
use super::facts::{At, Facts, HostPort, Volume};
use crate::codes::Code;
use crate::field::{FieldPath, Place, Problem, Violation};
use crate::graph::{Dependency, Graph};
use crate::kinds::{mini_container, mini_service, network};
use crate::manifest::Document;
use crate::manifest::tree::Span;
use crate::manifest::walk::suggest;
use crate::meta::ObjectKey;
use crate::name::Name;
use crate::spec::container::Protocol;
use crate::spec::env_file;
use crate::spec::names::Cidr;
use crate::spec::rules::IMPLICIT_NETWORK;

/// An attachment may be so large.
const MAX_ATTACHMENT_BYTES: usize = 4 << 20;

/// One object of the set.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) source: &'a Name,
    pub(super) file: &'a Name,
    /// The document, for what is being admitted; `None` for what is already there.
    pub(super) document: Option<&'a Document>,
    pub(super) key: &'a ObjectKey,
    pub(super) facts: &'a Facts,
    /// The namespaces that its file last spoke of and now does not: a bad document may have moved out of them.
    pub(super) left: &'a BTreeSet<Name>,
}

impl<'a> Member<'a> {
    /// An object that is there already.
    pub(super) fn stored(key: &'a ObjectKey, facts: &'a Facts) -> Self {
        static NO_NAME: LazyLock<Name> = LazyLock::new(Name::default);
        static NO_NAMES: BTreeSet<Name> = BTreeSet::new();
        Self { source: &NO_NAME, file: &NO_NAME, document: None, key, facts, left: &NO_NAMES }
    }
}

impl Member<'_> {
    fn place(&self, span: Span) -> Option<Place> {
        span.place(self.source, self.file)
    }

    fn namespaces(&self) -> BTreeSet<Name> {
        if self.document.is_none() {
            return BTreeSet::new();
        }
        self.left.iter().chain([&self.key.namespace]).cloned().collect()
    }

    /// A problem of this object.
    fn found(&self, problem: Problem, span: Span) -> Found {
        let is_error = problem.severity == crate::field::Severity::Error;
        Found {
            violation: problem.placed(Some(self.key.clone()), self.place(span)),
            freezes: if is_error { self.namespaces() } else { BTreeSet::new() },
            about: vec![self.key.clone()],
        }
    }

    /// The same, with another object that has a part in it.
    fn found_with(&self, problem: Problem, span: Span, other: &Member<'_>, other_span: Span, what: &str) -> Found {
        let mut found = self.found(problem, span);
        if found.violation.severity == crate::field::Severity::Error {
            found.freezes.extend(other.namespaces());
        }
        found.about.push(other.key.clone());
        found.violation.related.extend(other.place(other_span).map(|place| (place, what.to_owned())));
        found
    }
}

/// A violation with what it means for others.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) violation: Violation,
    /// The namespaces that stay as they are because of it.
    pub(super) freezes: BTreeSet<Name>,
    /// The objects that have a part in it.
    pub(super) about: Vec<ObjectKey>,
}

/// What is looked at.
pub(super) struct World<'a> {
    /// What is being admitted, in the order of the files.
    pub(super) members: &'a [Member<'a>],
    /// What is already there from elsewhere.
    pub(super) others: &'a [Member<'a>],
    /// The keys of bad documents: they will be there once they are mended.
    pub(super) bad: &'a BTreeSet<ObjectKey>,
    /// The namespaces that are frozen already.
    pub(super) frozen: &'a BTreeSet<Name>,
    pub(super) attachments: &'a BTreeMap<(Name, Name), Attached>,
}

impl<'a> World<'a> {
    /// All objects; those already there first, so that a conflict is reported at what is new.
    fn all(&self) -> impl Iterator<Item = &'a Member<'a>> {
        self.others.iter().chain(self.members)
    }
}

/// All cross checks.
pub(super) fn check(world: &World<'_>) -> Vec<Found> {
    let mut index: BTreeMap<&ObjectKey, &Member<'_>> = BTreeMap::new();
    for member in world.all() {
        index.entry(member.key).or_insert(member);
    }
    let mut found = Vec::new();
    duplicates(world, &index, &mut found);
    for member in world.members {
        networks(world, &index, member, &mut found);
        dependencies(world, &index, member, &mut found);
        reporters(world, &index, member, &mut found);
        files(world, member, &mut found);
    }
    let all: Vec<Member<'_>> = index.values().map(|member| **member).collect();
    let owners = owners(&all);
    claims(&owners, &index, &mut found);
    cycles(&index, &owners, &mut found);
    ports(world, &mut found);
    addresses(world, &mut found);
    volumes(world, &mut found);
    subnets(world, &mut found);
    found
}

/// The mini containers that own each mini service, in the order of their keys: one, or there is a quarrel.
pub(super) fn owners<'a>(members: &[Member<'a>]) -> BTreeMap<&'a ObjectKey, Vec<Member<'a>>> {
    let parents: BTreeMap<&ObjectKey, &Member<'a>> =
        members.iter().filter(|member| member.key.kind == mini_container::KIND).map(|member| (member.key, member)).collect();
    let mut owners: BTreeMap<&'a ObjectKey, Vec<Member<'a>>> = BTreeMap::new();
    if parents.is_empty() {
        return owners;
    }
    for member in members.iter().filter(|member| member.key.kind == mini_service::KIND) {
        let made_by = member.document.and_then(|document| document.owner.as_ref());
        let labels = member.document.map_or(&member.facts.labels, |document| &document.labels);
        let first = ObjectKey::new(mini_container::KIND, member.key.namespace.clone(), "");
        let of_namespace = parents.range::<ObjectKey, _>(&first..).take_while(|(key, _)| key.namespace == member.key.namespace);
        let claims = of_namespace.filter(|(key, parent)| {
            made_by == Some(*key) || parent.facts.selector.as_ref().is_some_and(|selector| selector.what.matches(labels))
        });
        let claims: Vec<Member<'a>> = claims.map(|(_, parent)| **parent).collect();
        if !claims.is_empty() {
            owners.insert(member.key, claims);
        }
    }
    owners
}

/// A mini service has one owner at most.
fn claims(owners: &BTreeMap<&ObjectKey, Vec<Member<'_>>>, index: &BTreeMap<&ObjectKey, &Member<'_>>, found: &mut Vec<Found>) {
    for (child, parents) in owners {
        let [first, second, ..] = parents.as_slice() else { continue };
        let (Some(member), true) = (index.get(child), second.document.is_some()) else { continue };
        let path = FieldPath::from("spec.selector");
        let message = format!("{} already belongs to {}", child, first.key);
        let problem = Problem::error(Code::Duplicate, path, message).help("a mini service has one owner: narrow one of the selectors");
        let at = |parent: &Member<'_>| parent.facts.selector.as_ref().map_or_else(|| name_span(parent), |selector| selector.span);
        let mut one = second.found_with(problem, at(second), first, at(first), "the other owner");
        one.violation.related.extend(member.place(name_span(member)).map(|place| (place, "the mini service".to_owned())));
        found.push(one);
    }
}

/// An object of a file that is there already and does not come from a file.
pub(super) fn declared_elsewhere(member: &Member<'_>) -> Found {
    let path = FieldPath::from("metadata.name");
    let problem = Problem::error(Code::Duplicate, path, format!("{} was already created over the API", member.key));
    member.found(
        problem.help("delete it there first, or rename this one"),
        member.document.map_or_else(Span::default, |document| document.span),
    )
}

fn name_span(member: &Member<'_>) -> Span {
    member.document.map_or_else(Span::default, |document| document.span)
}

fn duplicates(world: &World<'_>, index: &BTreeMap<&ObjectKey, &Member<'_>>, found: &mut Vec<Found>) {
    let path = || FieldPath::from("metadata.name");
    for member in world.members {
        let first = index[member.key];
        if !std::ptr::eq(first, member) {
            let problem = Problem::error(Code::Duplicate, path(), format!("{} is declared twice", member.key));
            found.push(member.found_with(
                problem.help("remove or rename one of them"),
                name_span(member),
                first,
                name_span(first),
                "the first one",
            ));
        }
    }
    // `a-b` in `c` and `b-c`.. : the engine knows containers as NAMESPACE-NAME-SLOT.
    let mut engine_names: BTreeMap<String, &Member<'_>> = BTreeMap::new();
    for member in index.values().filter(|member| member.key.kind == mini_service::KIND && member.facts.replicas > 0) {
        let engine_name = format!("{}-{}", member.key.namespace, member.key.name);
        if let Some(other) = engine_names.get(&engine_name) {
            let message = format!("the containers of {} and {} would have the same names ({engine_name}-1)", other.key, member.key);
            let problem = Problem::error(Code::Duplicate, path(), message).help("rename one of them");
            let (newer, older) = if member.document.is_some() { (*member, *other) } else { (*other, *member) };
            found.push(newer.found_with(problem, name_span(newer), older, name_span(older), "the other one"));
        } else {
            engine_names.insert(engine_name, member);
        }
    }
}

fn networks(world: &World<'_>, index: &BTreeMap<&ObjectKey, &Member<'_>>, member: &Member<'_>, found: &mut Vec<Found>) {
    for At { what: name, index: at, span } in &member.facts.networks {
        let key = ObjectKey::new(network::KIND, member.key.namespace.clone(), name.clone());
        let is_known = *name == IMPLICIT_NETWORK || index.contains_key(&key) || world.bad.contains(&key);
        if is_known || world.frozen.contains(&key.namespace) {
            continue;
        }
        let names = index.keys().filter(|other| other.kind == network::KIND && other.namespace == key.namespace);
        let help = match suggest(name, names.map(|other| other.name.as_str())) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("declare it: a `kind: Network` with `metadata: {{name: {name}, namespace: {}}}`", key.namespace),
        };
        let path = member.facts.container.key("networks").index(*at);
        let message = format!("the network `{name}` is not declared in the namespace `{}`", key.namespace);
        found.push(member.found(Problem::error(Code::UnknownNetwork, path, message).help(help), *span));
    }
}

fn dependencies(world: &World<'_>, index: &BTreeMap<&ObjectKey, &Member<'_>>, member: &Member<'_>, found: &mut Vec<Found>) {
    for At { what: edge, index: at, span } in &member.facts.edges {
        let key = &edge.on;
        if index.contains_key(key) || world.bad.contains(key) || world.frozen.contains(&key.namespace) {
            continue;
        }
        let same_kind = || index.keys().filter(|other| other.kind == key.kind);
        let elsewhere = same_kind().find(|other| other.name == key.name);
        let near = suggest(&key.name, same_kind().filter(|other| other.namespace == key.namespace).map(|other| other.name.as_str()));
        let help = match (elsewhere, near) {
            (Some(other), _) => format!("there is one in the namespace `{0}`: add `namespace: {0}`", other.namespace),
            (None, Some(word)) => format!("did you mean `{word}`?"),
            (None, None) => "add it, or declare it as `external` when it runs elsewhere".to_owned(),
        };
        let path = FieldPath::from("spec.dependsOn").index(*at);
        let what = if key.kind == mini_container::KIND { "mini container" } else { "mini service" };
        let message = format!("there is no {what} `{}` in the namespace `{}`", key.name, key.namespace);
        found.push(member.found(Problem::error(Code::UnknownDependency, path, message).help(help), *span));
    }
}

fn reporters(world: &World<'_>, index: &BTreeMap<&ObjectKey, &Member<'_>>, member: &Member<'_>, found: &mut Vec<Found>) {
    let Some(At { what: reporter, span, .. }) = &member.facts.reporter else { return };
    let key = ObjectKey::new(mini_service::KIND, member.key.namespace.clone(), reporter.clone());
    if index.contains_key(&key) || world.bad.contains(&key) || world.frozen.contains(&key.namespace) {
        return;
    }
    let message = format!("there is no mini service `{}` in the namespace `{}`", key.name, key.namespace);
    let path = FieldPath::from("spec.logical.reportedBy");
    found.push(member.found(Problem::error(Code::UnknownDependency, path, message).help("name the service that runs the app"), *span));
}

/// One step of a cycle, for people: who needs whom, and where that is said.
struct Step<'a, 'b> {
    member: &'a Member<'b>,
    next: &'a ObjectKey,
    edge: Option<&'a At<Dependency>>,
}

fn cycles(index: &BTreeMap<&ObjectKey, &Member<'_>>, owners: &BTreeMap<&ObjectKey, Vec<Member<'_>>>, found: &mut Vec<Found>) {
    let mut children: BTreeMap<&ObjectKey, Vec<Dependency>> = BTreeMap::new();
    for (child, parents) in owners {
        for parent in parents {
            children.entry(parent.key).or_default().push(Dependency::child((*child).clone()));
        }
    }
    let edges = |member: &Member<'_>| -> Vec<Dependency> { member.facts.edges.iter().map(|edge| edge.what.clone()).collect() };
    let nodes = index.iter().filter(|(key, _)| key.kind != network::KIND);
    let graph = Graph::build(nodes.map(|(key, member)| {
        let of_parent = children.get(key).into_iter().flatten().cloned();
        ((*key).clone(), edges(member).into_iter().chain(of_parent).collect())
    }));
    for cycle in graph.cycles() {
        let steps: Vec<Step<'_, '_>> = cycle
            .iter()
            .enumerate()
            .filter_map(|(at, key)| {
                let member = index.get(key)?;
                let next = &cycle[(at + 1) % cycle.len()];
                let edge = member.facts.edges.iter().find(|edge| edge.what.on == *next && edge.what.is_counted());
                Some(Step { member, next, edge })
            })
            .collect();
        // Told at a member that is being admitted, where there is one.
        let told = steps.iter().filter(|step| step.member.document.is_some());
        let Some((first, edge)) = told.filter_map(|step| Some((step.member, step.edge?))).next() else { continue };
        let path_of = |key: &ObjectKey| format!("{}/{}", key.namespace, key.name);
        let path = cycle.iter().chain(cycle.first()).map(path_of).collect::<Vec<_>>().join(" -> ");
        let problem = Problem::error(
            Code::Cycle,
            FieldPath::from("spec.dependsOn").index(edge.index),
            format!("the dependencies form a cycle: {path}"),
        );
        let help = "remove one of these edges, or make it one that does not gate: `start: Skip` with `onDown: Ignore` or `Degrade`";
        let mut one = first.found(problem.help(help), edge.span);
        for Step { member, next, edge } in &steps {
            one.freezes.extend(member.namespaces());
            let (verb, span) = edge.map_or_else(|| ("owns", name_span(member)), |edge| ("depends on", edge.span));
            let text = format!("{} {verb} {}", path_of(member.key), path_of(next));
            one.violation.related.extend(member.place(span).map(|place| (place, text)));
        }
        one.about = cycle.clone();
        found.push(one);
    }
}

fn ports(world: &World<'_>, found: &mut Vec<Found>) {
    type Listener<'a> = (&'a Member<'a>, &'a At<HostPort>);
    let mut taken: BTreeMap<(Protocol, u16), Vec<Listener<'_>>> = BTreeMap::new();
    for member in world.all() {
        for port in &member.facts.ports {
            let others = taken.entry((port.what.protocol, port.what.port)).or_default();
            let overlaps = |other: &At<HostPort>| match (other.what.host, port.what.host) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            };
            if let Some((other, at)) = others.iter().find(|(_, other)| overlaps(other)) {
                let path = member.facts.container.key("ports").index(port.index).key("published");
                let message = format!("the host's port {} is published by {} too", port.what.port, other.key);
                let problem = Problem::error(Code::PortConflict, path, message)
                    .help("choose another port, another address (`host`), or leave `published` out");
                if member.document.is_some() {
                    found.push(member.found_with(problem, port.span, other, at.span, "the other one"));
                }
            }
            others.push((member, port));
        }
    }
}

fn addresses(world: &World<'_>, found: &mut Vec<Found>) {
    let subnets: BTreeMap<(&Name, &Name), &At<Cidr>> =
        world.all().filter_map(|member| Some(((&member.key.namespace, &member.key.name), member.facts.subnet.as_ref()?))).collect();
    let mut taken: BTreeMap<(&Name, &Name, Ipv4Addr), (&Member<'_>, Span)> = BTreeMap::new();
    for member in world.all() {
        for At { what: (network, address), span, .. } in &member.facts.addresses {
            let path = member.facts.container.key("networkOptions").key(network).key("ipv4");
            let namespace = &member.key.namespace;
            let problem = match subnets.get(&(namespace, network)) {
                None if world.bad.contains(&ObjectKey::new(network::KIND, namespace.clone(), network.clone())) => None,
                None => Some((
                    "a fixed address needs a network with a `subnet`".to_owned(),
                    format!("give the Network `{network}` a subnet, or remove `ipv4`"),
                )),
                Some(subnet) if !subnet.what.contains(*address) || *address == subnet.what.first || *address == subnet.what.last() => {
                    Some((
                        format!("{address} is no address for a container of the subnet of `{network}`"),
                        format!("it goes from {} to {}", subnet.what.first, subnet.what.last()),
                    ))
                }
                Some(_) => None,
            };
            if let Some((message, help)) = problem
                && member.document.is_some()
            {
                found.push(member.found(Problem::error(Code::BadAddress, path.clone(), message).help(help), *span));
            }
            match taken.get(&(namespace, network, *address)) {
                Some((other, at)) if member.document.is_some() => {
                    let problem = Problem::error(Code::BadAddress, path, format!("{address} is the address of {} too", other.key));
                    found.push(member.found_with(problem.help("choose another address"), *span, other, *at, "the other one"));
                }
                Some(_) => {}
                None => drop(taken.insert((namespace, network, *address), (member, *span))),
            }
        }
    }
}

fn volumes(world: &World<'_>, found: &mut Vec<Found>) {
    type User<'a> = (&'a Member<'a>, &'a At<Volume>);
    let mut users: BTreeMap<(&Name, &Name), Vec<User<'_>>> = BTreeMap::new();
    for member in world.all() {
        for volume in &member.facts.volumes {
            users.entry((&member.key.namespace, &volume.what.name)).or_default().push((member, volume));
        }
    }
    for ((_, name), list) in users {
        for (member, volume) in &list {
            if !volume.what.is_exclusive || member.document.is_none() {
                continue;
            }
            let path = member.facts.container.key("volumes").index(volume.index);
            let help = "mount it `readOnly: true`, say `shared: true`, or use volumes of their own";
            if member.facts.replicas > 1 {
                let message = format!("{} replicas write the volume `{name}`", member.facts.replicas);
                found.push(member.found(Problem::warning(Code::SharedVolume, path.clone(), message).help(help), volume.span));
            }
            if let Some((other, theirs)) = list.iter().find(|(other, _)| other.key != member.key) {
                let message = format!("the volume `{name}` is used by {} too", other.key);
                let problem = Problem::warning(Code::SharedVolume, path, message).help(help);
                found.push(member.found_with(problem, volume.span, other, theirs.span, "the other one"));
            }
        }
    }
}

fn subnets(world: &World<'_>, found: &mut Vec<Found>) {
    let mut ranges: Vec<(&At<Cidr>, &Member<'_>)> =
        world.all().filter_map(|member| Some((member.facts.subnet.as_ref()?, member))).collect();
    ranges.sort_by(|a, b| a.0.what.cmp(&b.0.what).then_with(|| a.1.key.cmp(b.1.key)));
    let mut widest: Option<(&At<Cidr>, &Member<'_>)> = None;
    for (range, member) in ranges {
        match widest {
            Some((other, owner)) if range.what.first <= other.what.last() && owner.key != member.key => {
                let (newer, at, older, older_at) =
                    if member.document.is_some() { (member, range, owner, other) } else { (owner, other, member, range) };
                let message = format!("the subnet overlaps the one of {} ({}/{})", older.key, older_at.what.first, older_at.what.bits);
                let problem = Problem::error(Code::SubnetOverlap, FieldPath::from("spec.subnet"), message)
                    .help("choose another range, or remove `subnet`");
                if newer.document.is_some() {
                    found.push(newer.found_with(problem, at.span, older, older_at.span, "the other one"));
                }
                if range.what.last() > other.what.last() {
                    widest = Some((range, member));
                }
            }
            _ => widest = Some((range, member)),
        }
    }
}

fn files(world: &World<'_>, member: &Member<'_>, found: &mut Vec<Found>) {
    for used in &member.facts.files {
        let shown = crate::manifest::yaml::shorten(&used.written);
        let attached = used.file.as_ref().map(|file| world.attachments.get(&(member.source.clone(), file.clone())));
        let (message, help) = match attached {
            None if member.file.is_empty() => {
                ("an object that comes in over the API cannot refer to a file".to_owned(), "use `content` or `env`".to_owned())
            }
            None => (
                format!("the path `{shown}` leaves the folder of the manifests"),
                "paths are relative to the manifest and stay in the source".to_owned(),
            ),
            Some(None | Some(Attached::Missing)) => {
                (format!("there is no file `{shown}`"), "the path is relative to the manifest".to_owned())
            }
            Some(Some(Attached::Refused(reason))) => (format!("the file `{shown}` cannot be used: {reason}"), String::new()),
            Some(Some(Attached::File { bytes, .. })) => match check_content(bytes, used.is_env) {
                Some(problem) => (format!("the file `{shown}` cannot be used: {problem}"), String::new()),
                None => continue,
            },
        };
        found.push(member.found(Problem::error(Code::Attachment, used.path.clone(), message).help(help), used.span));
    }
}

fn check_content(bytes: &[u8], is_env: bool) -> Option<String> {
    if bytes.len() > MAX_ATTACHMENT_BYTES {
        return Some(format!("it has {} bytes, more than the allowed {MAX_ATTACHMENT_BYTES}", bytes.len()));
    }
    if is_env { env_file::parse(bytes).err().map(|error| error.to_string()) } else { None }
}
