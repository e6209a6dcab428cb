//! Draws what has come of drills: as a test runner does, as JUnit XML, as JSON, and as a timeline. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::bind::shown;
use super::play::{Failure, Outcome, is_act};
use super::timeline::{Entry, Standing, Timeline, clock, seconds};
use crate::output::{Style, Tone, clean, count};

/// Lines of a timeline that are shown before a failure, and after it.
const AROUND: (usize, usize) = (10, 3);

/// A drill that was played.
#[derive(Debug)]
pub(crate) struct Played {
    /// The file as people name it.
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

impl Played {
    pub(crate) fn is_ok(&self) -> bool {
        self.outcome.failures.is_empty()
    }
}

/// What a test runner says of one drill.
pub(crate) fn text(played: &Played, with_timeline: bool, style: Style) -> String {
    let verdict = if played.is_ok() { style.paint(Tone::Good, "ok    ") } else { style.paint(Tone::Bad, "FAILED") };
    let about = style.paint(Tone::Dim, &format!("({}, {})", clock(played.outcome.lasted_ms), clean(&played.file)));
    let mut out = format!("{verdict}  {}  {about}\n", clean(&played.name));
    for failure in &played.outcome.failures {
        out.push_str(&failed(played, failure, !with_timeline));
    }
    if with_timeline {
        let entries: Vec<&Entry> = played.outcome.timeline.entries().iter().collect();
        out.push_str(&lines(&entries, "        "));
    }
    out
}

fn failed(played: &Played, failure: &Failure, with_excerpt: bool) -> String {
    let line = failure.spot.as_ref().map(|spot| format!(":{}:{}", spot.span.line, spot.span.column)).unwrap_or_default();
    let mut out = format!("        {} {}{line}\n", when(failure), clean(&played.file));
    let _ = writeln!(out, "          expected  {}", clean(&wanted(failure)));
    let _ = writeln!(out, "          found     {}", clean(&failure.unmet.found));
    let excerpt = excerpt(&played.outcome.timeline, failure);
    if with_excerpt && !excerpt.is_empty() {
        let _ = write!(out, "        what happened\n{}", lines(&excerpt, "          "));
    }
    out
}

fn when(failure: &Failure) -> String {
    let end = if failure.at_end { "the end, " } else { "" };
    format!("at {end}{}", clock(failure.at_ms))
}

/// `notify/app-db: availability 4 TemporarilyUnavailable`; of all together, what they all should be.
fn wanted(failure: &Failure) -> String {
    match failure.unmet.on.as_slice() {
        [on] if failure.spot.is_some() && !failure.unmet.expected.starts_with("all ") => {
            format!("{}: {}", shown(on), failure.unmet.expected)
        }
        _ => failure.unmet.expected.clone(),
    }
}

/// What the drill did, and what became of those that an expectation is about, around its time.
fn excerpt<'a>(timeline: &'a Timeline, failure: &Failure) -> Vec<&'a Entry> {
    let on = &failure.unmet.on;
    let concerns = |entry: &&Entry| (on.is_empty() || on.contains(&entry.on) || is_act(&entry.what)) && entry.words().is_some();
    let all: Vec<&Entry> = timeline.entries().iter().filter(concerns).collect();
    let now = all.partition_point(|e| e.at_ms <= failure.at_ms);
    all[now.saturating_sub(AROUND.0)..(now + AROUND.1).min(all.len())].to_vec()
}

/// A timeline, a line an entry.
pub(crate) fn lines(entries: &[&Entry], indent: &str) -> String {
    let rows: Vec<(String, String, String)> =
        entries.iter().filter_map(|e| Some((format!("+{}", clock(e.at_ms)), shown(&e.on), clean(&e.words()?)))).collect();
    let width = |of: fn(&(String, String, String)) -> &String| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or_default();
    let (times, names) = (width(|row| &row.0), width(|row| &row.1));
    rows.iter().fold(String::new(), |mut out, (time, name, words)| {
        let _ = writeln!(out, "{indent}{time:<times$}  {name:<names$}  {words}");
        out
    })
}

/// The last line of a run.
pub(crate) fn summary(played: &[Played], style: Style) -> String {
    let failed = played.iter().filter(|p| !p.is_ok()).count();
    let total: u64 = played.iter().map(|p| p.outcome.lasted_ms).sum();
    let verdict = match failed {
        0 => style.paint(Tone::Good, "all ok"),
        failed => style.paint(Tone::Bad, &format!("{failed} failed")),
    };
    format!("{}: {verdict}; {} of virtual time\n", count(played.len(), "drill"), clock(total))
}

/// All of it for programs.
pub(crate) fn json(played: &[Played]) -> Value {
    let drills: Vec<Value> = played
        .iter()
        .map(|p| {
            json!({
                "drill": p.name, "file": p.file, "ok": p.is_ok(), "virtualSeconds": seconds(p.outcome.lasted_ms),
                "failures": p.outcome.failures.iter().map(failure_json).collect::<Vec<_>>(), "timeline": p.outcome.timeline.json(),
            })
        })
        .collect();
    let failed = played.iter().filter(|p| !p.is_ok()).count();
    json!({ "drills": drills, "summary": { "drills": played.len(), "failed": failed } })
}

