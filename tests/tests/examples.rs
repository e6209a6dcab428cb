//! Every file under `examples/` is read, admitted and planned from nothing, and the plan is compared with its snapshot.
//!
//! Renew the snapshots with `INSTA_UPDATE=always cargo test -p qm-tests --test examples`, and read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use qm_api::admit::{Admission, Attached, Candidate, FileInput, Known, LastGood, Set, Unreadable, admit_set};
use qm_api::field::Severity;
use qm_api::graph::Graph;
use qm_api::manifest::{self, Limits};
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::check::check;
use qm_plan::desired::{DesiredNetwork, DesiredService, Files, MountSource};
use qm_plan::kinds::mini_service::{Context, DriftMemory, Gate, JobContext, plan_service};
use qm_plan::kinds::network::{NetworkView, plan_network};
use qm_plan::observed::{Image, Place, ServiceView};
use qm_plan::plan::Plan;
use qm_source::{Attachment, Manifest, References, RelPath, scan_once};

fn examples() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join("../examples")
}

fn folders() -> Vec<String> {
    let entries = std::fs::read_dir(examples()).expect("examples/ is there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("examples/ can be read"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// An example as the operator would see it.
struct Example {
    admission: Admission,
    attachments: BTreeMap<(Name, Name), Attached>,
}

fn read(folder: &str) -> Example {
    let references: References = Arc::new(|path: &RelPath, bytes: &[u8]| {
        manifest::references(&path.as_str().into(), bytes).iter().filter_map(|name| RelPath::parse(name).ok()).collect()
    });
    let snapshot = scan_once(&examples().join(folder), &qm_source::Options::default(), &references);
    let source = Name::from(folder);
    let mut files = Vec::new();
    let mut unreadable = Vec::new();
    for (path, found) in &snapshot.manifests {
        let name = Name::from(path.as_str());
        match found {
            Manifest::File(file) => {
                let parsed = Arc::new(manifest::parse_file(&name, &file.bytes, &Limits::default()));
                files.push(FileInput { source: source.clone(), parsed });
            }
            Manifest::Refused(problem) => {
                unreadable.push(Unreadable { source: source.clone(), file: name, reason: problem.to_string() });
            }
        }
    }
    let attachments = snapshot
        .attachments
        .iter()
        .map(|(path, found)| {
            let attached = match found {
                Attachment::File(file) => Attached::File { digest: file.digest, bytes: file.bytes.clone() },
                Attachment::Missing => Attached::Missing,
                Attachment::Refused(problem) => Attached::Refused(problem.to_string()),
            };
            ((source.clone(), Name::from(path.as_str())), attached)
        })
        .collect();
    let set = Set { files: &files, attachments: &attachments, existing: &Known::default(), unreadable: &unreadable };
    let admission = admit_set(&set, &LastGood::new());
    Example { admission, attachments }
}

fn object(candidate: &Candidate) -> Object {
    let mut object = Object::new(candidate.key.clone(), "uid", Timestamp::default(), serde_json::Value::Null);
    object.spec = candidate.spec.clone();
    object.meta.generation = 1;
    object
}

fn files(example: &Example, candidate: &Candidate) -> Files {
    let place = candidate.place.as_ref().expect("what comes from a file has a place");
    let spec = &candidate.spec;
    let container = if spec["job"].is_object() { &spec["job"]["container"] } else { &spec["container"] };
    let env_files = container["envFile"].as_array().into_iter().flatten().filter_map(|v| v.as_str());
    let configs = container["configs"].as_array().into_iter().flatten().filter_map(|v| v["file"].as_str());
    env_files
        .chain(configs)
        .map(|written| {
            let path = manifest::resolve(&place.file, written).expect("an admitted reference resolves");
            match example.attachments.get(&(candidate.source.clone(), path)) {
                Some(Attached::File { bytes, .. }) => (written.to_owned(), bytes.clone()),
                other => panic!("{} refers to {written}, which is {other:?}", candidate.key),
            }
        })
        .collect()
}

/// What an engine with every image and nothing else shows of a service.
fn nothing_but_images(service: &DesiredService) -> ServiceView {
    let Some(spec) = service.container() else { return ServiceView::default() };
    let volumes = spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume(name) => Some((name.clone(), false)),
        _ => None,
    });
    ServiceView {
        networks: spec.networks.iter().map(|attachment| (attachment.network.clone(), Place::default())).collect(),
        volumes: volumes.collect(),
        image: Some(Image::Present { id: "sha256:0123".into(), has_healthcheck: false, volumes: Vec::new() }),
        ..ServiceView::default()
    }
}

struct Planned {
    graph: Graph,
    networks: Vec<DesiredNetwork>,
    services: Vec<DesiredService>,
    plan: Plan,
}

