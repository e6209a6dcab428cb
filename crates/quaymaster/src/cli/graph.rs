//! `graph`: the dependency graph as text, dot, mermaid or JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::target::namespace_name;
use super::{Connect, Done, End};
use crate::output::{self, Style, Tone, cell};

/// Show the dependency graph with levels and availability
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster graph -n notify
  quaymaster graph --format dot | dot -Tsvg
  quaymaster graph --format mermaid > graph.mmd")]
pub(crate) struct GraphArgs {
    /// Only this namespace, with the nodes beside it that it touches
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// The form of the output
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

/// The form of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Levels with their nodes and edges.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
    /// As the operator gives it.
    Json,
}

pub(crate) async fn graph(args: &GraphArgs) -> Done {
    let mut graph = args.connect.client().get("/quaymaster/v1/graph").await?;
    if let Some(namespace) = &args.namespace {
        graph = within(&graph, namespace);
    }
    output::print(&render(&graph, args.format, Style::of_stdout()))?;
    Ok(End::Fine)
}

/// `Kind/ns/name`, the form in which edges name their ends.
fn id(node: &Value) -> String {
    format!("{}/{}/{}", cell(&node["kind"]), cell(&node["namespace"]), cell(&node["name"]))
}

fn list<'a>(graph: &'a Value, key: &str) -> &'a [Value] {
    graph[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The part of the graph that a namespace is in or touches.
pub(crate) fn within(graph: &Value, namespace: &str) -> Value {
    let own: BTreeSet<String> = list(graph, "nodes").iter().filter(|node| node["namespace"] == namespace).map(id).collect();
    let touches = |edge: &Value| own.contains(&cell(&edge["from"])) || own.contains(&cell(&edge["to"]));
    let edges: Vec<&Value> = list(graph, "edges").iter().filter(|edge| touches(edge)).collect();
    let mut kept = own.clone();
    kept.extend(edges.iter().flat_map(|edge| [cell(&edge["from"]), cell(&edge["to"])]));
    let nodes: Vec<&Value> = list(graph, "nodes").iter().filter(|node| kept.contains(&id(node))).collect();
    json!({"nodes": nodes, "edges": edges})
}

/// The graph in one of its forms.
pub(crate) fn render(graph: &Value, format: Format, style: Style) -> String {
    match format {
        Format::Text => text(graph, style),
        Format::Dot => dot(graph),
        Format::Mermaid => mermaid(graph),
        Format::Json => output::json(graph),
    }
}

/// `ns/name` for services, `Kind ns/name` for all else.
fn short(id: &str) -> String {
    let mut parts = id.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("MiniService"), Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (Some(kind), Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        _ => id.to_owned(),
    }
}

fn state(node: &Value) -> &str {
    node["availability"].as_str().unwrap_or("disabled")
}

/// What an edge does in one word.
fn label(edge: &Value) -> String {
    if edge["owns"] == true { "owns".to_owned() } else { cell(&edge["onDown"]) }
}

/// What an edge does, the defaults of reloads left out: `Block, start Wait, onUp Restart`.
fn words(edge: &Value) -> String {
    if edge["owns"] == true {
        return "owns".to_owned();
    }
    let mut words = cell(&edge["onDown"]);
    let start = cell(&edge["start"]);
    if !start.is_empty() {
        let _ = write!(words, ", start {start}");
    }
    for key in ["onUp", "onChange"] {
        let verb = cell(&edge[key]);
        if !verb.is_empty() && verb != "Ignore" {
            let _ = write!(words, ", {key} {verb}");
        }
    }
    words
}

fn text(graph: &Value, style: Style) -> String {
    let mut levels: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for node in list(graph, "nodes") {
        levels.entry(node["level"].as_u64().unwrap_or(0)).or_default().push(node);
    }
    if levels.is_empty() {
        return "The graph is empty.\n".to_owned();
    }
    let states: BTreeMap<String, &str> = list(graph, "nodes").iter().map(|node| (id(node), state(node))).collect();
    let width = states.keys().map(|id| short(id).len()).max().unwrap_or(0);
    let mut out = String::new();
    for (level, mut nodes) in levels {
        nodes.sort_by_key(|node| id(node));
        let _ = writeln!(out, "{}", style.paint(Tone::Strong, &format!("level {level}")));
        for node in nodes {
            let id = id(node);
            let reason = if node["usable"] == true { String::new() } else { format!("  {}", cell(&node["reason"])) };
            let line = format!("  {:<width$}  {}{reason}", short(&id), style.availability(state(node)));
            let _ = writeln!(out, "{}", line.trim_end());
            for edge in list(graph, "edges").iter().filter(|edge| edge["from"] == id.as_str()) {
                let to = cell(&edge["to"]);
                let unknown = if states.contains_key(&to) { "" } else { " (not declared)" };
                let _ = writeln!(out, "    -> {}{unknown}  {}", short(&to), style.paint(Tone::Dim, &words(edge)));
            }
        }
    }
    out
}

/// Fill by availability: green, yellow, red, grey.
fn fill(node: &Value) -> &'static str {
    match state(node) {
        "Available" | "AlmostAvailable" => "#d3f9d8",
        "PartiallyAvailable" => "#fff3bf",
        "disabled" => "#e9ecef",
        _ => "#ffc9c9",
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn dot(graph: &Value) -> String {
    let mut out =
        String::from("digraph quaymaster {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n");
    for node in list(graph, "nodes") {
        let id = id(node);
        let label = format!("{}\n{}", short(&id), state(node)).replace('\n', "\\n");
        let _ = writeln!(out, "  {} [label=\"{}\", fillcolor=\"{}\"];", quoted(&id), label.replace('"', "\\\""), fill(node));
    }
    for edge in list(graph, "edges") {
        let style = if edge["counted"] == false { ", style=dashed" } else { "" };
        let _ =
            writeln!(out, "  {} -> {} [label={}{style}];", quoted(&cell(&edge["from"])), quoted(&cell(&edge["to"])), quoted(&label(edge)));
    }
    out.push_str("}\n");
    out
}

fn mermaid(graph: &Value) -> String {
    let mut out = String::from("graph LR\n");
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for node in list(graph, "nodes") {
        let id = id(node);
        let name = format!("n{}", names.len());
        let _ = writeln!(out, "  {name}[\"{}<br/>{}\"]", short(&id).replace('"', "#quot;"), state(node));
        let _ = writeln!(out, "  style {name} fill:{}", fill(node));
        names.insert(id, name);
    }
    for edge in list(graph, "edges") {
        let (Some(from), Some(to)) = (names.get(&cell(&edge["from"])), names.get(&cell(&edge["to"]))) else { continue };
        let line = if edge["counted"] == false { "-.->" } else { "-->" };
        let _ = writeln!(out, "  {from} {line}|{}| {to}", label(edge));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        let node = |namespace: &str, name: &str, level: u64, availability: Value, usable: bool, reason: &str| json!({"kind": "MiniService", "namespace": namespace, "name": name, "level": level, "availability": availability, "severity": 1, "usable": usable, "reason": reason});
        let edge = |from: &str, to: &str, on_down: &str, on_up: &str, counted: bool| {
            let start = if counted { "Wait" } else { "Skip" };
            json!({"from": format!("MiniService/{from}"), "to": format!("MiniService/{to}"), "start": start, "onDown": on_down, "onUp": on_up, "onChange": "Ignore", "counted": counted})
        };
        json!({
            "nodes": [
                node("notify", "postgres", 0, json!("TemporarilyUnavailable"), false, "Unhealthy"),
                node("notify", "redis", 0, json!("Available"), true, "Healthy"),
                node("shared", "vault", 0, json!("PartiallyAvailable"), true, "SomeReplicasHealthy"),
                node("shared", "other", 0, json!("Available"), true, "Healthy"),
                node("notify", "app", 1, json!("TemporarilyUnavailable"), false, "DependencyUnavailable"),
                node("notify", "beta", 0, Value::Null, false, "Disabled"),
            ],
            "edges": [
                edge("notify/app", "notify/postgres", "Block", "Restart", true),
                edge("notify/app", "notify/redis", "Ignore", "Ignore", false),
                edge("notify/app", "shared/vault", "Degrade", "Ignore", true),
            ],
        })
    }

    #[test]
    fn all_forms() {
        insta::assert_snapshot!("graph_text", render(&sample(), Format::Text, Style::PLAIN));
        insta::assert_snapshot!("graph_dot", render(&sample(), Format::Dot, Style::PLAIN));
        insta::assert_snapshot!("graph_mermaid", render(&sample(), Format::Mermaid, Style::PLAIN));
        assert_eq!(serde_json::from_str::<Value>(&render(&sample(), Format::Json, Style::PLAIN)).unwrap(), sample());
        assert_eq!(render(&json!({}), Format::Text, Style::PLAIN), "The graph is empty.\n");
    }

    #[test]
    fn a_namespace_keeps_what_it_touches() {
        let part = within(&sample(), "notify");
        let ids: Vec<String> = list(&part, "nodes").iter().map(|node| short(&id(node))).collect();
        assert_eq!(ids, ["notify/postgres", "notify/redis", "shared/vault", "notify/app", "notify/beta"]);
        assert_eq!(list(&part, "edges").len(), 3);
        assert_eq!(within(&sample(), "none"), json!({"nodes": [], "edges": []}));
    }
}
