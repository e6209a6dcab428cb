//! The conformance suite, on the real daemon and on the simulator.
//!
//! `QM_CONFORMANCE_CASE=part` runs only the cases with this in their names; `QM_TEST_DOCKER_HOST` names the daemon.

macro_rules! areas {
    ($subject:ident: $($area:ident)*) => {
        $(
            #[test]
            fn $area() {
                qm_tests::conformance::run(&super::$subject(), stringify!($area));
            }
        )*

        #[test]
        fn no_area_is_left_out() {
            let here = [$(stringify!($area)),*];
            let there: Vec<&str> = qm_tests::conformance::AREAS.iter().map(|a| a.name).collect();
            assert_eq!(here[..], there[..]);
        }
    };
}

use qm_tests::support::engine;
use qm_tests::support::http::{self, Place};
use qm_tests::support::simulator;

fn real_daemon() -> Place {
    Place::from(engine::shared().socket())
}

fn simulator() -> Place {
    Place::from(simulator::shared())
}

mod real {
    areas!(real_daemon: system create life change list names wait logs exec archive policy health networks volumes images events);
}

mod sim {
    areas!(simulator: system create life change list names wait logs exec archive policy health networks volumes images events);
}

/// The seeds that every run compares; `QM_RANDOM_SEEDS=A..B` takes others.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("QM_RANDOM_SEEDS") else { return 0..40 };
    let ends = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    ends.unwrap_or_else(|| panic!("QM_RANDOM_SEEDS is {text}, not A..B"))
}

#[test]
fn random_requests_are_answered_alike() {
    let (real, sim) = (real_daemon(), simulator());
    let results: Vec<Result<usize, String>> = seeds().map(|seed| qm_tests::conformance::random::compare(&real, &sim, seed)).collect();
    let differences: Vec<&String> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(
        differences.is_empty(),
        "{} of {} sequences differ\n{}",
        differences.len(),
        results.len(),
        differences.iter().map(|d| format!("\n{d}")).collect::<String>()
    );
    println!("{} requests in {} sequences", results.iter().flatten().sum::<usize>(), results.len());
}

/// The list of what the simulator does not serve, as requests.
fn not_served() -> Vec<(String, String)> {
    let list = include_str!("../../crates/dockersim/NOT_SERVED.md");
    let lines = list.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(' '));
    let requests = lines.filter(|(method, path)| method.bytes().all(|b| b.is_ascii_uppercase()) && path.starts_with('/'));
    requests.map(|(method, path)| (method.to_owned(), path.replace("NAME", "conf").replace("ID", "conf"))).collect()
}

#[test]
fn what_is_not_served_says_so() {
    let requests = not_served();
    assert!(!requests.is_empty(), "the list is read wrongly, or it is time to remove this test");
    for (method, path) in requests {
        let answer = http::call(&simulator(), &method, &format!("/v1.41{path}"), None).expect("the simulator answers");
        assert_eq!(answer.code, 501, "{method} {path}: {}", answer.text());
        assert!(answer.json()["message"].is_string(), "{method} {path}: {}", answer.text());
    }
}
