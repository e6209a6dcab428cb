//! Owns tables: the columns of the registry filled with cells, as kubectl prints them. Pure; the time is an argument.
//!
//! Load-bearing for kubectl: the first column has format `name`, every row's object has kind and apiVersion, and ages are texts.

use qm_api::meta::Object;
use qm_api::registry::{Column, ColumnType, Kind};
use qm_api::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::accept::MetaVersion;
use crate::status::Failure;
use crate::wire::{EVENT, Metadata, Partial, Whole};

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    #[default]
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Failure> {
        match text {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::Nothing),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Failure::bad_request(format!("includeObject: `{other}` is none of None, Metadata, Object"))),
        }
    }
}

/// How tables of one request look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) kind: &'static Kind,
    pub(crate) version: MetaVersion,
    pub(crate) include: Include,
}

/// Writes a table.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table<'a, M> {
    kind: &'static str,
    api_version: &'static str,
    metadata: M,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    column_definitions: Vec<Definition>,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Definition {
    name: &'static str,
    r#type: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
}

#[derive(Serialize)]
struct Row<'a> {
    cells: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<RowObject<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RowObject<'a> {
    Metadata(Partial<'a>),
    Object(Whole<'a>),
}

impl Style {
    /// A table with its columns.
    pub(crate) fn table<'a, M>(&self, metadata: M, objects: impl IntoIterator<Item = &'a Object>, now: Timestamp) -> Table<'a, M> {
        Table { column_definitions: definitions(self.kind), ..self.frame(metadata, objects, now) }
    }

    /// A table without its columns: a later one of a stream.
    pub(crate) fn frame<'a, M>(&self, metadata: M, objects: impl IntoIterator<Item = &'a Object>, now: Timestamp) -> Table<'a, M> {
        Table {
            kind: "Table",
            api_version: self.version.api_version(),
            metadata,
            column_definitions: Vec::new(),
            rows: objects.into_iter().map(|object| self.row(object, now)).collect(),
        }
    }

    fn row<'a>(&self, object: &'a Object, now: Timestamp) -> Row<'a> {
        let name = Value::from(object.key.name.as_str());
        let cells = std::iter::once(name).chain(self.kind.columns.iter().map(|column| cell(object, column, now))).collect();
        let object = match self.include {
            Include::Nothing => None,
            Include::Metadata => Some(RowObject::Metadata(Partial(object, self.version))),
            Include::Object => Some(RowObject::Object(Whole(object))),
        };
        Row { cells, object }
    }
}

fn definitions(kind: &Kind) -> Vec<Definition> {
    // Nobody reads the names of events; they are for `-o wide`, as in Kubernetes.
    let priority = i32::from(kind.kind == EVENT);
    let name = Definition { name: "Name", r#type: "string", format: "name", description: "The name, unique in its namespace.", priority };
    let column = |column: &Column| Definition {
        name: column.name,
        // An age is a text by the time it is sent.
        r#type: if column.kind == ColumnType::Date { "string" } else { column.kind.word() },
        format: "",
        description: column.description,
        priority: column.priority,
    };
    std::iter::once(name).chain(kind.columns.iter().map(column)).collect()
}

fn cell(object: &Object, column: &Column, now: Timestamp) -> Value {
    let Some(value) = lookup(object, column.path) else { return Value::Null };
    match (column.kind, &value) {
        (ColumnType::String, Value::String(_)) | (ColumnType::Integer, Value::Number(_)) | (ColumnType::Boolean, Value::Bool(_)) => value,
        (ColumnType::Date, Value::String(text)) => Timestamp::parse(text).map_or(Value::Null, |then| age(now.millis_since(then)).into()),
        (ColumnType::String, Value::Number(_) | Value::Bool(_)) => value.to_string().into(),
        _ => Value::Null,
    }
}

/// Finds `.a.b[?(@.k=="v")].c[0]` in the wire form of an object, without making all of it.
fn lookup(object: &Object, path: &str) -> Option<Value> {
    let (part, rest) = split_step(path.strip_prefix('.')?);
    match part {
        "metadata" => follow(&serde_json::to_value(Metadata::of(object)).ok()?, rest).cloned(),
        _ if object.key.kind == EVENT => follow(&object.spec, path).cloned(),
        "spec" => follow(&object.spec, rest).cloned(),
        "status" => follow(&object.status, rest).cloned(),
        _ => None,
    }
}

fn follow<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    if let Some(path) = path.strip_prefix('.') {
        let (key, rest) = split_step(path);
        return follow(value.get(key)?, rest);
    }
    let (selector, rest) = path.strip_prefix('[')?.split_once(']')?;
    let found = match selector.strip_prefix("?(@.").and_then(|filter| filter.strip_suffix(')')) {
        Some(filter) => {
            let (key, wanted) = filter.split_once("==")?;
            let wanted = wanted.trim_matches(['"', '\'']);
            value.as_array()?.iter().find(|item| item.get(key).and_then(Value::as_str) == Some(wanted))?
        }
        None => value.get(selector.parse::<usize>().ok()?)?,
    };
    follow(found, rest)
}

