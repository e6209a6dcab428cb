//! The `filters` parameter.

use std::collections::BTreeMap;

use serde_json::Value;

use super::reply::Failure;

/// Filters by key. Both forms of the wire are read: lists, and maps to `true`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Self::default()) };
        let value: Value =
            serde_json::from_str(text).map_err(|_| Failure::new(500, go_json_error(text, "unexpected end of JSON input")))?;
        let kind = match &value {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            _ => "number",
        };
        let wrong = || Failure::new(500, format!("json: cannot unmarshal {kind} into Go value of type map[string][]string"));
        let object = value.as_object().ok_or_else(wrong)?;
        let words = |value: &Value| -> Vec<String> {
            match value {
                Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                Value::Object(map) => map.iter().filter(|(_, on)| on.as_bool() != Some(false)).map(|(k, _)| k.clone()).collect(),
                _ => Vec::new(),
            }
        };
        Ok(Self(object.iter().map(|(key, value)| (key.clone(), words(value))).collect()))
    }

    /// Refuses keys that are not in the list.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, Failure> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Failure::new(400, format!("Invalid filter '{key}'"))),
            None => Ok(self),
        }
    }

    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        !self.values(key).is_empty()
    }

    /// Whether there is no such filter, or one of its values fits.
    pub(crate) fn any_of(&self, key: &str, mut fits: impl FnMut(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|v| fits(v))
    }

    /// Whether all values of the filter fit.
    pub(crate) fn all_of(&self, key: &str, mut fits: impl FnMut(&str) -> bool) -> bool {
        self.values(key).iter().all(|v| fits(v))
    }

    /// Labels: `key` or `key=value`, all of them.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |v: &str| match v.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|l| l == value),
            None => labels.contains_key(v),
        };
        self.all_of("label", has) && !self.values("label!").iter().any(|v| has(v))
    }

    /// A boolean filter; `None` = not asked for.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, Failure> {
        match self.values(key) {
            [] => Ok(None),
            values => match values[0].as_str() {
                "1" | "true" => Ok(Some(true)),
                "0" | "false" => Ok(Some(false)),
                _ => Err(Failure::new(400, format!("Invalid filter '{key}=[{}]'", values.join(" ")))),
            },
        }
    }
}

/// What Go says of a text that is no JSON, in the cases that are met: a wrong beginning, a wrong word, a missing end.
pub(crate) fn go_json_error(text: &str, end: &str) -> String {
    let text = text.trim_start();
    for word in ["null", "true", "false"] {
        if text.chars().next() == word.chars().next() {
            let differs = text.chars().zip(word.chars()).find(|(found, wanted)| found != wanted);
            return match differs {
                Some((found, wanted)) => format!("invalid character '{found}' in literal {word} (expecting '{wanted}')"),
                None => end.to_owned(),
            };
        }
    }
    match text.chars().next() {
        None | Some('{' | '[' | '"' | '-' | '0'..='9') => end.to_owned(),
        Some(first) => format!("invalid character '{first}' looking for beginning of value"),
    }
}

/// The daemon matches names by regular expressions; of these, anchors, wildcards and plain text are understood.
pub(crate) fn name_fits(pattern: &str, name: &str) -> bool {
    let from_start = pattern.starts_with('^');
    let to_end = pattern.ends_with('$');
    let core = pattern.trim_start_matches('^').trim_end_matches('$');
    let alternatives = core.trim_start_matches('(').trim_end_matches(')').split('|');
    let bare = name.trim_start_matches('/');
    let slashed = format!("/{bare}");
    alternatives.into_iter().any(|part| {
        let part = part.replace('\\', "");
        let pieces: Vec<&str> = part.split(".*").collect();
        [bare, slashed.as_str()].iter().any(|name| pieces_fit(&pieces, name, from_start, to_end))
    })
}

fn pieces_fit(pieces: &[&str], name: &str, from_start: bool, to_end: bool) -> bool {
    let mut rest = name;
    for (index, piece) in pieces.iter().enumerate() {
        let last = index + 1 == pieces.len();
        let found = match (index == 0 && from_start, last && to_end) {
            (true, true) => (rest == *piece).then_some(0),
            (true, false) => rest.starts_with(piece).then_some(0),
            (false, true) => rest.ends_with(piece).then(|| rest.len() - piece.len()),
            (false, false) => rest.find(piece),
        };
        let Some(at) = found else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// Shell-like patterns: `*` and `?`.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_as_the_daemon_has_it() {
        for (pattern, name, wanted) in [
            ("probe-a", "/simprobe-a", true),
            ("^/simprobe-a$", "/simprobe-a", true),
            ("^simprobe-a$", "/simprobe-a", true),
            ("^probe", "/simprobe-a", false),
            ("sim.*a$", "/simprobe-a", true),
            ("b", "/simprobe-a", true),
            ("z", "/simprobe-a", false),
        ] {
            assert_eq!(name_fits(pattern, name), wanted, "{pattern}");
        }
        assert!(glob("a*c?", "abbbcd") && !glob("a*c", "abd") && glob("*", ""));
    }
}
