//! `events` and `logs`: what happened to objects, and what containers say.

use clap::Args;
use qm_api::time::Timestamp;
use serde_json::{Value, json};

use super::target::{Target, namespace_name, namespace_or_default, object_path, service, target, with_query};
use super::{Connect, Done, End};
use crate::client::{EventKind, Form};
use crate::output::{self, cell};

/// List what happened, oldest first
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster events -n notify
  quaymaster events --for msvc/app -n notify -w")]
pub(crate) struct EventsArgs {
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only of this object
    #[arg(long = "for", value_name = "KIND/NAME", value_parser = target)]
    object: Option<Target>,
    /// Go on and print events as they happen
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Whose events.
pub(crate) struct EventsOf<'a> {
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
}

/// The field selector for the events of one object.
pub(crate) fn involved(of: &EventsOf<'_>) -> String {
    format!("involvedObject.kind={},involvedObject.name={}", of.kind, of.name)
}

const HEADINGS: [&str; 5] = ["AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"];

pub(crate) async fn events(args: &EventsArgs) -> Done {
    let client = args.connect.client();
    let path = match args.all_namespaces {
        true => "/api/v1/events".to_owned(),
        false => format!("/api/v1/namespaces/{}/events", namespace_or_default(args.namespace.as_deref())),
    };
    let filter = args.object.as_ref().map(|of| involved(&EventsOf { kind: of.kind.0.kind, name: &of.name })).unwrap_or_default();
    let answer = client.get(&with_query(&path, &[("fieldSelector", &filter)])).await?;
    let headings = HEADINGS.map(str::to_owned);
    let rows = event_rows(&answer, output::now(), true);
    if rows.is_empty() && !args.watch {
        output::note("no events");
        return Ok(End::Fine);
    }
    output::print(&output::table(Some(&headings), &rows, &[]))?;
    if !args.watch {
        return Ok(End::Fine);
    }
    let mut widths = output::widths(&headings, &rows);
    let version = answer["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let pairs = [("fieldSelector", filter.as_str()), ("resourceVersion", version), ("watch", "true")];
    let mut changes = client.watch(&with_query(&path, &pairs), Form::Json).await?;
    while let Some(event) = changes.next().await? {
        if !matches!(event.kind, EventKind::Added | EventKind::Modified) {
            continue;
        }
        let rows = event_rows(&json!({"items": [event.object]}), output::now(), true);
        widths = output::widths(&headings, &rows).iter().zip(&widths).map(|(a, b)| *a.max(b)).collect();
        output::print(&output::table(None, &rows, &widths))?;
    }
    Ok(End::Fine)
}

/// The rows of a list of events, oldest first.
pub(crate) fn event_rows(list: &Value, now: Timestamp, with_object: bool) -> Vec<Vec<String>> {
    let mut events: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    // Instants are whole seconds; within one, versions tell what came first.
    let version = |event: &Value| event["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
    events.sort_by_key(|event| (last_seen(event).and_then(|at| Timestamp::parse(at).ok()), version(event)));
    events.into_iter().map(|event| row(event, now, with_object)).collect()
}

pub(crate) fn last_seen(event: &Value) -> Option<&str> {
    ["lastTimestamp", "eventTime", "firstTimestamp"].iter().find_map(|key| event[*key].as_str())
}

fn row(event: &Value, now: Timestamp, with_object: bool) -> Vec<String> {
    let mut seen = output::age(&last_seen(event).map_or(Value::Null, Value::from), now);
    if let Some(times @ 2..) = event["count"].as_u64() {
        let first = output::age(&event["firstTimestamp"], now);
        seen = if first.is_empty() { format!("{seen} (x{times})") } else { format!("{seen} (x{times} in {first})") };
    }
    let mut cells = vec![seen, cell(&event["type"]), cell(&event["reason"])];
    if with_object {
        let of = &event["involvedObject"];
        cells.push(format!("{}/{}/{}", cell(&of["kind"]).to_lowercase(), cell(&of["namespace"]), cell(&of["name"])));
    }
    cells.push(cell(&event["message"]));
    cells
}

/// Print what the containers of a service say
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster logs app -n notify --tail 50
  quaymaster logs msvc/app -n notify -f --timestamps
  quaymaster logs app -n notify --slot 2")]
pub(crate) struct LogsArgs {
    /// The service, NAME or msvc/NAME
    #[arg(value_name = "SERVICE", value_parser = service)]
    service: Target,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// Go on and print lines as they come
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Only of this slot (replica), from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    slot: Option<u32>,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn logs(args: &LogsArgs) -> Done {
    let path = format!("{}/log", object_path(&args.service, namespace_or_default(args.namespace.as_deref())));
    let flag = |on: bool| if on { "true" } else { "" };
    let (tail, slot) = (args.tail.map(|n| n.to_string()).unwrap_or_default(), args.slot.map(|n| n.to_string()).unwrap_or_default());
    let pairs = [("follow", flag(args.follow)), ("tailLines", &tail), ("slot", &slot), ("timestamps", flag(args.timestamps))];
    let mut pieces = args.connect.client().bytes(&with_query(&path, &pairs)).await?;
    while let Some(piece) = pieces.next().await? {
        output::print_bytes(&piece)?;
    }
    Ok(End::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sorted_and_counted() {
        let event = |reason: &str, at: &str, count: u64| {
            json!({"type": "Normal", "reason": reason, "message": "m", "count": count, "firstTimestamp": "2026-11-22T09:00:00Z", "lastTimestamp": at,
                   "involvedObject": {"kind": "MiniService", "namespace": "n", "name": "app"}})
        };
        let list = json!({"items": [event("Started", "2026-11-22T09:59:00Z", 4), event("Created", "2026-11-22T09:30:00.5Z", 1), {"reason": "Odd"}]});
        let rows = event_rows(&list, Timestamp::parse("2026-11-22T10:00:00Z").unwrap(), true);
        insta::assert_snapshot!("events", output::table(Some(&HEADINGS.map(str::to_owned)), &rows, &[]));
    }
}
