//! Jobs: tables of record and containers -> the plan as text, and properties over lives in which containers end, vanish, and stores are
//! lost.

#[expect(dead_code, reason = "the model has more than these tables need")]
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use insta::assert_snapshot;
use model::Model;
use proptest::prelude::*;
use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::kinds::mini_service::JobState;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::{DesiredService, Files};
use qm_plan::job::{Note, Proof, Wish};
use qm_plan::kinds::mini_service::{Gate, Others};
use qm_plan::observed::{Gap, Image, RunState};
use qm_plan::plan::Plan;
use qm_plan::step::Action;

/// A job from the YAML of its fields, and its edges.
fn job_on(fields: &str, edges: &str) -> DesiredService {
    let yaml = |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).expect("a test's own manifest is readable") };
    let spec = serde_json::json!({ "job": yaml(fields), "dependsOn": yaml(edges) });
    let object = Object::new(ObjectKey::new("MiniService", "n", "app"), "uid-1", Timestamp::default(), spec);
    DesiredService::from_object(&object, &Files::new()).expect("a test's own manifest is good")
}

fn job(fields: &str) -> DesiredService {
    job_on(fields, "[]")
}

const PLAIN: &str = "{container: {image: a:1, networks: [data], command: [work]}}";
const STEPS: &str = "{container: {image: a:1, networks: [data]}, retries: 2, \
    steps: [{name: prepare, command: [a]}, {name: load, command: [b]}, {name: finish, command: [c]}]}";

/// Ends what runs.
fn end(model: &mut Model, exit_code: i64) {
    let now = Timestamp::from_millis(model.clock);
    for container in model.view.containers.iter_mut().filter(|c| c.state == RunState::Running) {
        let container = Arc::make_mut(container);
        (container.state, container.exit_code, container.finished_at) = (RunState::Exited, exit_code, Some(now));
    }
}

fn states(model: &Model) -> Vec<JobState> {
    model.results.iter().flat_map(|results| &results.runs).map(|run| run.state).collect()
}

fn standing(model: &Model) -> (Availability, Reason, String) {
    let standing = model.current().job.expect("a job has a standing");
    (standing.availability, standing.reason, standing.message)
}

/// The parts of jobs that are there, in words.
fn parts(model: &Model) -> Vec<String> {
    let part = |c: &Arc<qm_plan::observed::Container>| {
        let stamp = c.stamp.as_ref()?.job.clone()?;
        Some(format!("{} {} {}", stamp.attempt, stamp.step, c.state.word()))
    };
    model.view.containers.iter().filter_map(part).collect()
}

#[test]
fn it_runs_once_and_its_container_goes_when_its_end_is_recorded() {
    let mut model = Model::new(job(PLAIN));
    assert_snapshot!(model.plan());
    model.settle();
    assert_eq!(parts(&model), ["1  running"]);
    assert_eq!(standing(&model).1, Reason::JobRunning);
    end(&mut model, 0);
    assert_snapshot!(model.plan());
    model.settle();
    assert_eq!((parts(&model), states(&model)), (vec![], vec![JobState::Succeeded]));
    assert_eq!(standing(&model).0, Availability::Available);
    assert!(model.current().steps.is_empty() && model.current().notes.is_empty());
    model.view.image = Some(Image::Absent);
    model.images.clear();
    assert!(model.current().steps.is_empty(), "no image is pulled for what is done");
    model.view.gaps.push(Gap::Engine { message: "away".into(), since: Timestamp::default() });
    assert_eq!(standing(&model).0, Availability::Available, "what is recorded needs no engine");
}

#[test]
fn it_is_made_at_once_and_started_when_its_dependency_is_usable() {
    let mut model = Model::new(job_on(PLAIN, "[{service: db}]"));
    let db = ObjectKey::new("MiniService", "n", "db");
    model.gates.insert(db.clone(), Gate { usable: false, bad: false });
    model.settle();
    assert_snapshot!(model.plan());
    assert!(model.results.as_ref().unwrap().runs[0].begun.is_none());
    model.gates.insert(db, Gate { usable: true, bad: false });
    model.settle();
    assert_eq!(parts(&model), ["1  running"]);
}

