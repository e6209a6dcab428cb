//! Owns the schemas of the kinds in all their forms: the plain JSON Schema, the one for editors, the CRD, and the compiled [`Shape`]
//! that admission walks. All of them come from the Rust types; nothing here is written by hand but the metadata.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::codes::Code;
use crate::meta::API_VERSION;
use crate::registry::{self, Face, Kind};

/// The command that renews the generated files.
pub const RENEW: &str = "cargo xtask codegen";

/// The schema of a type, without references and without `null`: an optional field is one that may be left out.
pub fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.meta_schema = None;
        s.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Value::Object(map) = &mut schema {
        map.remove("title");
    }
    tidy(&mut schema);
    schema
}

/// Takes `null` out of types and folds documented enums into one list.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(map) => {
            drop_null(map);
            fold_enum(map);
            map.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

fn drop_null(map: &mut Map<String, Value>) {
    let is_null = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("null");
    if let Some(Value::Array(forms)) = map.get("anyOf")
        && let [form, null] = forms.as_slice()
        && is_null(null)
        && let Value::Object(form) = form.clone()
    {
        map.remove("anyOf");
        for (key, value) in form {
            map.entry(key).or_insert(value);
        }
    }
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

fn fold_enum(map: &mut Map<String, Value>) {
    let Some(Value::Array(forms)) = map.get("oneOf") else { return };
    let mut values = Vec::new();
    let mut texts = Vec::new();
    for form in forms {
        let text = form.get("description").and_then(Value::as_str).unwrap_or_default();
        match (form.get("const"), form.get("enum")) {
            (Some(value), _) => {
                values.push(value.clone());
                texts.push(Value::from(text));
            }
            (None, Some(Value::Array(list))) => {
                for value in list {
                    values.push(value.clone());
                    texts.push(Value::from(text));
                }
            }
            _ => return,
        }
    }
    map.remove("oneOf");
    map.insert("type".into(), "string".into());
    map.insert("enum".into(), Value::Array(values));
    map.insert("enumDescriptions".into(), Value::Array(texts));
}

/// The schema of `metadata` as a user may write it.
pub fn metadata() -> Value {
    let text_map = |description: &str| {
        json!({"type": "object", "description": description,
               "additionalProperties": {"type": ["string", "number", "boolean"], "format": "quaymaster-scalar"}})
    };
    json!({
        "type": "object",
        "description": "What the object is called, and how it is found.",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "description": "The name: lower-case letters, digits and `-`, at most 63."},
            "namespace": {"type": "string", "minLength": 1, "description": "The namespace: a Docker stack or Compose project. Default `default`."},
            "labels": text_map("For selection."),
            "annotations": text_map("For everything else."),
        },
    })
}

/// The schema of a whole object of `kind`, with its status; `None` for kinds without one.
pub fn object(kind: &Kind) -> Option<Value> {
    let spec = (kind.schema?)();
    let mut properties = json!({
        "apiVersion": {"type": "string", "enum": [API_VERSION], "description": "The version of the API."},
        "kind": {"type": "string", "enum": [kind.kind], "description": "The kind of the object."},
        "metadata": metadata(),
        "spec": spec,
    });
    if let Some(status) = kind.status {
        properties["status"] = status();
    }
    Some(json!({
        "type": "object",
        "description": kind.description,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": properties,
    }))
}

/// The schema of a manifest for editors: strict, and with the status as a mere remark.
pub fn editor(kind: &Kind) -> Option<Value> {
    let mut schema = object(kind)?;
    if let Some(status) = schema["properties"].get_mut("status") {
        *status = json!({"type": "object", "readOnly": true, "description": "Reported by the operator; ignored in a manifest."});
    }
    close(&mut schema);
    Some(schema)
}

/// Forbids unknown keys in every object that has properties.
fn close(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(map) => {
            let is_object = map.get("type").and_then(Value::as_str) == Some("object");
            let is_free = map.contains_key("additionalProperties") || map.contains_key("readOnly");
            if is_object && !is_free {
                map.insert("additionalProperties".into(), false.into());
            }
            map.values_mut().for_each(close);
        }
        _ => {}
    }
}

/// The CRD of `kind` as JSON; `None` for kinds that have none.
pub fn crd(kind: &Kind) -> Option<Value> {
    let mut crd = serde_json::to_value((kind.crd?)()).ok()?;
    if let Some(version) = crd.pointer_mut("/spec/versions/0") {
        version["additionalPrinterColumns"] = kind.columns.iter().map(crd_column).collect();
    }
    Some(crd)
}

fn crd_column(column: &registry::Column) -> Value {
    json!({"name": column.name, "jsonPath": column.path, "type": column.kind.word(), "priority": column.priority, "description": column.description})
}

/// Every generated file: path from the root of the repository -> text.
pub fn generated() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut forms = Vec::new();
    for kind in registry::all().filter(|kind| kind.face == Face::User) {
        if let Some(mut schema) = editor(kind) {
            forms.push(schema.clone());
            head(&mut schema, kind.kind, &format!("{}.json", kind.singular));
            files.insert(format!("schemas/{}.json", kind.singular), pretty(&schema));
        }
        if let Some(crd) = crd(kind) {
            files.insert(format!("schemas/crds/{}.yaml", kind.plural), format!("# Generated by `{RENEW}`.\n{}", yaml(&crd)));
        }
    }
    let mut any = json!({"description": "Any manifest of Quaymaster.", "oneOf": forms});
    head(&mut any, "Quaymaster", "quaymaster.json");
    files.insert("schemas/quaymaster.json".to_owned(), pretty(&any));
    files.insert("docs/errors/README.md".to_owned(), error_index());
    files
}

