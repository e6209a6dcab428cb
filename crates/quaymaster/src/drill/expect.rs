//! Judges what was expected against what was recorded. Pure.

use std::collections::BTreeSet;

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;

use super::bind::shown;
use super::format::{Claim, Quality, Together};
use super::timeline::{Entry, Happened, Standing, Timeline};

/// How an expectation was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unmet {
    /// Of whom; empty where all together are meant.
    pub(crate) on: Vec<ObjectKey>,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// Judges one claim at a time, in milliseconds since the beginning. What is counted is counted since then.
///
/// # Errors
/// How it is not met.
pub(crate) fn judge(claim: &Claim<ObjectKey>, timeline: &Timeline, at_ms: u64) -> Result<(), Unmet> {
    let so_far = timeline.until(at_ms);
    let met = |holds: bool, on: Vec<ObjectKey>, expected: String, found: String| match holds {
        true => Ok(()),
        false => Err(Unmet { on, expected, found }),
    };
    match claim {
        Claim::Of(on, quality) => {
            let (holds, expected, found) = of_one(on, quality, timeline, at_ms);
            met(holds, vec![on.clone()], expected, found)
        }
        Claim::All(together) => {
            let wrong: Vec<(&ObjectKey, &Standing)> = timeline
                .nodes()
                .into_iter()
                .filter_map(|key| Some((key, timeline.standing_at(key, at_ms)?)))
                .filter(|(_, standing)| !is_fine(standing, *together))
                .collect();
            let found: Vec<String> = wrong.iter().map(|(key, standing)| format!("{} is {}", shown(key), standing.words())).collect();
            let word = match together {
                Together::Usable => "usable",
                Together::Available => "available",
            };
            met(wrong.is_empty(), wrong.iter().map(|(key, _)| (*key).clone()).collect(), format!("all {word}"), found.join("; "))
        }
        Claim::Restarts(count) => {
            let (found, of) = counted(so_far, is_restart);
            met(found == *count, Vec::new(), format!("restarts {count}"), numbered(found, &of))
        }
        Claim::Reloads(count) => {
            let (found, of) = counted(so_far, is_reload);
            met(found == *count, Vec::new(), format!("reloads {count}"), numbered(found, &of))
        }
        Claim::Order(order) => {
            let firsts: Vec<Option<u64>> = order.iter().map(|key| first(so_far, key)).collect();
            let holds = firsts.iter().all(Option::is_some) && firsts.windows(2).all(|two| two[0] <= two[1]);
            let mut found: Vec<(Option<u64>, String)> = firsts.iter().copied().zip(order.iter().map(shown)).collect();
            found.sort();
            let did = found.iter().filter_map(|(at, name)| Some(format!("{name} at {}", super::timeline::clock((*at)?))));
            let did_not = found.iter().filter(|(at, _)| at.is_none()).map(|(_, name)| format!("{name} not at all"));
            let found: Vec<String> = did.chain(did_not).collect();
            let names: Vec<String> = order.iter().map(shown).collect();
            met(holds, order.clone(), format!("order {}", names.join(", ")), found.join(", "))
        }
        Claim::Events(reasons) => {
            let (missing, found) = events(so_far, None, reasons);
            met(missing.is_empty(), Vec::new(), format!("events {}", missing.join(", ")), found)
        }
    }
}

