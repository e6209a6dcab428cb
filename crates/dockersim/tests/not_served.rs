//! `NOT_SERVED.md` is true: every line of its list answers 501.

use qm_dockersim::{Engine, Now, Options, Reply, Request};

#[test]
fn what_is_listed_answers_501() {
    let text =
        std::fs::read_to_string(format!("{}/NOT_SERVED.md", std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")))
            .expect("the list can be read");
    let now = Now { mono_ms: 0, wall_ns: 0 };
    let mut engine = Engine::new(Options::default(), now);
    let list = text.split("\n# ").next().expect("the first part");
    let lines: Vec<(&str, &str)> = list.lines().filter_map(|l| l.strip_prefix("- ")?.split_once(' ')).collect();
    assert!(lines.len() > 20, "the list was not found");
    for (method, path) in lines {
        let reply = engine.handle(&Request::new(method, path), now);
        let Reply::Json { status, body } = reply else { panic!("{method} {path}: {reply:?}") };
        assert_eq!(status, 501, "{method} {path}: {body}");
    }
}