fn head(schema: &mut Value, title: &str, file: &str) {
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["$id"] = format!("https://quaymaster.dev/schemas/{file}").into();
    schema["title"] = title.into();
    schema["$comment"] = format!("Generated by `{RENEW}`.").into();
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn error_index() -> String {
    let mut text = format!(
        "# Codes of violations\n\nGenerated by `{RENEW}`. `quaymaster explain CODE` prints a page.\n\n| Code | Meaning |\n|---|---|\n"
    );
    for code in Code::all() {
        let _ = writeln!(text, "| [{code}]({code}.md) | {} |", code.title());
    }
    text
}

/// JSON as block YAML; texts are quoted as in JSON, which is YAML too.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(&mut text, value, 0);
    text
}

fn write_yaml(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 {
                    out.push_str(&" ".repeat(indent));
                }
                let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') && !key.is_empty();
                let key = if plain { key.clone() } else { Value::from(key.as_str()).to_string() };
                let _ = write!(out, "{key}:");
                write_below(out, value, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str("- ");
                match item {
                    Value::Object(map) if !map.is_empty() => write_yaml(out, item, indent + 2),
                    Value::Array(list) if !list.is_empty() => write_yaml(out, item, indent + 2),
                    _ => {
                        let _ = writeln!(out, "{item}");
                    }
                }
            }
        }
        _ => {
            let _ = writeln!(out, "{value}");
        }
    }
}

fn write_below(out: &mut String, value: &Value, indent: usize) {
    let is_block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        out.push_str(&" ".repeat(indent + 2));
        write_yaml(out, value, indent + 2);
    } else {
        out.push(' ');
        write_yaml(out, value, indent);
    }
}

/// A compiled schema: what admission walks.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// An object with known fields.
    Object(BTreeMap<Box<str>, Field>),
    /// A map from any text to one shape.
    Map(Box<Shape>),
    /// A list of one shape.
    List(Box<Shape>),
    /// One of a few words.
    Enum(Vec<Box<str>>),
    /// A text.
    Text(TextShape),
    /// A text that may also be written as a number or true/false; its source text is kept.
    Scalar(TextShape),
    /// A whole number between two limits.
    Integer(i128, i128),
    /// Any number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Anything.
    Any,
}

/// One field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// What it may hold.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

/// The limits of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextShape {
    /// The least number of characters.
    pub min: usize,
    /// The greatest number of characters.
    pub max: Option<usize>,
    /// What the text must parse as, e.g. `quaymaster-duration`.
    pub format: Box<str>,
}

impl Shape {
    /// Compiles a schema made by [`of`].
    pub fn compile(schema: &Value) -> Self {
        if let Some(Value::Array(values)) = schema.get("enum") {
            return Self::Enum(values.iter().filter_map(Value::as_str).map(Box::from).collect());
        }
        match schema.get("type") {
            Some(Value::Array(_)) => Self::Scalar(TextShape::compile(schema)),
            Some(Value::String(name)) => match name.as_str() {
                "object" => Self::compile_object(schema),
                "array" => Self::List(Box::new(schema.get("items").map_or(Self::Any, Self::compile))),
                "string" => Self::Text(TextShape::compile(schema)),
                "integer" => {
                    let limit = |key: &str| schema.get(key).and_then(Value::as_number).and_then(whole);
                    Self::Integer(limit("minimum").unwrap_or(i64::MIN.into()), limit("maximum").unwrap_or(i64::MAX.into()))
                }
                "number" => Self::Number,
                "boolean" => Self::Bool,
                _ => Self::Any,
            },
            _ => Self::Any,
        }
    }

    fn compile_object(schema: &Value) -> Self {
        if let Some(more) = schema.get("additionalProperties").filter(|more| more.is_object()) {
            return Self::Map(Box::new(Self::compile(more)));
        }
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        Self::Object(
            fields
                .map(|(name, schema)| {
                    (name.as_str().into(), Field { shape: Self::compile(schema), required: required.contains(&name.as_str()) })
                })
                .collect(),
        )
    }

    /// The paths of all leaves, with `[]` for the elements of a list and `{}` for the values of a map.
    pub fn leaves(&self) -> Vec<String> {
        let mut leaves = Vec::new();
        self.collect_leaves("", &mut leaves);
        leaves
    }

    fn collect_leaves(&self, path: &str, leaves: &mut Vec<String>) {
        match self {
            Self::Object(fields) if !fields.is_empty() => {
                for (name, field) in fields {
                    let below = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                    field.shape.collect_leaves(&below, leaves);
                }
            }
            Self::Map(shape) => shape.collect_leaves(&format!("{path}{{}}"), leaves),
            Self::List(shape) => shape.collect_leaves(&format!("{path}[]"), leaves),
            _ => leaves.push(path.to_owned()),
        }
    }
}

impl TextShape {
    fn compile(schema: &Value) -> Self {
        let number = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
        Self {
            min: number("minLength").unwrap_or(0),
            max: number("maxLength"),
            format: schema.get("format").and_then(Value::as_str).unwrap_or_default().into(),
        }
    }
}

fn whole(number: &serde_json::Number) -> Option<i128> {
    number.as_i128().or_else(|| number.as_f64().map(|float| float as i128))
}