#[test]
fn what_waits_for_its_dependency_is_left_alone_with_files_too() {
    let files = "{container: {image: a:1, networks: [data], configs: [{name: c, target: /etc/c, content: hello}]}}";
    let mut model = Model::new(job_on(files, "[{service: db}]"));
    let db = ObjectKey::new("MiniService", "n", "db");
    model.gates.insert(db.clone(), Gate { usable: false, bad: false });
    model.settle();
    assert_eq!(model.current().runnable(), Vec::<usize>::new(), "nothing is done again and again");
    model.gates.insert(db, Gate { usable: true, bad: false });
    model.settle();
    assert_eq!(parts(&model), ["1  running"]);
}

#[test]
fn it_resumes_at_the_step_that_failed_after_a_pause() {
    let mut model = Model::new(job(STEPS));
    model.settle();
    end(&mut model, 0);
    model.settle();
    assert_eq!(parts(&model), ["1 load running"]);
    end(&mut model, 3);
    let failed = model.clock;
    model.settle();
    assert_eq!(parts(&model), ["1 load exited"], "what failed last stays for people to look at");
    assert_snapshot!(model.plan());
    let wake = model.current().steps.iter().flat_map(|s| s.waits.clone()).filter_map(|w| w.until()).min().unwrap();
    assert_eq!(wake.as_millis(), failed + 10_000);
    model.clock = failed + 10_000;
    model.settle();
    assert_eq!(parts(&model), ["2 load running"], "and goes when the next attempt is there");
    end(&mut model, 0);
    model.settle();
    end(&mut model, 0);
    model.settle();
    assert_eq!((parts(&model), states(&model)), (vec![], vec![JobState::Succeeded]));
    let run = model.results.unwrap().runs.remove(0);
    let done: Vec<String> = run.results.iter().map(|r| format!("{} {}", r.part.step, r.part.attempt)).collect();
    assert_eq!(done, ["prepare 1", "load 2", "finish 2"]);
}

#[test]
fn it_fails_as_often_as_it_may_and_a_person_may_let_it_try_again() {
    let mut model = Model::new(job(STEPS));
    for _ in 0..3 {
        model.settle();
        end(&mut model, 7);
        model.clock += 400_000;
    }
    model.settle();
    assert_eq!(states(&model), [JobState::Failed]);
    assert_eq!(parts(&model), ["3 prepare exited"]);
    let (availability, reason, message) = standing(&model);
    assert_eq!((availability, reason), (Availability::Unavailable, Reason::JobFailed));
    assert_eq!(message, "step prepare ended with code 7, after 3 attempts: some output");
    assert!(model.current().steps.is_empty());
    assert!(model.results.as_mut().unwrap().forgive());
    model.settle();
    assert_eq!(parts(&model), ["4 prepare running"]);
}

#[test]
fn a_container_that_cannot_be_started_is_a_failed_attempt() {
    let mut model = Model::new(job(PLAIN));
    model.step();
    model.step();
    let container = Arc::make_mut(&mut model.view.containers[0]);
    (container.state, container.started_at) = (RunState::Created, None);
    (container.exit_code, container.error) = (127, "no such file: work".into());
    model.settle();
    assert_eq!(model.results.as_ref().unwrap().runs[0].failures, 1);
    assert!(standing(&model).2.starts_with("ended with code 127: no such file: work; next: attempt 2"), "{:?}", standing(&model));
}

#[test]
fn a_changed_input_runs_once_the_old_one_has_ended_and_an_old_success_counts() {
    let with = |version: u32| job(&format!("{{container: {{image: a:1, networks: [data], env: {{V: {version}}}}}}}"));
    let mut model = Model::new(with(1));
    model.settle();
    model.change(with(2));
    model.settle();
    assert_eq!(parts(&model), ["1  running"], "nobody ends it half-way");
    assert_eq!(standing(&model).1, Reason::Pending);
    end(&mut model, 0);
    model.settle();
    assert_eq!(states(&model), [JobState::Running, JobState::Succeeded]);
    end(&mut model, 0);
    model.settle();
    model.change(with(1));
    model.settle();
    assert_eq!((standing(&model).0, parts(&model)), (Availability::Available, vec![]), "that input has succeeded");
}

