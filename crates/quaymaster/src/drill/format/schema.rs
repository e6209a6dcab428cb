//! The JSON Schema of drills: a picture of the form for editors. What is refused is said by the reader alone.

use serde_json::{Value, json};

use super::{ALL, VERBS, reasons};

/// The JSON Schema of drills, for editors.
pub(crate) fn schema() -> Value {
    let text = |about: &str| json!({ "type": "string", "minLength": 1, "description": about });
    let count = |about: &str| json!({ "type": "integer", "minimum": 0, "description": about });
    let list = |of: Value| json!({ "type": "array", "items": of });
    let some = |about: &str, of: Value| json!({ "description": about, "anyOf": [of.clone(), list(of)] });
    let object = |about: &str, properties: Value, required: Value| json!({ "type": "object", "description": about, "properties": properties, "required": required, "additionalProperties": false });
    let reason = || json!({ "enum": reasons() });
    let availability: Vec<Value> = ALL.iter().map(|a| a.severity().into()).chain(ALL.iter().map(|a| a.to_string().into())).collect();
    let quality = object(
        "What must hold of one service",
        json!({
            "availability": { "enum": availability, "description": "1 (best) to 6, or the name" },
            "usable": { "type": "boolean", "description": "Whether it may be used" },
            "because": some("Who is to blame", text("A service, NAME or NAMESPACE/NAME")),
            "reason": reason(),
            "reloads": count("How often it reloaded since the beginning"),
            "restarts": count("How often a container of it was started again since the beginning"),
            "events": some("Reasons of events that were told of it", reason()),
        }),
        json!([]),
    );
    let verbs: Vec<&str> = VERBS.iter().map(|(verb, _)| *verb).collect();
    let forms: Vec<&str> = VERBS.iter().map(|(_, form)| *form).collect();
    let act = json!({ "type": "string", "pattern": format!("^ *({}) ", verbs.join("|")), "description": forms.join("; ") });
    let expect = json!({
        "type": "object", "minProperties": 1, "description": "What must hold", "additionalProperties": quality,
        "properties": {
            "all": { "enum": ["usable", "available"], "description": "Every service that is not switched off" },
            "restarts": count("How many restarts there were of all services"),
            "reloads": count("How many reloads there were of all services"),
            "order": some("They reloaded, or were started, in this order", text("A service")),
            "events": some("Reasons of events that were told of whomever", reason()),
        },
    });
    let step = json!({
        "type": "object", "description": "Something at a time", "additionalProperties": false, "required": ["at"],
        "oneOf": [{ "required": ["do"] }, { "required": ["expect"] }],
        "properties": {
            "at": { "type": ["string", "integer"], "description": "The time since the beginning, such as 9m; or `end`" },
            "do": some("What happens", act),
            "expect": expect,
        },
    });
    let given = object(
        "What is there before it begins",
        json!({
            "manifests": some("Folders of manifests, seen from the drill's own; default `.`", text("A folder")),
            "world": { "type": "object", "description": "The world of the sandbox: images, and how containers behave" },
            "start": { "enum": ["Warm", "Cold"], "description": "The clock starts when everything is up, or before anything is there" },
        }),
        json!([]),
    );
    let mut schema = object(
        "A drill of Quaymaster: what fails, and what is expected then",
        json!({ "drill": text("What it is about"), "given": given, "steps": { "type": "array", "minItems": 1, "items": step } }),
        json!(["drill", "steps"]),
    );
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema
}
