//! A plan as Markdown, for the comment of a pull request: a row an object, what needs approval, and every step folded away. Made from the
//! plan's own JSON, which holds no values of the environment.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::output::{self, cell};

/// The steps of one object.
#[derive(Debug, Default)]
struct Row {
    causes: Vec<String>,
    waits: Vec<String>,
    verbs: BTreeMap<u64, BTreeSet<String>>,
}

/// The Markdown of a plan; `text` is its text form.
pub(crate) fn markdown(plan: &Value, text: &str) -> String {
    let mut out = format!("**{}**\n", cell(&plan["summary"]));
    let (order, rows) = rows(plan);
    if !order.is_empty() {
        out.push_str("\n| | What changes | What happens | What it waits for |\n|---|---|---|---|\n");
        for name in &order {
            let row = &rows[name];
            let list = |parts: &[String]| parts.iter().map(|p| escaped(p)).collect::<Vec<_>>().join("<br>");
            out.push_str(&format!("| {} | {} | {} | {} |\n", escaped(name), list(&row.causes), escaped(&row.effect()), list(&row.waits)));
        }
    }
    let approvals: Vec<String> = steps(plan).filter(|s| s["needsApproval"] == true).map(approval).collect();
    section(&mut out, "Needs approval", &approvals);
    let notes: Vec<String> = plan["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|f| format!("- {}: {} ({})", escaped(&subject(&f["object"])), escaped(&cell(&f["message"])), cell(&f["reason"])))
        .collect();
    section(&mut out, "Notes", &notes);
    if !order.is_empty() {
        // A fence longer than any in the text: a message may hold one.
        let fence = "`".repeat(longest_run(text).max(2) + 1);
        out.push_str(&format!("\n<details><summary>Every step</summary>\n\n{fence}text\n{}\n{fence}\n\n</details>\n", text.trim_end()));
    }
    out
}

fn steps(plan: &Value) -> impl Iterator<Item = &Value> {
    plan["steps"].as_array().into_iter().flatten()
}

fn rows(plan: &Value) -> (Vec<String>, BTreeMap<String, Row>) {
    let (mut order, mut rows) = (Vec::new(), BTreeMap::<String, Row>::new());
    for step in steps(plan) {
        let name = subject(&step["object"]);
        if !rows.contains_key(&name) {
            order.push(name.clone());
        }
        let row = rows.entry(name).or_default();
        let cause = cell(&step["causeText"]);
        // That an old container goes follows from what its successor is for.
        if cause != "superseded" && !row.causes.contains(&cause) {
            row.causes.push(cause);
        }
        for wait in step["waits"].as_array().into_iter().flatten().map(cell) {
            if !row.waits.contains(&wait) {
                row.waits.push(wait);
            }
        }
        row.verbs.entry(step["slot"].as_u64().unwrap_or(0)).or_default().insert(cell(&step["verb"]));
    }
    (order, rows)
}

impl Row {
    /// What becomes of its containers, in words.
    fn effect(&self) -> String {
        let has = |verbs: &BTreeSet<String>, any: &[&str]| any.iter().any(|verb| verbs.contains(*verb));
        let count = |is: &dyn Fn(&BTreeSet<String>) -> bool| self.verbs.iter().filter(|(slot, verbs)| **slot > 0 && is(verbs)).count();
        let created = |v: &BTreeSet<String>| has(v, &["create"]);
        let removed = |v: &BTreeSet<String>| has(v, &["remove"]);
        let restarted = |v: &BTreeSet<String>| !created(v) && !removed(v) && has(v, &["start", "restart", "unpause"]);
        let in_place = |v: &BTreeSet<String>| !created(v) && !removed(v) && !restarted(v);
        let mut parts = Vec::new();
        let mut tell = |count: usize, word: &str| {
            if count > 0 {
                parts.push(format!("{} {word}", output::count(count, "container")));
            }
        };
        tell(count(&|v| created(v) && removed(v)), "replaced");
        tell(count(&|v| created(v) && !removed(v)), "created");
        tell(count(&|v| !created(v) && removed(v)), "removed");
        tell(count(&restarted), "started");
        tell(count(&in_place), "changed in place, without a restart");
        parts.extend(self.verbs.get(&0).into_iter().flatten().filter(|v| *v != "stop" && *v != "remove").cloned());
        parts.join(", ")
    }
}

fn subject(object: &Value) -> String {
    match object {
        Value::String(text) => text.clone(),
        object => format!("{} {}/{}", cell(&object["kind"]), cell(&object["namespace"]), cell(&object["name"])),
    }
}

fn approval(step: &Value) -> String {
    let hash = cell(&step["hash"]);
    let hash = hash.get(..12).unwrap_or(&hash);
    format!(
        "- {} {}: {} — `quaymaster approve {hash}`",
        cell(&step["verb"]),
        escaped(&subject(&step["object"])),
        escaped(&cell(&step["causeText"]))
    )
}

fn section(out: &mut String, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        out.push_str(&format!("\n**{title}**\n\n{}\n", lines.join("\n")));
    }
}

/// Text that means itself in a table cell.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in output::clean(text).chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '\\' => out.extend(['\\', c]),
            '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(verb: &str, name: &str, slot: u64, cause: &str, waits: &[&str]) -> Value {
        json!({
            "hash": "0123456789abcdef", "verb": verb, "object": {"kind": "MiniService", "namespace": "shop", "name": name}, "slot": slot,
            "causeText": cause, "waits": waits, "needsApproval": cause == "orphan",
        })
    }

    #[test]
    fn a_plan_as_a_comment() {
        let plan = json!({
            "summary": "Plan: 1 to create, 2 to replace, 1 to remove.",
            "steps": [
                step("create", "app", 1, "revision 1 -> 2: env, image", &[]),
                step("stop", "app", 1, "superseded", &["shop/db usable"]),
                step("start", "app", 1, "revision 1 -> 2: env, image", &["shop/db usable"]),
                step("remove", "app", 1, "superseded", &[]),
                step("create", "app", 2, "revision 1 -> 2: env, image", &[]),
                step("remove", "app", 2, "superseded", &[]),
                step("update", "db", 1, "memory: 64 -> 128 | limit", &[]),
                step("create-volume", "new", 0, "new", &[]),
                step("create", "new", 1, "new", &[]),
                step("start", "new", 1, "new", &[]),
                step("remove", "old", 1, "orphan", &[]),
            ],
            "findings": [{"object": {"kind": "MiniService", "namespace": "shop", "name": "db"}, "reason": "ImageOutdated", "message": "moved"}],
        });
        insta::assert_snapshot!(markdown(&plan, "create ```\n"));
    }

    #[test]
    fn nothing_to_do_is_one_line() {
        assert_eq!(
            markdown(&json!({"summary": "Nothing to do.", "steps": [], "findings": []}), "Nothing to do.\n"),
            "**Nothing to do.**\n"
        );
    }
}