#[test]
fn a_person_runs_it_again_and_it_stays_usable_meanwhile() {
    let mut model = Model::new(job(PLAIN));
    model.settle();
    end(&mut model, 0);
    model.settle();
    model.results.as_mut().unwrap().wish = Some(Wish { actor: "ann".into(), reason: "why".into() });
    assert_snapshot!(model.plan());
    model.settle();
    assert_eq!((parts(&model), standing(&model).0), (vec!["1  running".to_owned()], Availability::Available));
    let runs = &model.results.as_ref().unwrap().runs;
    assert!(runs[0].id.ends_with("-2") && runs[0].asked.is_some() && runs[0].digest == runs[1].digest);
}

#[test]
fn what_a_lost_store_forgot_is_read_from_the_container_or_asked_about() {
    let mut model = Model::new(job(STEPS));
    model.settle();
    end(&mut model, 0);
    model.settle();
    end(&mut model, 5);
    (model.results, model.revisions, model.others) = (None, Vec::new(), Others::Forgotten);
    model.clock += 20_000;
    model.settle();
    assert_eq!(parts(&model), ["2 load running"], "the container told where it was");
    model.view.containers.clear();
    (model.results, model.revisions) = (None, Vec::new());
    model.settle();
    assert_snapshot!(model.plan());
    assert_eq!(standing(&model).1, Reason::Unknown);
    assert_eq!(parts(&model), Vec::<String>::new());
    let hash = model.current().steps.iter().find(|s| s.needs_approval).unwrap().hash();
    model.approved.insert(hash);
    model.settle();
    assert_eq!(parts(&model), ["1 prepare running"]);
    end(&mut model, 0);
    model.settle();
    assert_eq!(parts(&model), ["1 load running"], "one approval is for the run");
}

#[test]
fn a_container_that_is_gone_leaves_an_unknown_outcome() {
    let mut model = Model::new(job(PLAIN));
    model.others = Others::Remembered;
    model.settle();
    model.view.containers.clear();
    model.settle();
    assert_eq!(model.results.as_ref().unwrap().runs[0].proof, Proof::Unproven);
    assert!(model.current().steps.iter().any(|s| s.needs_approval));
    model.others = Others::None;
    model.settle();
    assert_eq!(parts(&model), ["2  running"], "where there is nothing else it runs by itself");
}

#[test]
fn it_is_stopped_when_its_time_is_over() {
    let mut model = Model::new(job("{container: {image: a:1, networks: [data]}, activeDeadline: 60s, retries: 0}"));
    model.settle();
    let started = model.view.containers[0].started_at.unwrap();
    assert_eq!(model.current().wake, Some(started.plus_millis(60_000)));
    model.clock = started.as_millis() + 60_000;
    assert_snapshot!(model.plan());
    model.step();
    let container = Arc::make_mut(&mut model.view.containers[0]);
    (container.exit_code, container.finished_at) = (137, Some(Timestamp::from_millis(model.clock)));
    model.settle();
    assert_eq!(standing(&model).2, "was stopped after 60 s, as long as it may run, after 1 attempt: some output");
}

#[test]
fn disabled_and_deleted_jobs_leave_nothing_behind() {
    let mut model = Model::new(job(PLAIN));
    model.settle();
    let mut off = job(PLAIN);
    off.off = Some(Reason::Disabled);
    model.change(off);
    assert_snapshot!(model.plan());
    model.step();
    let container = Arc::make_mut(&mut model.view.containers[0]);
    (container.exit_code, container.finished_at) = (143, Some(Timestamp::from_millis(model.clock)));
    model.settle();
    assert_eq!(parts(&model), Vec::<String>::new());
    assert_eq!(model.results.as_ref().unwrap().runs[0].failures, 1, "how it ended is recorded");
    model.change(job(PLAIN));
    model.clock += 20_000;
    model.settle();
    let mut gone = job(PLAIN);
    gone.deleting = true;
    model.change(gone);
    while model.step() {}
    assert!(model.view.containers.is_empty() && model.current().finalized);
}