fn plan(example: &Example) -> Planned {
    let instance = Name::from("default");
    let mut networks = Vec::new();
    let mut services = Vec::new();
    for candidate in &example.admission.objects {
        let object = object(candidate);
        match candidate.key.kind.as_str() {
            "Network" => networks.push(DesiredNetwork::from_object(&object).expect("an admitted network has a desired form")),
            // It has nothing on the engine.
            "MiniContainer" => {}
            _ => {
                let files = files(example, candidate);
                services.push(DesiredService::from_object(&object, &files).expect("an admitted service has a desired form"));
            }
        }
    }
    // The implicit network is made by the operator, for services that name none.
    let named: BTreeSet<ObjectKey> = networks.iter().map(|n| n.key.clone()).collect();
    let used: BTreeSet<ObjectKey> = services
        .iter()
        .filter_map(|service| Some((&service.key.namespace, service.container()?)))
        .flat_map(|(namespace, spec)| spec.networks.iter().map(|a| ObjectKey::new("Network", namespace.clone(), a.network.clone())))
        .collect();
    for key in used.difference(&named) {
        assert_eq!(key.name, "default", "only the implicit network need not be declared");
        let implicit = Object::new(key.clone(), "uid", Timestamp::default(), serde_json::json!({}));
        networks.push(DesiredNetwork::from_object(&implicit).expect("the implicit network has a desired form"));
    }
    let graph = Graph::build(services.iter().map(|s| (s.key.clone(), s.dependencies.clone())));
    services.sort_by_key(|s| (graph.level(&s.key), s.key.clone()));
    let mut whole = Plan::default();
    for network in &networks {
        whole.append(plan_network(network, &NetworkView::default(), &instance, &BTreeSet::new(), None));
    }
    for service in &services {
        let view = nothing_but_images(service);
        let gates: BTreeMap<ObjectKey, Gate> =
            service.dependencies.iter().map(|d| (d.on.clone(), Gate { usable: false, bad: false })).collect();
        let context = Context {
            now: Timestamp::default(),
            instance: &instance,
            view: &view,
            gates: &gates,
            proven: &BTreeSet::new(),
            revisions: &[],
            pinned_image: None,
            settled_generation: 0,
            settled_networks: &BTreeSet::new(),
            pulled_generation: None,
            default_log_grows: true,
            suspended: None,
            reload: None,
            held: None,
            stopped: &BTreeMap::new(),
            flapping: None,
            brake: None,
            dependents_leaving: Vec::new(),
            lock: qm_plan::locks::Standing::Free,
            drift: &DriftMemory::default(),
            not_adoptable: Vec::new(),
            job: JobContext::NOTHING,
            files_dir: "/files",
            faces_dir: "/run/faces",
        };
        whole.append(plan_service(service, &context));
    }
    Planned { graph, networks, services, plan: whole }
}

#[test]
fn every_example_is_admitted() {
    let folders = folders();
    assert!(folders.len() >= 3, "examples/ has {folders:?}");
    for folder in folders {
        let example = read(&folder);
        let text = |v: &qm_api::field::Violation| {
            format!("{}: {} {}", v.place.as_ref().map(ToString::to_string).unwrap_or_default(), v.message, v.help)
        };
        let errors: Vec<String> = example.admission.violations.iter().filter(|v| v.severity == Severity::Error).map(text).collect();
        assert_eq!(errors, Vec::<String>::new(), "examples/{folder}");
        assert!(example.admission.frozen.is_empty() && example.admission.prune_held.is_empty());
        assert!(!example.admission.objects.is_empty(), "examples/{folder} has no manifest");
        let warnings: Vec<String> = example.admission.violations.iter().map(text).collect();
        assert!(folder == "everything" || warnings.is_empty(), "examples/{folder} is for copying and has warnings: {warnings:?}");
    }
}

#[test]
fn every_example_plans_as_recorded() {
    for folder in folders() {
        let planned = plan(&read(&folder));
        assert_eq!(check(&planned.plan, &BTreeSet::new(), &BTreeSet::new()), Ok(()), "examples/{folder}");
        insta::assert_snapshot!(format!("plan_{folder}"), planned.plan.to_string());
    }
}

#[test]
fn every_example_has_the_levels_as_recorded() {
    for folder in folders() {
        let planned = plan(&read(&folder));
        assert!(planned.graph.cycles().is_empty());
        let mut text = String::new();
        for service in &planned.services {
            let on: Vec<String> = service.dependencies.iter().map(|d| format!("{} ({:?}, {:?})", d.on.name, d.start, d.on_down)).collect();
            text += format!("{} {} <- {}", planned.graph.level(&service.key), service.key.name, on.join(", ")).trim_end();
            text += "\n";
        }
        insta::assert_snapshot!(format!("levels_{folder}"), text);
    }
}

#[test]
fn the_platform_has_the_shape_that_its_readme_tells() {
    let planned = plan(&read("platform"));
    let levels: BTreeSet<u32> = planned.services.iter().map(|s| planned.graph.level(&s.key)).collect();
    assert_eq!(planned.services.len(), 22);
    assert_eq!(levels, BTreeSet::from([0, 1, 2, 3, 4, 5]));
    let networks: Vec<&str> = planned.networks.iter().map(|n| n.key.name.as_str()).collect();
    assert_eq!(networks, ["data", "dmz", "edge", "monitoring"]);
    assert!(planned.services.iter().filter_map(DesiredService::replicated).all(|c| c.init && c.health.is_some()));
    let jobs: Vec<&str> = planned.services.iter().filter(|s| s.job().is_some()).map(|s| s.key.name.as_str()).collect();
    assert_eq!(jobs, ["init"]);
}
