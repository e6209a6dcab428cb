//! The settler in virtual time: tables of what happens to files and when it shows, and what holds for any sequence of operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proptest::prelude::*;
use qm_source::settle::{Hint, Input, Key, Millis, Scan, Seen, Settler, Slot, Text, Timing, Watching};
use qm_source::{Absence, Attachment, File, Health, Manifest, Problem, RelPath, Snapshot, SourceId};

const SETTLE: Millis = 2_000;

/// A folder in memory, its settler, and what was published when. A line `@file` in a manifest refers to `file`.
struct Bench {
    settler: Settler,
    now: Millis,
    disk: BTreeMap<String, String>,
    hints: Vec<(Key, Hint)>,
    readable: bool,
    watching: Watching,
    published: Vec<(Millis, Snapshot)>,
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn slot(path: &str) -> Slot {
    if path.ends_with(".yaml") { Slot::Manifest } else { Slot::Attachment }
}

fn key(text: &str) -> Key {
    Key::new(slot(text), path(text))
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let settler = Settler::new(SourceId::new("test"), Timing { settle: SETTLE, quiet: 25 });
        let disk = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let mut bench =
            Self { settler, now: 0, disk, hints: Vec::new(), readable: true, watching: Watching::Events, published: Vec::new() };
        bench.look_at_all();
        bench.run(3_000);
        bench.look_at_all();
        bench.published.clear();
        bench
    }

    fn look(&self, key: &Key) -> Seen {
        match self.disk.get(key.path.as_str()).map(String::as_str) {
            None => Seen::Absent,
            Some("!") => Seen::Refused(Problem::LeavesRoot),
            Some(text) => {
                let refs = text.lines().filter_map(|line| line.strip_prefix('@')).map(path).collect::<Vec<_>>();
                Seen::Text(Text {
                    file: File::new(text.as_bytes()),
                    refs: if key.slot == Slot::Manifest { refs.into() } else { [].into() },
                })
            }
        }
    }

    fn with_references(&self, mut seen: BTreeMap<Key, Seen>) -> BTreeMap<Key, Seen> {
        let refs: BTreeSet<RelPath> =
            seen.values().filter_map(|seen| if let Seen::Text(text) = seen { Some(text.refs.to_vec()) } else { None }).flatten().collect();
        for path in refs {
            let key = Key::new(Slot::Attachment, path);
            let found = self.look(&key);
            seen.entry(key).or_insert(found);
        }
        seen
    }

    fn look_at_all(&mut self) {
        let scan = if self.readable {
            let mut keys: BTreeSet<Key> = self.disk.keys().filter(|path| slot(path) == Slot::Manifest).map(|path| key(path)).collect();
            keys.extend(self.settler.references().into_iter().map(|path| Key::new(Slot::Attachment, path)));
            let seen = self.with_references(
                keys.into_iter()
                    .map(|key| {
                        let seen = self.look(&key);
                        (key, seen)
                    })
                    .collect(),
            );
            Scan::Whole { seen, unreadable: BTreeSet::new(), problems: BTreeMap::new() }
        } else {
            Scan::Unreadable { reason: "gone".to_owned() }
        };
        self.advance(scan);
    }

    fn look_at(&mut self, keys: Vec<Key>) {
        if !self.readable {
            return self.look_at_all();
        }
        let seen = self.with_references(
            keys.into_iter()
                .map(|key| {
                    let seen = self.look(&key);
                    (key, seen)
                })
                .collect(),
        );
        self.advance(Scan::Part { seen });
    }

    fn advance(&mut self, scan: Scan) {
        let hints = std::mem::take(&mut self.hints);
        let outcome = self.settler.advance(self.now, Input { hints, scan, watching: self.watching.clone() });
        self.published.extend(outcome.snapshot.map(|snapshot| (self.now, snapshot)));
    }

    fn tell(&mut self, path: &str, hint: Hint) {
        if slot(path) == Slot::Attachment && !self.settler.knows(&key(path)) {
            return;
        }
        self.hints.push((key(path), hint));
        let keys = if hint == Hint::Written { Vec::new() } else { vec![key(path)] };
        self.look_at(keys);
    }

