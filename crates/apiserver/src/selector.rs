//! Owns label and field selectors: their text forms, and what they match. Pure.

use std::collections::BTreeMap;

use qm_api::meta::Object;
use qm_api::name::Name;
use qm_api::registry::Kind;

/// A selector that cannot be read; the text is meant for the person who wrote it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SelectorError(String);

/// A conjunction of requirements on labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    /// An object without the label matches too.
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl LabelSelector {
    /// Reads `app in (x,y),app!=y,!k,k,a=b,a==b,n>1`.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut lexer = Lexer { rest: text };
        let mut requirements = Vec::new();
        while lexer.peek() != Token::End {
            requirements.push(requirement(&mut lexer)?);
            match lexer.next() {
                Token::End => break,
                Token::Comma => {}
                other => return Err(unexpected(other, "',' or the end")),
            }
        }
        Ok(Self(requirements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<Name, Name>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels.get(requirement.key.as_str()).map(Name::as_str)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|unwanted| unwanted != value)),
            Test::Greater(limit) => number().is_some_and(|number| number > *limit),
            Test::Less(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    End,
}

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::Not => "!",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::End => "the end",
        }
    }
}

#[derive(Clone, Copy)]
struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Token<'a> {
        let mut ahead = *self;
        ahead.next()
    }

    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start();
        const SIGNS: [(&str, Token<'static>); 9] = [
            ("==", Token::Equal),
            ("!=", Token::NotEqual),
            ("=", Token::Equal),
            ("!", Token::Not),
            (",", Token::Comma),
            ("(", Token::Open),
            (")", Token::Close),
            (">", Token::Greater),
            ("<", Token::Less),
        ];
        for (sign, token) in SIGNS {
            if let Some(rest) = self.rest.strip_prefix(sign) {
                self.rest = rest;
                return token;
            }
        }
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word.is_empty() { Token::End } else { Token::Word(word) }
    }
}

fn unexpected(found: Token<'_>, wanted: &str) -> SelectorError {
    SelectorError(format!("unable to parse requirement: found '{}', expected: {wanted}", found.text()))
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, SelectorError> {
    let is_absent = lexer.peek() == Token::Not;
    if is_absent {
        lexer.next();
    }
    let key = match lexer.next() {
        Token::Word(word) => checked_key(word)?,
        other => return Err(unexpected(other, "a key")),
    };
    if is_absent {
        return Ok(Requirement { key, test: Test::Absent });
    }
    let test = match lexer.peek() {
        Token::Comma | Token::End => Test::Exists,
        _ => operator(lexer)?,
    };
    Ok(Requirement { key, test })
}

fn operator(lexer: &mut Lexer<'_>) -> Result<Test, SelectorError> {
    match lexer.next() {
        Token::Equal => Ok(Test::In(vec![one_value(lexer)?])),
        Token::NotEqual => Ok(Test::NotIn(vec![one_value(lexer)?])),
        Token::Word("in") => Ok(Test::In(values(lexer)?)),
        Token::Word("notin") => Ok(Test::NotIn(values(lexer)?)),
        Token::Greater => Ok(Test::Greater(number(lexer)?)),
        Token::Less => Ok(Test::Less(number(lexer)?)),
        other => Err(unexpected(other, "in, notin, =, ==, !=, >, <")),
    }
}

/// A value, which may be the empty text.
fn one_value(lexer: &mut Lexer<'_>) -> Result<String, SelectorError> {
    match lexer.peek() {
        Token::Word(word) => {
            lexer.next();
            checked_value(word)
        }
        Token::Comma | Token::Close | Token::End => Ok(String::new()),
        other => Err(unexpected(other, "a value")),
    }
}

fn values(lexer: &mut Lexer<'_>) -> Result<Vec<String>, SelectorError> {
    match lexer.next() {
        Token::Open => {}
        other => return Err(unexpected(other, "'('")),
    }
    let mut values = Vec::new();
    loop {
        values.push(one_value(lexer)?);
        match lexer.next() {
            Token::Comma => {}
            Token::Close => return Ok(values),
            other => return Err(unexpected(other, "',' or ')'")),
        }
    }
}

fn number(lexer: &mut Lexer<'_>) -> Result<i64, SelectorError> {
    let text = one_value(lexer)?;
    text.parse().map_err(|_| SelectorError(format!("unable to parse requirement: '{text}' is not a whole number")))
}

fn is_label_text(text: &str) -> bool {
    let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends_well(text.chars().next())
        && ends_well(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn checked_key(text: &str) -> Result<String, SelectorError> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        !prefix.is_empty() && prefix.len() <= 253 && prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
    };
    if is_label_text(name) && prefix.is_none_or(is_prefix) {
        return Ok(text.to_owned());
    }
    Err(SelectorError(format!("unable to parse requirement: '{text}' is not the name of a label")))
}

fn checked_value(text: &str) -> Result<String, SelectorError> {
    if is_label_text(text) {
        return Ok(text.to_owned());
    }
    Err(SelectorError(format!("unable to parse requirement: '{text}' is not the value of a label")))
}

/// A conjunction of requirements on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<FieldTerm>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    field: Field,
    value: String,
    wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// A JSON pointer into the fields of an event.
    Event(&'static str),
}

/// The fields of events that can be selected by.
const EVENT_FIELDS: [(&str, &str); 11] = [
    ("involvedObject.kind", "/involvedObject/kind"),
    ("involvedObject.namespace", "/involvedObject/namespace"),
    ("involvedObject.name", "/involvedObject/name"),
    ("involvedObject.uid", "/involvedObject/uid"),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    ("reason", "/reason"),
    ("reportingComponent", "/reportingComponent"),
    ("source", "/source/component"),
    ("type", "/type"),
];

impl FieldSelector {
    /// Reads `metadata.name=x,type!=Normal`; `\` quotes `,`, `=` and itself in values.
    pub(crate) fn parse(text: &str, kind: &Kind) -> Result<Self, SelectorError> {
        split_terms(text)
            .into_iter()
            .filter(|term| !term.is_empty())
            .map(|term| FieldTerm::parse(term, kind))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The selector of one name.
    pub(crate) fn with_name(mut self, name: &str) -> Self {
        self.0.push(FieldTerm { field: Field::Name, value: name.to_owned(), wanted: true });
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|term| (term.field.of(object) == term.value) == term.wanted)
    }
}

impl Field {
    fn named(label: &str, kind: &Kind) -> Option<Self> {
        match label {
            "metadata.name" => Some(Self::Name),
            "metadata.namespace" => Some(Self::Namespace),
            _ if kind.kind == "Event" => EVENT_FIELDS.iter().find(|(name, _)| *name == label).map(|(_, pointer)| Self::Event(pointer)),
            _ => None,
        }
    }

    fn of<'a>(&self, object: &'a Object) -> &'a str {
        match self {
            Self::Name => &object.key.name,
            Self::Namespace => &object.key.namespace,
            Self::Event(pointer) => object.spec.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default(),
        }
    }
}