fn failure_json(failure: &Failure) -> Value {
    let (line, column) = failure.spot.as_ref().map(|spot| (spot.span.line, spot.span.column)).unzip();
    json!({
        "at": seconds(failure.at_ms), "atEnd": failure.at_end, "services": failure.unmet.on.iter().map(shown).collect::<Vec<_>>(),
        "expected": failure.unmet.expected, "found": failure.unmet.found, "line": line, "column": column,
    })
}

/// JUnit's XML as CI systems read it: a suite a file, times in virtual seconds.
pub(crate) fn junit(played: &[Played]) -> String {
    let failures = |of: &[&Played]| of.iter().filter(|p| !p.is_ok()).count();
    let time = |of: &[&Played]| seconds(of.iter().map(|p| p.outcome.lasted_ms).sum()).to_string();
    let all: Vec<&Played> = played.iter().collect();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites name=\"quaymaster test\" tests=\"{}\" failures=\"{}\" time=\"{}\">",
        all.len(),
        failures(&all),
        time(&all)
    );
    for suite in all.chunk_by(|a, b| a.file == b.file) {
        let file = escaped(&suite[0].file);
        let (tests, failed, lasted) = (suite.len(), failures(suite), time(suite));
        let _ = writeln!(
            out,
            "  <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\" time=\"{lasted}\">"
        );
        for one in suite {
            let _ =
                write!(out, "    <testcase classname=\"{file}\" name=\"{}\" file=\"{file}\" time=\"{}\"", escaped(&one.name), time(&[one]));
            if one.is_ok() {
                out.push_str("/>\n");
                continue;
            }
            out.push_str(">\n");
            for failure in &one.outcome.failures {
                let message = format!("{}: expected {}, found {}", when(failure), wanted(failure), failure.unmet.found);
                let text = failed_text(one, failure);
                let _ = writeln!(out, "      <failure type=\"expectation\" message=\"{}\">{}</failure>", escaped(&message), escaped(&text));
            }
            out.push_str("    </testcase>\n");
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn failed_text(played: &Played, failure: &Failure) -> String {
    self::failed(played, failure, true).lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Text within XML; characters that XML does not have are left out.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
        out
    })
}

/// What would come of something: the timeline, who restarted and reloaded, and what does not heal.
pub(crate) fn what_if(act: &str, has_end: bool, outcome: &Outcome, style: Style) -> String {
    let mut out = format!("{}\n", style.paint(Tone::Strong, &format!("what if: {}", clean(act))));
    let entries: Vec<&Entry> = outcome.timeline.entries().iter().collect();
    out.push_str(&lines(&entries, "  "));
    for failure in &outcome.failures {
        let _ = writeln!(out, "{} {}: {}", style.paint(Tone::Bad, "!"), clean(&failure.unmet.expected), clean(&failure.unmet.found));
    }
    let story = Story::of(outcome);
    let _ = writeln!(out, "restarts  {}", story.restarts);
    let _ = writeln!(out, "reloads   {}", story.reloads);
    let end = clock(outcome.lasted_ms);
    if story.unhealed.is_empty() {
        let _ = writeln!(out, "{}", style.paint(Tone::Good, &format!("after {end} everything is as it was")));
    } else {
        let words = if has_end { format!("after {end} this has not healed:") } else { "for as long as it lasts:".to_owned() };
        let _ = writeln!(out, "{}", style.paint(Tone::Bad, &words));
        for (name, standing) in &story.unhealed {
            let message = if standing.message.is_empty() { String::new() } else { format!(" ({})", clean(&standing.message)) };
            let _ = writeln!(out, "  {name}  {}{message}", clean(&standing.words()));
        }
    }
    out
}

/// The same for programs.
pub(crate) fn what_if_json(act: &str, outcome: &Outcome) -> Value {
    let unhealed: Vec<Value> =
        Story::of(outcome).unhealed.iter().map(|(name, s)| json!({ "service": name, "reason": s.reason, "words": s.words() })).collect();
    json!({
        "act": act, "virtualSeconds": seconds(outcome.lasted_ms), "timeline": outcome.timeline.json(), "unhealed": unhealed,
        "failures": outcome.failures.iter().map(failure_json).collect::<Vec<_>>(),
    })
}

/// Whether nothing is left of it.
pub(crate) fn has_healed(outcome: &Outcome) -> bool {
    outcome.failures.is_empty() && Story::of(outcome).unhealed.is_empty()
}

struct Story<'a> {
    restarts: String,
    reloads: String,
    unhealed: Vec<(String, &'a Standing)>,
}

