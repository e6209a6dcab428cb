//! `get`: objects as the server's table, or whole.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::target::{KindArg, Selection, Target, list_path, namespace_name, namespace_or_default, object_path, selection, with_query};
use super::{CliError, Connect, Done, End};
use crate::client::{Client, ClientError, Event, EventKind, Form};
use crate::output;

/// List objects: msvc (miniservices), qnet (networks), intents, events
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster get msvc -A
  quaymaster get msvc/app qnet/data -n notify -o yaml
  quaymaster get msvc -n notify -l tier=web -w")]
pub(crate) struct GetArgs {
    /// KIND, KIND NAME.., or KIND/NAME..; several kinds as KIND,KIND; `all` for all that manifests declare
    #[arg(required = true, value_name = "KIND[/NAME]")]
    what: Vec<String>,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only objects with these labels, e.g. tier=web,stage!=dev
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// The form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Output::Table)]
    output: Output,
    /// Go on and print changes as they happen
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    connect: Connect,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The server's table.
    Table,
    /// The table with all columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// kind/name, one a line.
    Name,
}

impl Output {
    const fn form(self) -> Form {
        match self {
            Self::Table | Self::Wide => Form::Table,
            Self::Json | Self::Yaml | Self::Name => Form::Json,
        }
    }
}

/// One request of a `get`.
struct Query {
    kind: KindArg,
    path: String,
    is_list: bool,
}

pub(crate) async fn get(args: &GetArgs) -> Done {
    let client = args.connect.client();
    let queries = queries(args)?;
    if args.watch {
        return match queries.as_slice() {
            [query] => watch(args, &client, query).await,
            _ => Err(CliError::Usage("only one kind, or one object, can be watched at a time".to_owned())),
        };
    }
    let mut answers = Vec::new();
    let mut missing = Vec::new();
    for query in &queries {
        match client.get_as(&query.path, args.output.form()).await {
            Ok(answer) => answers.push((query, answer)),
            Err(error) if error.is_not_found() && !query.is_list => missing.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    output::print(&render(args, &answers))?;
    if answers.iter().all(|(_, answer)| rows_of(answer) == 0) && missing.is_empty() && args.output.form() == Form::Table {
        output::note(&nothing_found(args));
    }
    if missing.is_empty() {
        return Ok(End::Fine);
    }
    missing.iter().for_each(|message| output::note(&format!("error: {message}")));
    Ok(End::Differs)
}

fn queries(args: &GetArgs) -> Result<Vec<Query>, CliError> {
    let selector = args.selector.as_deref().unwrap_or_default();
    match selection(&args.what)? {
        Selection::Kinds(kinds) => {
            let namespace = if args.all_namespaces { None } else { Some(namespace_or_default(args.namespace.as_deref())) };
            let query = |kind| Query { kind, path: with_query(&list_path(kind, namespace), &[("labelSelector", selector)]), is_list: true };
            Ok(kinds.into_iter().map(query).collect())
        }
        Selection::Objects(_) if args.all_namespaces => {
            Err(CliError::Usage("a name needs a namespace: give -n NS in place of -A".to_owned()))
        }
        Selection::Objects(_) if args.selector.is_some() => Err(CliError::Usage("give names or a label selector, not both".to_owned())),
        Selection::Objects(targets) => {
            let namespace = namespace_or_default(args.namespace.as_deref());
            let query = |target: Target| Query { kind: target.kind, path: object_path(&target, namespace), is_list: false };
            Ok(targets.into_iter().map(query).collect())
        }
    }
}

fn nothing_found(args: &GetArgs) -> String {
    if args.all_namespaces {
        return format!("no {} in any namespace", args.what.join(" "));
    }
    let namespace = namespace_or_default(args.namespace.as_deref());
    format!("no {} in namespace {namespace} (-A looks into all namespaces)", args.what.join(" "))
}

fn rows_of(answer: &Value) -> usize {
    answer.get("rows").or_else(|| answer.get("items")).and_then(Value::as_array).map_or(1, Vec::len)
}

fn render(args: &GetArgs, answers: &[(&Query, Value)]) -> String {
    match args.output {
        Output::Table | Output::Wide => render_tables(args, answers),
        Output::Name => answers.iter().map(|(query, answer)| render_names(query.kind, answer)).collect(),
        Output::Json => whole(answers).map_or_else(String::new, |value| output::json(&value)),
        Output::Yaml => whole(answers).map_or_else(String::new, |value| output::yaml(&value)),
    }
}

/// One answer as it is; several as one list.
fn whole(answers: &[(&Query, Value)]) -> Option<Value> {
    match answers {
        [] => None,
        [(_, answer)] => Some(answer.clone()),
        several => {
            let items = several.iter().flat_map(|(_, answer)| match answer.get("items").and_then(Value::as_array) {
                Some(items) => items.clone(),
                None => vec![answer.clone()],
            });
            Some(json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items.collect::<Vec<_>>()}))
        }
    }
}