fn split_step(path: &str) -> (&str, &str) {
    path.split_at(path.find(['.', '[']).unwrap_or(path.len()))
}

/// An age as kubectl writes it: two units while they tell something, then one.
pub(crate) fn age(millis: i64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        ..-1 => return "<invalid>".to_owned(),
        -1..0 => return "0s".to_owned(),
        0..120 => return format!("{seconds}s"),
        _ => {}
    }
    let two = |great: i64, great_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{great}{great_unit}"),
        _ => format!("{great}{great_unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match () {
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, "d", hours % 24, "h"),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm_api::meta::ObjectKey;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn ages_read_as_in_kubectl() {
        let (minute, hour, day) = (60, 3_600, 86_400);
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (10 * minute + 5, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (3 * hour + 5 * minute, "3h5m"),
            (8 * hour + 5 * minute, "8h"),
            (47 * hour, "47h"),
            (48 * hour, "2d"),
            (50 * hour, "2d2h"),
            (8 * day + hour, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (800 * day, "2y70d"),
            (365 * 9 * day, "9y"),
        ] {
            assert_eq!(age(seconds * 1_000), text, "{seconds}");
        }
    }

    #[test]
    fn cells_are_found_by_path_and_fit_their_type() {
        let status = json!({"level": 2, "usable": false, "message": 7, "conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]});
        let mut object =
            Object::new(ObjectKey::new("MiniService", "n", "a"), "u", Timestamp::default(), json!({"ports": [{"target": 80}]}));
        object.status = Arc::new(status);
        let now = Timestamp::from_millis(125_000);
        let column = |path, kind| Column { name: "X", path, kind, priority: 0, description: "" };
        for (path, kind, expected) in [
            (".status.level", ColumnType::Integer, json!(2)),
            (".status.level", ColumnType::String, json!("2")),
            (".status.level", ColumnType::Boolean, json!(null)),
            (".status.usable", ColumnType::Boolean, json!(false)),
            (".status.gone.deep", ColumnType::String, json!(null)),
            (".status.conditions[?(@.type==\"Ready\")].status", ColumnType::String, json!("True")),
            (".status.conditions[?(@.type==\"Gone\")].status", ColumnType::String, json!(null)),
            (".status.conditions[0].type", ColumnType::String, json!("A")),
            (".spec.ports[0].target", ColumnType::Integer, json!(80)),
            (".spec.ports[9].target", ColumnType::Integer, json!(null)),
            (".metadata.creationTimestamp", ColumnType::Date, json!("2m5s")),
            (".metadata.namespace", ColumnType::String, json!("n")),
            ("nonsense[", ColumnType::String, json!(null)),
        ] {
            assert_eq!(cell(&object, &column(path, kind), now), expected, "{path}");
        }
    }
}