    fn write(&mut self, path: &str, text: &str) {
        self.disk.insert(path.to_owned(), text.to_owned());
        self.tell(path, Hint::Written);
    }

    fn save(&mut self, path: &str, text: &str) {
        self.write(path, text);
        self.tell(path, Hint::Closed);
    }

    fn remove(&mut self, path: &str) {
        self.disk.remove(path);
        self.tell(path, Hint::Gone);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let Some(text) = self.disk.remove(from) else { return };
        self.disk.insert(to.to_owned(), text);
        self.tell(from, Hint::Gone);
        self.tell(to, Hint::Arrived);
    }

    /// Lets `time` pass.
    fn run(&mut self, time: Millis) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(wake) = self.settler.wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            let due = self.settler.due(self.now);
            self.look_at(due);
            steps += 1;
            assert!(steps < 10_000, "the settler wakes for nothing at {}", self.now);
        }
        self.now = end;
    }

    /// What was published, one line a snapshot, times relative to `start`.
    fn told(&self, start: Millis) -> String {
        let mut out = String::new();
        for (at, snapshot) in &self.published {
            write!(out, "{:>5}", at - start).unwrap();
            for (path, manifest) in &snapshot.manifests {
                match manifest {
                    Manifest::File(file) => write!(out, " {path}={}", String::from_utf8_lossy(&file.bytes).replace('\n', "|")).unwrap(),
                    Manifest::Refused(problem) => write!(out, " {path} {problem}").unwrap(),
                }
            }
            for (path, attachment) in &snapshot.attachments {
                match attachment {
                    Attachment::File(file) => write!(out, " +{path}={}", String::from_utf8_lossy(&file.bytes)).unwrap(),
                    Attachment::Missing => write!(out, " +{path} missing").unwrap(),
                    Attachment::Refused(problem) => write!(out, " +{path} {problem}").unwrap(),
                }
            }
            for held in &snapshot.held {
                write!(out, " [{}: {:?}]", held.path, held.why).unwrap();
            }
            if snapshot.health != Health::Ready {
                write!(out, " {:?}", snapshot.health).unwrap();
            }
            out.push('\n');
        }
        out
    }
}

/// A name, the files at first, what happens, and what is told.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], fn(&mut Bench), &'a str);