#[test]
fn suspension_opens_and_starts_nothing() {
    let mut model = Model::new(job(PLAIN));
    model.suspended = Some("ann".into());
    assert_snapshot!(model.plan());
    assert!(model.current().notes.is_empty());
}

fn at(text: &str) -> i64 {
    Timestamp::parse(text).unwrap().as_millis()
}

const NIGHTLY: &str = "container: {image: a:1, networks: [data]}, schedule: '30 2 * * *', timeZone: Europe/Zurich, retries: 0";

#[test]
fn a_scheduled_job_runs_when_it_is_due_also_when_clocks_change() {
    let mut model = Model::new(job(&format!("{{{NIGHTLY}}}")));
    model.clock = at("2026-03-28T12:00:00Z");
    model.settle();
    assert_eq!((standing(&model).0, parts(&model)), (Availability::Available, vec![]), "it has missed nothing, and gates nobody");
    // 02:30 does not exist in Zurich on that day.
    let due = model.current().wake.unwrap();
    assert_eq!(due.to_seconds_string(), "2026-03-29T01:30:00Z");
    model.clock = due.as_millis() + 5;
    assert_snapshot!(model.plan());
    model.settle();
    assert_eq!(parts(&model), ["1  running"]);
    end(&mut model, 1);
    model.settle();
    let (availability, reason, _) = standing(&model);
    assert_eq!((availability, reason), (Availability::PartiallyAvailable, Reason::JobFailed));
    model.clock = model.current().wake.unwrap().as_millis();
    model.settle();
    end(&mut model, 0);
    model.settle();
    assert_eq!((standing(&model).0, parts(&model)), (Availability::Available, vec![]), "the next success takes the failed one away");
    assert_eq!(states(&model), [JobState::Succeeded, JobState::Failed]);
}

#[test]
fn what_is_due_while_it_runs_is_left_out_run_beside_or_takes_its_place() {
    for (concurrency, expected) in [("Forbid", 1), ("Allow", 2), ("Replace", 1)] {
        let mut model = Model::new(job(&format!("{{{NIGHTLY}, concurrency: {concurrency}}}")));
        model.clock = at("2026-07-01T12:00:00Z");
        model.settle();
        for day in [2, 3] {
            model.clock = at(&format!("2026-07-0{day}T00:30:00Z"));
            model.settle();
        }
        let running: Vec<String> =
            model.view.containers.iter().filter(|c| c.state == RunState::Running).map(|c| c.name.to_string()).collect();
        assert_eq!(running.len(), expected, "{concurrency}: {running:?}");
        let has_new = running.iter().any(|name| name == "n-app-202607030030-1");
        assert_eq!(has_new, concurrency != "Forbid", "{concurrency}: {running:?}");
        model.clock = at("2026-07-03T12:00:00Z");
        assert!(!model.step(), "{concurrency}: nothing is due\n{}", model.plan());
    }
}

#[test]
fn runs_that_nobody_was_there_for_are_left_out_or_made_up_for_once() {
    for (missed, expected) in [("Skip", vec![]), ("RunOnce", vec!["1  running".to_owned()])] {
        let mut model = Model::new(job(&format!("{{{NIGHTLY}, missedRuns: {missed}}}")));
        model.clock = at("2026-07-01T12:00:00Z");
        model.settle();
        model.clock = at("2026-07-09T12:00:00Z");
        let skipped = model.current().notes.iter().any(|note| matches!(note, Note::Skipped { count: 8, .. }));
        assert_eq!(skipped, missed == "Skip");
        model.settle();
        assert_eq!(parts(&model), expected, "{missed}");
        let next = model.current().job.unwrap().next_run.unwrap();
        assert_eq!(next.to_seconds_string(), "2026-07-10T00:30:00Z");
        // The clock goes back for days: the schedule goes on from there.
        end(&mut model, 0);
        model.settle();
        model.clock = at("2026-07-05T12:00:00Z");
        model.settle();
        model.clock = at("2026-07-06T00:30:00Z");
        model.settle();
        assert_eq!(parts(&model), ["1  running"], "{missed}");
    }
}