/// Whether a quality holds, what it says, and what is so instead.
fn of_one(on: &ObjectKey, quality: &Quality<ObjectKey>, timeline: &Timeline, at_ms: u64) -> (bool, String, String) {
    let so_far = timeline.until(at_ms);
    let mine = || so_far.iter().filter(|e| e.on == *on);
    let standing = timeline.standing_at(on, at_ms);
    let words = || standing.map_or_else(|| "nothing: it is not there yet".to_owned(), Standing::words);
    match quality {
        Quality::Availability(wanted) => {
            let holds = standing.is_some_and(|s| s.availability == Some(*wanted));
            (holds, format!("availability {} {wanted}", wanted.severity()), words())
        }
        Quality::Usable(wanted) => (standing.is_some_and(|s| s.usable == *wanted), format!("usable {wanted}"), words()),
        Quality::Reason(wanted) => (standing.is_some_and(|s| s.reason == *wanted), format!("reason {wanted}"), words()),
        Quality::Because(wanted) => {
            let holds = standing.is_some_and(|s| wanted.iter().all(|culprit| s.because.contains(culprit)));
            let names: Vec<String> = wanted.iter().map(shown).collect();
            (holds, format!("because of {}", names.join(", ")), words())
        }
        Quality::Reloads(wanted) => {
            let found = mine().filter(|e| is_reload(&e.what)).count() as u64;
            (found == *wanted, format!("reloads {wanted}"), found.to_string())
        }
        Quality::Restarts(wanted) => {
            let found = mine().filter(|e| is_restart(&e.what)).count() as u64;
            (found == *wanted, format!("restarts {wanted}"), found.to_string())
        }
        Quality::Events(reasons) => {
            let (missing, found) = events(so_far, Some(on), reasons);
            (missing.is_empty(), format!("events {}", missing.join(", ")), found)
        }
    }
}

fn is_fine(standing: &Standing, together: Together) -> bool {
    match (standing.availability, together) {
        // Off by configuration: nobody expects anything of it.
        (None, _) => true,
        (Some(_), Together::Usable) => standing.usable,
        (Some(availability), Together::Available) => standing.usable && availability == Availability::Available,
    }
}

fn is_restart(what: &Happened) -> bool {
    matches!(what, Happened::Started { again: true, .. })
}

fn is_reload(what: &Happened) -> bool {
    matches!(what, Happened::Reloads { .. })
}

/// How often, and of whom.
fn counted(entries: &[Entry], is: fn(&Happened) -> bool) -> (u64, BTreeSet<String>) {
    let found: Vec<&Entry> = entries.iter().filter(|e| is(&e.what)).collect();
    (found.len() as u64, found.iter().map(|e| shown(&e.on)).collect())
}

fn numbered(count: u64, of: &BTreeSet<String>) -> String {
    let of: Vec<&str> = of.iter().map(String::as_str).collect();
    if of.is_empty() { count.to_string() } else { format!("{count}, of {}", of.join(", ")) }
}

/// When a service first reloaded, or was started.
fn first(entries: &[Entry], key: &ObjectKey) -> Option<u64> {
    let is = |what: &Happened| matches!(what, Happened::Reloads { .. } | Happened::Started { .. });
    entries.iter().find(|e| e.on == *key && is(&e.what)).map(|e| e.at_ms)
}