impl FieldTerm {
    fn parse(term: &str, kind: &Kind) -> Result<Self, SelectorError> {
        let bad = || SelectorError(format!("invalid selector: '{term}'; can't understand '{term}'"));
        let at = term.find(['=', '!']).ok_or_else(bad)?;
        let (label, rest) = term.split_at(at);
        let (wanted, value) = match (rest.strip_prefix("!="), rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))) {
            (Some(value), _) => (false, value),
            (None, Some(value)) => (true, value),
            (None, None) => return Err(bad()),
        };
        let label = label.trim();
        let field = Field::named(label, kind).ok_or_else(|| SelectorError(format!("field label not supported: {label}")))?;
        Ok(Self { field, value: unquoted(value).ok_or_else(bad)?, wanted })
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if quoted => quoted = false,
            '\\' => quoted = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unquoted(text: &str) -> Option<String> {
    let mut chars = text.chars();
    let mut value = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.push(chars.next().filter(|c| "\\,=".contains(*c))?),
            '=' => return None,
            _ => value.push(c),
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm_api::meta::ObjectKey;
    use qm_api::registry;
    use qm_api::time::Timestamp;
    use serde_json::json;

    #[test]
    fn labels_are_selected_as_kubectl_writes_it() {
        let labels: BTreeMap<Name, Name> =
            [("app", "web"), ("tier", ""), ("n", "5"), ("example.org/x", "y")].map(|(k, v)| (k.into(), v.into())).into();
        for (text, matches) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("! gone", true),
            ("app=web", true),
            ("app == web", true),
            ("app=db", false),
            ("app!=db", true),
            ("gone!=db", true),
            ("app in (db,web)", true),
            ("app in (db, web),app!=web", false),
            ("app notin (db)", true),
            ("gone notin (db)", true),
            ("gone in (db)", false),
            ("tier=", true),
            ("tier in (,x)", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app>1", false),
            ("example.org/x=y", true),
            ("in=x", false),
            ("app,", true),
        ] {
            assert_eq!(LabelSelector::parse(text).map(|selector| selector.matches(&labels)), Ok(matches), "{text}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused_with_what_was_found() {
        for text in
            ["=x", "a b", "a in x", "a in (x", "a in (x y)", "a=b=c", "a!", ",a", "a>x", "-a", "a/", "/a", "a=-", "(", "a=é", "a==!b"]
        {
            let message = LabelSelector::parse(text).unwrap_err().to_string();
            assert!(message.starts_with("unable to parse requirement: "), "{text}: {message}");
        }
    }

    #[test]
    fn fields_are_selected_in_any_order() {
        let spec = json!({"involvedObject": {"kind": "MiniService", "name": "db"}, "reason": "a,b=c\\d", "type": "Normal"});
        let event = Object::new(ObjectKey::new("Event", "n", "e1"), "u", Timestamp::default(), spec);
        let kind = registry::by_kind("Event").unwrap();
        for (text, matches) in [
            ("", true),
            ("metadata.name=e1", true),
            ("metadata.name!=e1", false),
            ("involvedObject.name=db,type==Normal,metadata.namespace=n", true),
            ("type=Normal,involvedObject.name=app", false),
            ("involvedObject.uid=", true),
            (r"reason=a\,b\=c\\d", true),
        ] {
            assert_eq!(FieldSelector::parse(text, kind).map(|selector| selector.matches(&event)), Ok(matches), "{text}");
        }
        for (text, message) in [
            ("spec.x=1", "field label not supported: spec.x"),
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("type=a=b", "invalid selector: 'type=a=b'; can't understand 'type=a=b'"),
            (r"type=\x", r"invalid selector: 'type=\x'; can't understand 'type=\x'"),
        ] {
            assert_eq!(FieldSelector::parse(text, kind), Err(SelectorError(message.to_owned())), "{text}");
        }
        let service = registry::by_kind("MiniService").unwrap();
        assert!(FieldSelector::parse("involvedObject.name=x", service).is_err());
    }
}