#[test]
fn ten_runs_are_remembered() {
    let mut model = Model::new(job("{container: {image: a:1, networks: [data]}, schedule: '* * * * *'}"));
    model.clock = at("2026-07-01T12:00:00Z");
    model.settle();
    for minute in 1..30 {
        model.clock = at(&format!("2026-07-01T12:{minute:02}:00Z"));
        model.settle();
        end(&mut model, 0);
        model.settle();
    }
    assert_eq!(states(&model), vec![JobState::Succeeded; 10]);
    assert!(parts(&model).is_empty());
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Pass,
    Ends(i64),
    Later(i64),
    Vanishes,
    StoreLost,
    Blind,
    Input(u32),
    Killed(usize),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        6 => Just(Happening::Pass),
        3 => (0_i64..2).prop_map(Happening::Ends),
        2 => (1_i64..400_000).prop_map(Happening::Later),
        1 => Just(Happening::Vanishes),
        1 => Just(Happening::StoreLost),
        1 => Just(Happening::Blind),
        1 => (1_u32..3).prop_map(Happening::Input),
        2 => (0_usize..4).prop_map(Happening::Killed),
    ];
    proptest::collection::vec(one, 1..60)
}

fn two_steps(version: u32) -> DesiredService {
    job(&format!(
        "{{container: {{image: a:1, networks: [data], env: {{V: {version}}}}}, retries: 2, \
         steps: [{{name: a, command: [a]}}, {{name: b, command: [b]}}]}}"
    ))
}

/// A pass that ends after so many steps: what was noted is durable, and no more is done.
fn be_killed(model: &mut Model, steps: usize) {
    let plan = model.current();
    for note in &plan.notes {
        model.results.get_or_insert_default().apply(note, "");
    }
    let mut made = BTreeMap::new();
    for index in plan.runnable().into_iter().take(steps) {
        model.take(index, &plan.steps[index], &mut made);
    }
}