fn render_names(kind: KindArg, answer: &Value) -> String {
    let items = answer.get("items").and_then(Value::as_array).map_or_else(|| std::slice::from_ref(answer), Vec::as_slice);
    items.iter().map(|item| format!("{}/{}\n", kind.0.singular, output::cell(&item["metadata"]["name"]))).collect()
}

/// Objects of one kind that are asked for by name share a table.
fn render_tables(args: &GetArgs, answers: &[(&Query, Value)]) -> String {
    let mut tables: Vec<(KindArg, Value)> = Vec::new();
    for (query, answer) in answers {
        match tables.last_mut() {
            Some((kind, table)) if *kind == query.kind => {
                if let (Some(rows), Some(more)) = (table["rows"].as_array_mut(), answer["rows"].as_array()) {
                    rows.extend(more.iter().cloned());
                }
            }
            _ => tables.push((query.kind, answer.clone())),
        }
    }
    let has_prefix = tables.len() > 1;
    let drawn: Vec<String> = tables
        .iter()
        .map(|(kind, table)| {
            let view = View {
                is_wide: args.output == Output::Wide,
                has_namespace: args.all_namespaces,
                prefix: has_prefix.then_some(kind.0.singular),
            };
            render_table(table, &view)
        })
        .filter(|text| !text.is_empty())
        .collect();
    drawn.join("\n")
}

/// How a server's table is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    pub(crate) is_wide: bool,
    pub(crate) has_namespace: bool,
    pub(crate) prefix: Option<&'static str>,
}

/// The columns of a server's table that are shown, and its rows.
fn cells(table: &Value, shown: &[usize], view: &View) -> Vec<Vec<String>> {
    let row = |row: &Value| {
        let mut cells: Vec<String> = shown.iter().map(|at| output::cell(&row["cells"][*at])).collect();
        if let (Some(prefix), Some(first)) = (view.prefix, cells.first_mut()) {
            *first = format!("{prefix}/{first}");
        }
        if view.has_namespace {
            cells.insert(0, output::cell(&row["object"]["metadata"]["namespace"]));
        }
        cells
    };
    table["rows"].as_array().into_iter().flatten().map(row).collect()
}

fn columns(table: &Value, view: &View) -> (Vec<usize>, Vec<String>) {
    let definitions = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_shown = |column: &Value| view.is_wide || column["priority"].as_i64().unwrap_or(0) == 0;
    let shown: Vec<usize> = (0..definitions.len()).filter(|at| is_shown(&definitions[*at])).collect();
    let mut headings: Vec<String> = shown.iter().map(|at| output::cell(&definitions[*at]["name"]).to_uppercase()).collect();
    if view.has_namespace {
        headings.insert(0, "NAMESPACE".to_owned());
    }
    (shown, headings)
}

/// A server's table as text; empty when it has no rows.
pub(crate) fn render_table(table: &Value, view: &View) -> String {
    let (shown, headings) = columns(table, view);
    let rows = cells(table, &shown, view);
    if rows.is_empty() { String::new() } else { output::table(Some(&headings), &rows, &[]) }
}