#[test]
fn what_happens_and_when_it_shows() {
    let base = &[("a.yaml", "a: 1\nb: 2"), ("b.yaml", "b")][..];
    let table: &[Case<'_>] = &[
        ("a save shows after quiet", base, |b| b.save("b.yaml", "B"), "   25 a.yaml=a: 1|b: 2 b.yaml=B\n"),
        ("a new file shows after quiet", &[("b.yaml", "b")], |b| b.save("c.yaml", "c"), "   25 b.yaml=b c.yaml=c\n"),
        (
            "write a temporary file and rename it over",
            &[("b.yaml", "b")],
            |b| {
                b.disk.insert("tmp".to_owned(), "B".to_owned());
                b.rename("tmp", "b.yaml");
            },
            "   25 b.yaml=B\n",
        ),
        (
            "unlink and create",
            &[("b.yaml", "b")],
            |b| {
                b.remove("b.yaml");
                b.run(10);
                b.save("b.yaml", "B");
            },
            "   35 b.yaml=B\n",
        ),
        (
            "unlink and create the same",
            &[("b.yaml", "b")],
            |b| {
                b.remove("b.yaml");
                b.run(10);
                b.save("b.yaml", "b");
            },
            "",
        ),
        (
            "half written: held while it is open, whole when it is closed",
            &[("b.yaml", "old")],
            |b| {
                b.write("b.yaml", "new: 1\n");
                b.run(1_000);
                b.write("b.yaml", "new: 1\nmore: 2");
                b.tell("b.yaml", Hint::Closed);
            },
            "   25 b.yaml=old [b.yaml: Open]\n 1000 b.yaml=old\n 1025 b.yaml=new: 1|more: 2\n",
        ),
        (
            "open and left alone counts after settle",
            &[("b.yaml", "old")],
            |b| b.write("b.yaml", "new"),
            "   25 b.yaml=old [b.yaml: Open]\n 2000 b.yaml=new\n",
        ),
        (
            "a closed prefix waits, and is replaced by the whole",
            &[("b.yaml", "a: 1\nb: 2")],
            |b| {
                b.save("b.yaml", "a: 1\n");
                b.run(1_000);
                b.save("b.yaml", "a: 1\nb: 3");
            },
            "   25 b.yaml=a: 1|b: 2 [b.yaml: StrictPrefix]\n 1000 b.yaml=a: 1|b: 2\n 1025 b.yaml=a: 1|b: 3\n",
        ),
        (
            "a prefix that stays is meant",
            &[("b.yaml", "a: 1\nb: 2")],
            |b| b.save("b.yaml", "a: 1\n"),
            "   25 b.yaml=a: 1|b: 2 [b.yaml: StrictPrefix]\n 2000 b.yaml=a: 1|\n",
        ),
        (
            "emptied and written again",
            &[("b.yaml", "b")],
            |b| {
                b.save("b.yaml", "");
                b.run(15);
                b.save("b.yaml", "b");
            },
            "",
        ),
        (
            "absence is held, then counts",
            base,
            |b| b.remove("b.yaml"),
            "   25 a.yaml=a: 1|b: 2 b.yaml=b [b.yaml: AbsencePending]\n 2000 a.yaml=a: 1|b: 2\n",
        ),
        (
            "an emptied folder that is filled again",
            base,
            |b| {
                b.remove("a.yaml");
                b.remove("b.yaml");
                b.run(1_500);
                b.save("a.yaml", "a: 1\nb: 2");
                b.save("b.yaml", "b");
            },
            "   25 a.yaml=a: 1|b: 2 b.yaml=b [a.yaml: AbsencePending] [b.yaml: AbsencePending]\n 1500 a.yaml=a: 1|b: 2 b.yaml=b [b.yaml: AbsencePending]\n 1500 a.yaml=a: 1|b: 2 b.yaml=b\n",
        ),
        (
            "an addition does not wait for an absence",
            &[("b.yaml", "b")],
            |b| {
                b.remove("b.yaml");
                b.save("c.yaml", "c");
            },
            "   25 b.yaml=b c.yaml=c [b.yaml: AbsencePending]\n 2000 c.yaml=c\n",
        ),
        ("a move is one step", &[("b.yaml", "b")], |b| b.rename("b.yaml", "c.yaml"), "   25 c.yaml=b\n"),
        ("a touch is nothing", base, |b| b.tell("b.yaml", Hint::Closed), ""),
        (
            "flapping never shows an absence",
            &[("b.yaml", "b")],
            |b| {
                for _ in 0..5 {
                    b.remove("b.yaml");
                    b.run(1_990);
                    b.save("b.yaml", "b");
                    b.run(10);
                }
                b.published.retain(|(_, snapshot)| snapshot.manifests.is_empty());
            },
            "",
        ),
        (
            "a burst is one snapshot",
            &[("b.yaml", "b")],
            |b| {
                for name in ["c.yaml", "d.yaml", "e.yaml"] {
                    b.save(name, "x");
                    b.run(20);
                }
            },
            "   65 b.yaml=b c.yaml=x d.yaml=x e.yaml=x\n",
        ),
        (
            "a file saved all the time does not starve",
            &[],
            |b| {
                for n in 0..60 {
                    b.save("b.yaml", &format!("{n}"));
                    b.run(10);
                }
            },
            "  500 b.yaml=49\n  615 b.yaml=59\n",
        ),
        (
            "unreadable is not absent",
            &[("b.yaml", "b")],
            |b| {
                b.disk.insert("b.yaml".to_owned(), "!".to_owned());
                b.tell("b.yaml", Hint::Gone);
                b.run(500);
                b.disk.insert("b.yaml".to_owned(), "B".to_owned());
                b.tell("b.yaml", Hint::Arrived);
            },
            "   25 b.yaml=b [b.yaml: RefusalPending]\n  500 b.yaml=b\n  525 b.yaml=B\n",
        ),
        (
            "the root goes and comes back with less",
            base,
            |b| {
                b.readable = false;
                b.look_at_all();
                b.run(5_000);
                b.disk.remove("b.yaml");
                b.readable = true;
                b.look_at_all();
            },
            " 2000 a.yaml=a: 1|b: 2 b.yaml=b Unreadable { reason: \"gone\" }\n 5000 a.yaml=a: 1|b: 2 b.yaml=b\n 5025 a.yaml=a: 1|b: 2 b.yaml=b [b.yaml: AbsencePending]\n 7000 a.yaml=a: 1|b: 2\n",
        ),
        (
            "the root is replaced at once",
            base,
            |b| {
                b.readable = false;
                b.look_at_all();
                b.run(100);
                b.readable = true;
                b.look_at_all();
                b.published.retain(|(_, snapshot)| snapshot.manifests.len() != 2 || snapshot.health != Health::Ready);
            },
            "",
        ),
        (
            "a manifest comes with its attachment, which comes later",
            &[],
            |b| {
                b.save("b.yaml", "@b.env");
                b.run(10);
                b.save("b.env", "X=1");
                b.run(100);
                b.save("b.env", "X=2");
            },
            "   35 b.yaml=@b.env +b.env=X=1\n  135 b.yaml=@b.env +b.env=X=2\n",
        ),
        (
            "a missing attachment is missing until it appears",
            &[("b.yaml", "@b.env")],
            |b| b.save("b.env", "X=1"),
            "   25 b.yaml=@b.env +b.env=X=1\n",
        ),
        (
            "a manifest waits for an attachment that is being written",
            &[],
            |b| {
                b.save("b.yaml", "@b.env");
                b.write("b.env", "X=");
                b.run(1_000);
                b.save("b.env", "X=1");
            },
            "   25 [b.env: Open] [b.yaml: Attachment]\n 1000 [b.yaml: Attachment]\n 1000\n 1025 b.yaml=@b.env +b.env=X=1\n",
        ),
        (
            "without events everything waits",
            &[("b.yaml", "b")],
            |b| {
                b.watching = Watching::Looks { reason: "limit".to_owned() };
                b.disk.insert("b.yaml".to_owned(), "B".to_owned());
                b.look_at_all();
            },
            "    0 b.yaml=b Degraded { reason: \"limit\" }\n 2000 b.yaml=B Degraded { reason: \"limit\" }\n",
        ),
    ];
    let mut wrong = String::new();
    for (name, files, story, expected) in table {
        let mut bench = Bench::new(files);
        let start = bench.now;
        story(&mut bench);
        bench.run(10_000);
        let told = bench.told(start);
        if told != *expected {
            writeln!(wrong, "## {name}\n# expected\n{expected}# told\n{told}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn absence_counts_from_the_second_whole_look() {
    let mut bench = Bench { now: 0, ..Bench::new(&[]) };
    bench.settler = Settler::new(SourceId::new("test"), Timing { settle: SETTLE, quiet: 25 });
    bench.disk.insert("a.yaml".to_owned(), "a".to_owned());
    bench.look_at_all();
    bench.run(SETTLE);
    bench.look_at_all();
    let told: Vec<_> = bench.published.iter().map(|(at, snapshot)| (*at, snapshot.absence, snapshot.manifests.len())).collect();
    assert_eq!(told, [(25, Absence::Unproven, 1), (SETTLE, Absence::Counts, 1)]);
}

#[test]
fn a_source_that_comes_into_sight_is_never_shown_empty() {
    let mut bench = Bench::new(&[]);
    bench.settler = Settler::new(SourceId::new("test"), Timing { settle: SETTLE, quiet: 25 });
    bench.readable = false;
    bench.look_at_all();
    bench.run(5_000);
    bench.disk.insert("a.yaml".to_owned(), "a".to_owned());
    bench.readable = true;
    bench.look_at_all();
    bench.run(100);
    for (_, snapshot) in &bench.published {
        assert!(snapshot.health != Health::Ready || snapshot.manifests.len() == 1, "{snapshot:?}");
    }
    assert_eq!(bench.published.last().map(|(_, s)| s.health.clone()), Some(Health::Ready));
}

#[test]
fn unchanged_files_keep_their_allocation() {
    let mut bench = Bench::new(&[("a.yaml", "a"), ("b.yaml", "b")]);
    bench.save("b.yaml", "B");
    bench.run(100);
    bench.remove("a.yaml");
    bench.save("a.yaml", "a");
    bench.save("b.yaml", "BB");
    bench.run(100);
    let bytes = |n: usize| match &bench.published[n].1.manifests[&path("a.yaml")] {
        Manifest::File(file) => std::sync::Arc::as_ptr(&file.bytes),
        Manifest::Refused(problem) => panic!("{problem}"),
    };
    assert_eq!(bytes(0), bytes(1));
}

#[derive(Debug, Clone)]
enum Op {
    Save(usize, String),
    Write(usize, String),
    Close(usize),
    Remove(usize),
    Rename(usize, usize),
    Look,
    Wait(Millis),
    Root(bool),
}

const NAMES: [&str; 5] = ["a.yaml", "b.yaml", "c.yaml", "x.env", "y.env"];

fn op() -> impl Strategy<Value = Op> {
    let text = prop::sample::select(vec!["", "1", "12", "123", "@x.env\n", "@x.env\n@y.env\n", "!", "z"]).prop_map(str::to_owned);
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (name.clone(), text.clone()).prop_map(|(n, t)| Op::Save(n, t)),
        2 => (name.clone(), text).prop_map(|(n, t)| Op::Write(n, t)),
        2 => name.clone().prop_map(Op::Close),
        3 => name.clone().prop_map(Op::Remove),
        2 => (name.clone(), name).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => Just(Op::Look),
        4 => prop::sample::select(vec![1, 10, 24, 25, 26, 400, 1_999, 2_000, 2_001]).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Root),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_quiet_the_snapshot_is_the_folder(ops in prop::collection::vec(op(), 0..40)) {
        let mut bench = Bench::new(&[("a.yaml", "keep"), ("keep.yaml", "kept"), ("b.yaml", "12")]);
        let mut last = None;
        for op in ops {
            match op {
                Op::Save(n, text) => bench.save(NAMES[n], &text),
                Op::Write(n, text) => bench.write(NAMES[n], &text),
                Op::Close(n) => bench.tell(NAMES[n], Hint::Closed),
                Op::Remove(n) => bench.remove(NAMES[n]),
                Op::Rename(a, b) if slot(NAMES[a]) == slot(NAMES[b]) && a != b => bench.rename(NAMES[a], NAMES[b]),
                Op::Rename(..) => {}
                Op::Look => bench.look_at_all(),
                Op::Wait(time) => bench.run(time),
                Op::Root(readable) => { bench.readable = readable; bench.look_at_all(); }
            }
        }
        bench.readable = true;
        bench.look_at_all();
        bench.run(20_000);
        bench.look_at_all();
        for (at, snapshot) in &bench.published {
            prop_assert!(snapshot.manifests.contains_key(&path("keep.yaml")), "keep.yaml is absent at {at}");
            last = Some(snapshot);
        }
        if let Some(last) = last {
            let on_disk: BTreeSet<&str> = bench.disk.keys().map(String::as_str).filter(|path| slot(path) == Slot::Manifest).collect();
            prop_assert_eq!(last.manifests.keys().map(RelPath::as_str).collect::<BTreeSet<_>>(), on_disk);
            for (path, manifest) in &last.manifests {
                match (manifest, bench.disk[path.as_str()].as_str()) {
                    (Manifest::Refused(_), "!") => {}
                    (Manifest::File(file), text) => prop_assert_eq!(&*file.bytes, text.as_bytes()),
                    (manifest, text) => prop_assert!(false, "{path}: {manifest:?} for {text:?}"),
                }
            }
            for (path, attachment) in &last.attachments {
                match (attachment, bench.disk.get(path.as_str()).map(String::as_str)) {
                    (Attachment::Missing, None) | (Attachment::Refused(_), Some("!")) => {}
                    (Attachment::File(file), Some(text)) => prop_assert_eq!(&*file.bytes, text.as_bytes()),
                    (attachment, text) => prop_assert!(false, "{path}: {attachment:?} for {text:?}"),
                }
            }
            prop_assert!(last.held.is_empty(), "{:?}", last.held);
        }
    }
}