/// Reasons that were not told, and those that were.
fn events(entries: &[Entry], on: Option<&ObjectKey>, wanted: &[Reason]) -> (Vec<String>, String) {
    let told: BTreeSet<Reason> = entries
        .iter()
        .filter(|e| on.is_none_or(|on| e.on == *on))
        .filter_map(|e| match e.what {
            Happened::Told { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    let missing: Vec<String> = wanted.iter().filter(|reason| !told.contains(reason)).map(ToString::to_string).collect();
    let found: Vec<String> = told.iter().map(ToString::to_string).collect();
    (missing, if found.is_empty() { "no events".to_owned() } else { found.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("MiniService", "n", name)
    }

    fn stands(availability: Availability, reason: Reason, because: &[&str]) -> Standing {
        let because = because.iter().map(|name| key(name)).collect();
        Standing { availability: Some(availability), usable: availability.is_usable(), reason, message: String::new(), because }
    }

    /// `db` is lost from 1 s to 9 s, `app` with it; `app` reloads at 11 s and is restarted.
    fn story() -> Timeline {
        let well = || stands(Availability::Available, Reason::Healthy, &[]);
        let mut timeline = Timeline::default();
        timeline.stand(0, &key("db"), 0, well());
        timeline.stand(0, &key("app"), 1, well());
        timeline.stand(0, &key("off"), 0, Standing { availability: None, usable: false, reason: Reason::Disabled, ..well() });
        timeline.begin();
        timeline.stand(1_000, &key("db"), 0, stands(Availability::TemporarilyUnavailable, Reason::Exited, &[]));
        timeline.stand(1_000, &key("app"), 1, stands(Availability::PartiallyAvailable, Reason::DependencyUnavailable, &["db"]));
        timeline.add(9_000, &key("db"), Happened::Started { slot: 1, again: false });
        timeline.stand(9_000, &key("db"), 0, well());
        timeline.stand(9_000, &key("app"), 1, well());
        timeline.add(11_000, &key("app"), Happened::Reloads { verb: "restart".to_owned(), because: vec!["n/db returned".to_owned()] });
        timeline.add(11_000, &key("app"), Happened::Started { slot: 1, again: true });
        timeline.add(11_000, &key("app"), Happened::Told { reason: Reason::Started, is_warning: false, message: String::new() });
        timeline
    }

    #[test]
    fn claims_are_judged() {
        use Availability::{Available, PartiallyAvailable, TemporarilyUnavailable};
        let of = |name: &str, quality| Claim::Of(key(name), quality);
        let table = [
            (of("db", Quality::Availability(Available)), 999, ""),
            (of("db", Quality::Availability(TemporarilyUnavailable)), 5_000, ""),
            (of("db", Quality::Availability(Available)), 5_000, "availability 1 Available | 4 TemporarilyUnavailable Exited"),
            (of("db", Quality::Usable(true)), 8_999, "usable true | 4 TemporarilyUnavailable Exited"),
            (of("app", Quality::Usable(true)), 5_000, ""),
            (of("app", Quality::Availability(PartiallyAvailable)), 5_000, ""),
            (of("app", Quality::Because(vec![key("db")])), 5_000, ""),
            (of("app", Quality::Because(vec![key("db")])), 9_000, "because of n/db | 1 Available Healthy"),
            (
                of("app", Quality::Reason(Reason::Healthy)),
                5_000,
                "reason Healthy | 3 PartiallyAvailable DependencyUnavailable, because of n/db",
            ),
            (of("app", Quality::Reloads(1)), 20_000, ""),
            (of("app", Quality::Reloads(1)), 10_999, "reloads 1 | 0"),
            (of("app", Quality::Restarts(0)), 20_000, "restarts 0 | 1"),
            (of("app", Quality::Events(vec![Reason::Started])), 20_000, ""),
            (of("db", Quality::Events(vec![Reason::Started])), 20_000, "events Started | no events"),
            (of("new", Quality::Usable(false)), 20_000, "usable false | nothing: it is not there yet"),
            (Claim::All(Together::Usable), 0, ""),
            (Claim::All(Together::Usable), 5_000, "all usable | n/db is 4 TemporarilyUnavailable Exited"),
            (
                Claim::All(Together::Available),
                5_000,
                "all available | n/db is 4 TemporarilyUnavailable Exited; n/app is 3 PartiallyAvailable DependencyUnavailable, because of n/db",
            ),
            (Claim::Restarts(1), 20_000, ""),
            (Claim::Restarts(0), 20_000, "restarts 0 | 1, of n/app"),
            (Claim::Reloads(1), 20_000, ""),
            (Claim::Order(vec![key("db"), key("app")]), 20_000, ""),
            (Claim::Order(vec![key("app"), key("db")]), 20_000, "order n/app, n/db | n/db at 9.0s, n/app at 11.0s"),
            (Claim::Order(vec![key("db"), key("app")]), 10_000, "order n/db, n/app | n/db at 9.0s, n/app not at all"),
            (Claim::Events(vec![Reason::Started, Reason::CrashLoop]), 20_000, "events CrashLoop | Started"),
        ];
        let timeline = story();
        for (claim, at_ms, wanted) in table {
            let found = judge(&claim, &timeline, at_ms).err().map(|unmet| format!("{} | {}", unmet.expected, unmet.found));
            assert_eq!(found.unwrap_or_default(), wanted, "{claim:?} at {at_ms}");
        }
    }
}