async fn watch(args: &GetArgs, client: &Client, query: &Query) -> Done {
    let answer = client.get_as(&query.path, args.output.form()).await?;
    let mut drawn = Drawn::begin(args, &answer);
    output::print(&drawn.first(args, query, &answer))?;
    let path = watch_path(args, query, &answer)?;
    let mut changes = client.watch(&path, args.output.form()).await?;
    loop {
        match changes.next().await {
            Ok(Some(event)) => output::print(&drawn.event(args, query, &event))?,
            // The server ended it, as kubectl does: so do we.
            Ok(None) => return Ok(End::Fine),
            Err(error) if error.is_expired() => {
                return Err(CliError::failed("the watch fell too far behind and was ended by the operator; start it again"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn watch_path(args: &GetArgs, query: &Query, answer: &Value) -> Result<String, CliError> {
    let version = answer["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let selector = args.selector.as_deref().unwrap_or_default();
    let (path, field) = if query.is_list {
        (query.path.split('?').next().unwrap_or_default(), String::new())
    } else {
        let (list, name) = query.path.rsplit_once('/').ok_or_else(|| ClientError::BadAnswer("a path without a name".to_owned()))?;
        (list, format!("metadata.name={name}"))
    };
    let pairs = [("labelSelector", selector), ("fieldSelector", &field), ("resourceVersion", version), ("watch", "true")];
    Ok(with_query(path, &pairs))
}

/// What a watch has drawn so far: later rows go under the same columns.
struct Drawn {
    view: View,
    shown: Vec<usize>,
    headings: Vec<String>,
    widths: Vec<u16>,
}

impl Drawn {
    fn begin(args: &GetArgs, answer: &Value) -> Self {
        let view = View { is_wide: args.output == Output::Wide, has_namespace: args.all_namespaces, prefix: None };
        let (shown, headings) = columns(answer, &view);
        let widths = output::widths(&headings, &cells(answer, &shown, &view));
        Self { view, shown, headings, widths }
    }

    fn first(&self, args: &GetArgs, query: &Query, answer: &Value) -> String {
        match args.output {
            Output::Table | Output::Wide => output::table(Some(&self.headings), &cells(answer, &self.shown, &self.view), &[]),
            Output::Name => render_names(query.kind, answer),
            Output::Json => output::json(answer),
            Output::Yaml => output::yaml(answer),
        }
    }

    fn event(&mut self, args: &GetArgs, query: &Query, event: &Event) -> String {
        if event.kind == EventKind::Bookmark {
            return String::new();
        }
        match args.output {
            Output::Table | Output::Wide => {
                let rows = cells(&event.object, &self.shown, &self.view);
                self.widths = output::widths(&self.headings, &rows).iter().zip(&self.widths).map(|(a, b)| *a.max(b)).collect();
                if rows.is_empty() { String::new() } else { output::table(None, &rows, &self.widths) }
            }
            Output::Name => render_names(query.kind, &event.object),
            Output::Json => output::json(&event.object),
            Output::Yaml => format!("---\n{}", output::yaml(&event.object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Value {
        let column = |name: &str, priority: i64| json!({"name": name, "type": "string", "priority": priority});
        let row =
            |namespace: &str, cells: Value| json!({"cells": cells, "object": {"metadata": {"namespace": namespace, "name": cells[0]}}});
        json!({
            "kind": "Table",
            "columnDefinitions": [column("Name", 0), column("Level", 0), column("Usable", 0), column("Age", 0), column("Message", 1)],
            "rows": [
                row("notify", json!(["app", 2, true, "5m", null])),
                row("shop", json!(["a-rather-long-name", 0, false, "10s", "waits\nfor \u{1b}[31mred"])),
            ],
        })
    }

    #[test]
    fn tables() {
        insta::assert_snapshot!("get_table", render_table(&table(), &View::default()));
        insta::assert_snapshot!(
            "get_table_wide_all",
            render_table(&table(), &View { is_wide: true, has_namespace: true, prefix: Some("miniservice") })
        );
        assert_eq!(render_table(&json!({"columnDefinitions": [], "rows": []}), &View::default()), "");
        assert_eq!(render_table(&json!("odd"), &View::default()), "");
    }
}