/// The starts of a plan that would be taken, by the id of their container.
fn starts(plan: &Plan) -> BTreeSet<Name> {
    let start = |index: usize| match &plan.steps[index].action {
        Action::Start { container: qm_plan::step::ContainerRef::Id(id) } => Some(id.clone()),
        Action::Start { .. } => panic!("what is made is not started in the same pass"),
        _ => None,
    };
    plan.runnable().into_iter().filter_map(start).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    /// Other things are there that the store forgot, and nobody approves anything: then no step of an input that has succeeded, or may
    /// have, is ever started again, and no part of a run has two containers.
    #[test]
    fn no_success_is_repeated_and_no_part_has_two_containers(happenings in happenings(), may_change in any::<bool>()) {
        let mut model = Model::new(two_steps(0));
        model.others = Others::Forgotten;
        model.results = Some(Default::default());
        let mut started: BTreeMap<(String, u32, String), Name> = BTreeMap::new();
        let mut done: BTreeSet<(Name, String)> = BTreeSet::new();
        for happening in happenings {
            model.clock += 1;
            match happening {
                Happening::Pass | Happening::Killed(_) => {
                    let plan = model.current();
                    for id in starts(&plan) {
                        let stamp = model.view.containers.iter().find(|c| c.id == id).unwrap().stamp.clone().unwrap();
                        let part = stamp.job.unwrap();
                        let before = started.insert((part.run.to_string(), part.attempt, part.step.to_string()), id.clone());
                        prop_assert!(before.is_none_or(|before| before == id), "two containers of one part");
                        let of_input = (stamp.spec_hash.clone(), part.step.to_string());
                        prop_assert!(!done.contains(&of_input), "step {} is repeated", part.step);
                    }
                    match happening {
                        // The notes are durable, and so many steps are taken.
                        Happening::Killed(steps) => be_killed(&mut model, steps),
                        _ => {
                            model.step();
                        }
                    }
                }
                Happening::Ends(code) => {
                    for c in model.view.containers.iter().filter(|c| c.state == RunState::Running && code == 0) {
                        let stamp = c.stamp.clone().unwrap();
                        done.insert((stamp.spec_hash, stamp.job.unwrap().step.to_string()));
                    }
                    end(&mut model, code);
                }
                Happening::Later(ms) => model.clock += ms,
                Happening::Vanishes => {
                    for c in model.view.containers.iter().filter(|c| c.state != RunState::Created) {
                        let stamp = c.stamp.clone().unwrap();
                        // One that is known to have failed, and goes, changes nothing.
                        if c.state == RunState::Running || c.exit_code == 0 {
                            done.insert((stamp.spec_hash, stamp.job.unwrap().step.to_string()));
                        }
                    }
                    model.view.containers.retain(|c| c.state == RunState::Created);
                }
                // What an older input has run is forgotten too: that is another story (ADR 0013).
                Happening::StoreLost if !may_change => (model.results, model.revisions) = (None, Vec::new()),
                Happening::Input(version) if may_change => model.change(two_steps(version)),
                Happening::StoreLost | Happening::Input(_) => {}
                Happening::Blind => {
                    model.view.gaps.push(Gap::Engine { message: "away".into(), since: Timestamp::default() });
                    let plan = model.current();
                    prop_assert!(plan.steps.is_empty() && plan.notes.is_empty(), "a gap starts and removes nothing");
                    model.view.gaps.clear();
                }
            }
            let mut there = BTreeSet::new();
            for container in &model.view.containers {
                let part = container.stamp.as_ref().unwrap().job.clone().unwrap();
                prop_assert!(there.insert((part.run, part.attempt, part.step)), "two containers of one part");
            }
        }
    }
}

#[test]
fn what_is_late_because_its_image_is_pulled_was_not_missed() {
    let mut model = Model::new(job(&format!("{{{NIGHTLY}}}")));
    model.clock = at("2026-07-01T12:00:00Z");
    model.settle();
    // Somebody is there when it is due, and begins to pull.
    model.view.image = Some(Image::Absent);
    model.images.clear();
    model.clock = at("2026-07-02T00:30:01Z");
    let plan = model.current();
    assert!(plan.notes.contains(&Note::Noticed(Timestamp::from_millis(at("2026-07-02T00:30:00Z")))), "{plan}");
    for note in &plan.notes {
        model.results.get_or_insert_default().apply(note, "");
    }
    assert!(!model.current().notes.iter().any(|note| matches!(note, Note::Noticed(_))), "noted once");
    // The pull takes a quarter of an hour.
    model.clock = at("2026-07-02T00:45:00Z");
    model.settle();
    assert_eq!(parts(&model), ["1  running"]);
}

#[test]
fn a_skipped_job_begins_nothing_and_keeps_its_deadline() {
    let db = ObjectKey::new("MiniService", "n", "db");
    let mut model = Model::new(job_on("{container: {image: a:1, networks: [data]}, activeDeadline: 60s, retries: 0}", "[{service: db}]"));
    model.skipped_for = Some(db.clone());
    assert!(model.current().is_empty(), "{}", model.plan());
    model.skipped_for = None;
    model.gates.insert(db.clone(), Gate { usable: true, bad: false });
    model.settle();
    let started = model.view.containers[0].started_at.unwrap();
    model.skipped_for = Some(db);
    assert!(model.current().steps.is_empty(), "what runs may be in the middle of a migration: {}", model.plan());
    assert_eq!(model.current().wake, Some(started.plus_millis(60_000)));
    model.clock = started.as_millis() + 60_000;
    assert!(matches!(model.current().steps[0].action, Action::Stop { .. }), "{}", model.plan());
}