impl<'a> Story<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        use super::timeline::Happened;
        let timeline = &outcome.timeline;
        let in_order = |is: fn(&Happened) -> bool| {
            let names: Vec<String> = timeline.entries().iter().filter(|e| is(&e.what)).map(|e| shown(&e.on)).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let standings = timeline.nodes().into_iter().filter_map(|key| Some((key, timeline.standing(key)?)));
        // What was not well before has not been hurt by this.
        let unhealed = standings
            .filter(|(key, now)| timeline.standing_at_begin(key).is_none_or(|then| !then.is_like(now)))
            .map(|(key, now)| (shown(key), now))
            .collect();
        Self {
            restarts: in_order(|what| matches!(what, Happened::Started { again: true, .. })),
            reloads: in_order(|what| matches!(what, Happened::Reloads { .. })),
            unhealed,
        }
    }
}

#[cfg(test)]
mod tests {
    use qm_api::availability::Availability;
    use qm_api::conditions::Reason;
    use qm_api::manifest::tree::Span;
    use qm_api::meta::ObjectKey;

    use super::*;
    use crate::drill::expect::Unmet;
    use crate::drill::format::Spot;
    use crate::drill::timeline::Happened;

    fn played() -> Played {
        let key = |name: &str| ObjectKey::new("MiniService", "n", name);
        let well = Standing {
            availability: Some(Availability::Available),
            usable: true,
            reason: Reason::Healthy,
            message: String::new(),
            because: Vec::new(),
        };
        let mut timeline = Timeline::default();
        timeline.stand(0, &key("db"), 0, well.clone());
        timeline.stand(0, &key("app"), 1, well.clone());
        timeline.begin();
        timeline.add(0, &key("db"), Happened::Act("down db".to_owned()));
        let down =
            Standing { availability: Some(Availability::TemporarilyUnavailable), usable: false, reason: Reason::Exited, ..well.clone() };
        timeline.stand(2_000, &key("db"), 0, down.clone());
        timeline.stand(2_000, &key("app"), 1, Standing { reason: Reason::DependencyUnavailable, because: vec![key("db")], ..down });
        timeline.add(9_000, &key("app"), Happened::Told { reason: Reason::Started, is_warning: false, message: "not shown".to_owned() });
        let unmet = Unmet { on: vec![key("app")], expected: "usable true".to_owned(), found: "4 <&\"\u{1b}> down".to_owned() };
        let span = Span { line: 4, column: 7, start: 0, end: 1 };
        let failure = Failure { at_ms: 60_000, at_end: false, unmet, spot: Some(Spot { span, ..Spot::default() }) };
        let outcome = Outcome { failures: vec![failure], timeline, lasted_ms: 122_000 };
        Played { file: "a.drill.yaml".to_owned(), name: "db & <app>".to_owned(), outcome }
    }

    #[test]
    fn a_failure_says_what_was_expected_what_was_found_and_what_happened() {
        insta::assert_snapshot!(text(&played(), false, Style::PLAIN), @r#"
        FAILED  db & <app>  (2m02.0s, a.drill.yaml)
                at 1m00.0s a.drill.yaml:4:7
                  expected  n/app: usable true
                  found     4 <&" > down
                what happened
                  +0.0s  n/db   <- down db
                  +2.0s  n/app  4 TemporarilyUnavailable DependencyUnavailable, because of n/db
        "#);
        assert_eq!(summary(&[played()], Style::PLAIN), "1 drill: 1 failed; 2m02.0s of virtual time\n");
    }

    #[test]
    fn xml_has_no_text_that_is_none() {
        insta::assert_snapshot!(junit(&[played()]).lines().take(5).collect::<Vec<_>>().join("\n"), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="quaymaster test" tests="1" failures="1" time="122.0">
          <testsuite name="a.drill.yaml" tests="1" failures="1" errors="0" skipped="0" time="122.0">
            <testcase classname="a.drill.yaml" name="db &amp; &lt;app&gt;" file="a.drill.yaml" time="122.0">
              <failure type="expectation" message="at 1m00.0s: expected n/app: usable true, found 4 &lt;&amp;&quot;&gt; down">        at 1m00.0s a.drill.yaml:4:7
        "#);
    }

    #[test]
    fn what_is_not_as_it_was_is_told_at_the_end() {
        let outcome = Outcome { failures: Vec::new(), ..played().outcome };
        assert!(!has_healed(&outcome));
        insta::assert_snapshot!(what_if("down db 1m", true, &outcome, Style::PLAIN), @r"
        what if: down db 1m
          +0.0s  n/db   <- down db
          +2.0s  n/db   4 TemporarilyUnavailable Exited
          +2.0s  n/app  4 TemporarilyUnavailable DependencyUnavailable, because of n/db
        restarts  none
        reloads   none
        after 2m02.0s this has not healed:
          n/db  4 TemporarilyUnavailable Exited
          n/app  4 TemporarilyUnavailable DependencyUnavailable, because of n/db
        ");
        assert!(what_if("down db", false, &outcome, Style::PLAIN).contains("\nfor as long as it lasts:\n"));
    }
}
