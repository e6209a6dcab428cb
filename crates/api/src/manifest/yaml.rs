//! Owns the way from YAML text to positioned trees, within limits: a hostile text ends in a fault, quickly and in bounded memory.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};

use super::Limits;
use super::tree::{Content, Entry, Node, ScalarKind, Span, classify};
use crate::codes::Code;

/// Something that is wrong with the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Where.
    pub span: Span,
    /// Another place that belongs to it.
    pub related: Option<(Span, String)>,
}

impl Fault {
    fn new(code: Code, span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), span, related: None }
    }
}

/// What was read: the documents before the fatal fault, if there was one, and the other faults.
#[derive(Debug, Default)]
pub struct Stream {
    /// The documents that could be read.
    pub documents: Vec<Node>,
    /// Faults that leave a document readable, each with the index of its document.
    pub faults: Vec<(usize, Fault)>,
    /// The fault at which reading stopped.
    pub fatal: Option<Fault>,
}

/// Reads a text that was already checked by [`check_text`].
pub fn parse(text: &str, limits: &Limits) -> Stream {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = granit_parser::options! {
        flow_nesting_limit: limits.max_depth,
        block_nesting_limit: limits.max_depth,
    };
    options.set_emit_comments(false);
    let mut builder = Builder {
        limits,
        offset: text.len() - body.len(),
        stream: Stream::default(),
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        nodes: 0,
        bytes: 0,
        root: None,
    };
    for event in Parser::new_from_str_with_options(body, options) {
        let result = match event {
            Ok((event, span)) => {
                let span = builder.span(span);
                builder.event(event, span)
            }
            Err(error) => Err(builder.scan_error(&error)),
        };
        if let Err(fault) = result {
            builder.stream.fatal.get_or_insert(fault);
        }
        if builder.stream.fatal.is_some() {
            break;
        }
    }
    builder.stream
}

/// Checks that bytes are UTF-8 text without control characters.
///
/// # Errors
/// The first place that is not.
pub fn check_text(bytes: &[u8]) -> Result<&str, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let span = span_at(&bytes[..at], at, error.error_len().unwrap_or(bytes.len() - at));
        Fault::new(Code::Encoding, span, "the file is not UTF-8 here", "save the file as UTF-8 text")
    })?;
    let bad = bytes.iter().position(|b| matches!(b, 0..=8 | 11 | 12 | 14..=31 | 127));
    match bad {
        None => Ok(text),
        Some(at) => {
            let name = if bytes[at] == 0 { "a NUL byte".to_owned() } else { format!("the control character U+{:04X}", bytes[at]) };
            let help = "remove it; is this a text file?";
            Err(Fault::new(Code::Encoding, span_at(&bytes[..at], at, 1), format!("the file has {name} here"), help))
        }
    }
}

fn span_at(before: &[u8], start: usize, length: usize) -> Span {
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    Span { line: clamp(line), column: clamp(column), start: clamp(start), end: clamp(start + length) }
}

fn clamp(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

enum Frame {
    List { span: Span, items: Vec<Node>, anchor: usize },
    Map { span: Span, entries: Vec<Entry>, key: Option<Key>, merges: Vec<Node>, anchor: usize },
}

struct Key {
    text: Box<str>,
    span: Span,
    is_merge: bool,
}

/// A finished anchored node with what an alias to it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

struct Builder<'a> {
    limits: &'a Limits,
    offset: usize,
    stream: Stream,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    bytes: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn span(&self, span: granit_parser::Span) -> Span {
        let at = |marker: &granit_parser::Marker| clamp(marker.byte_offset().unwrap_or(marker.index()) + self.offset);
        Span { line: clamp(span.start.line()), column: clamp(span.start.col() + 1), start: at(&span.start), end: at(&span.end) }
    }

    fn scan_error(&self, error: &ScanError) -> Fault {
        let marker = *error.marker();
        let mut span = self.span(granit_parser::Span::empty(marker));
        span.line = span.line.max(1);
        match error.kind() {
            ErrorKind::RecursionLimitExceeded => self.too_deep(span),
            ErrorKind::UnknownAnchor => {
                Fault::new(Code::Syntax, span, "the alias names an anchor that does not exist", "define it with `&name` above")
            }
            ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation | ErrorKind::TabNotAllowed => {
                Fault::new(Code::Syntax, span, "a tab stands where YAML wants spaces", "indent with spaces")
            }
            _ => Fault::new(Code::Syntax, span, format!("this is not YAML: {}", error.info()), ""),
        }
    }

    fn too_deep(&self, span: Span) -> Fault {
        let message = format!("the document is nested more than {} levels deep", self.limits.max_depth);
        Fault::new(Code::TooLarge, span, message, "manifests need far fewer levels")
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(..) => {
                self.anchors.clear();
                self.root = None;
                if self.stream.documents.len() >= self.limits.max_documents {
                    let message = format!("the file has more than {} documents", self.limits.max_documents);
                    return Err(Fault::new(Code::TooLarge, span, message, "split the file"));
                }
                Ok(())
            }
            Event::DocumentEnd => {
                let empty = Node { span, content: Content::Scalar("".into(), ScalarKind::Null) };
                let root = self.root.take().unwrap_or(empty);
                self.stream.documents.push(root);
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, text.len(), span)?;
                let kind = self.scalar_kind(&text, style, tag.as_deref(), span);
                let is_merge = style == ScalarStyle::Plain && text == "<<";
                let node = Node { span, content: Content::Scalar(text.as_ref().into(), kind) };
                self.add(node, anchor, is_merge, (1, text.len()))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                self.push(Frame::List { span, items: Vec::new(), anchor }, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                self.push(Frame::Map { span, entries: Vec::new(), key: None, merges: Vec::new(), anchor }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => {
                let Some(anchored) = self.anchors.get(&id) else {
                    return Err(Fault::new(
                        Code::Syntax,
                        span,
                        "the alias stands within the very node that it names",
                        "write the value out",
                    ));
                };
                let (nodes, bytes) = (anchored.nodes, anchored.bytes);
                // Counted before the copy is made: an alias bomb ends here, not in the allocator.
                self.count(nodes, bytes, span)?;
                let depth = self.stack.len();
                let mut node = self.anchors[&id].node.clone();
                if depth + height(&node) > self.limits.max_depth {
                    return Err(self.too_deep(span));
                }
                node.span = span;
                self.add(node, 0, false, (nodes, bytes))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, bytes: usize, span: Span) -> Result<(), Fault> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > self.limits.max_nodes || self.bytes > self.limits.max_text_bytes {
            let message =
                format!("the file has, with its aliases written out, more than {} values or too much text", self.limits.max_nodes);
            return Err(Fault::new(Code::TooLarge, span, message, "split the file, or use fewer aliases"));
        }
        Ok(())
    }

    fn fault(&mut self, fault: Fault) {
        if self.stream.faults.len() < super::MAX_VIOLATIONS {
            self.stream.faults.push((self.stream.documents.len(), fault));
        } else {
            // Too many to keep: a fault that is not kept must not leave its document looking good.
            self.stream.fatal.get_or_insert(fault);
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, span: Span) {
        if let Some(tag) = tag
            && !matches!(tag.core_suffix(), Some("map" | "seq"))
        {
            self.bad_tag(tag, span);
        }
    }

    fn bad_tag(&mut self, tag: &Tag, span: Span) {
        let message = format!("the tag `{}` has no meaning in a manifest", tag.original());
        self.fault(Fault::new(Code::UnsupportedYaml, span, message, "write the value out"));
    }

    fn scalar_kind(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> ScalarKind {
        match tag {
            None if style == ScalarStyle::Plain => classify(text),
            None => ScalarKind::Text,
            Some(tag) => match tag.core_suffix() {
                Some("str") => ScalarKind::Text,
                Some("null" | "bool" | "int" | "float") => classify(text),
                _ => {
                    if tag.original() != "!" {
                        self.bad_tag(tag, span);
                    }
                    ScalarKind::Text
                }
            },
        }
    }

    fn push(&mut self, frame: Frame, span: Span) -> Result<(), Fault> {
        self.count(1, 0, span)?;
        if self.stack.len() >= self.limits.max_depth {
            return Err(self.too_deep(span));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let (node, anchor) = match self.stack.pop() {
            Some(Frame::List { span, items, anchor }) => (Node { span, content: Content::List(items) }, anchor),
            Some(Frame::Map { span, entries, merges, anchor, .. }) => {
                let entries = self.unique(entries);
                let entries = self.merge(entries, merges)?;
                let span = entries.first().map_or(span, |first| if first.span.start >= span.start { first.span } else { span });
                (Node { span, content: Content::Map(entries) }, anchor)
            }
            None => return Ok(()),
        };
        let cost = if anchor > 0 { weight(&node) } else { (0, 0) };
        self.add(node, anchor, false, cost)
    }

    /// Puts a finished node into what is open: as a key, a value, an element, or the document's root.
    fn add(&mut self, node: Node, anchor: usize, is_merge: bool, cost: (usize, usize)) -> Result<(), Fault> {
        if anchor > 0 {
            self.count(cost.0, cost.1, node.span)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes: cost.0, bytes: cost.1 });
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key: open, merges, .. }) => match open.take() {
                Some(key) if key.is_merge => merges.push(node),
                Some(key) => entries.push(Entry { key: key.text, span: key.span, value: node }),
                None => {
                    let Content::Scalar(text, kind) = node.content else {
                        return Err(Fault::new(Code::UnsupportedYaml, node.span, "a key must be a text, not a list or a map", ""));
                    };
                    if kind == ScalarKind::Null {
                        return Err(Fault::new(Code::UnsupportedYaml, node.span, "a key is empty", "give the value a name"));
                    }
                    *open = Some(Key { text, span: node.span, is_merge });
                }
            },
        }
        Ok(())
    }

    /// Keeps the first of equal keys and reports the others.
    fn unique(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by(|a, b| entries[*a].key.cmp(&entries[*b].key).then(a.cmp(b)));
        let mut doubles: Vec<usize> = Vec::new();
        let mut first = 0;
        for at in 1..order.len() {
            if entries[order[at]].key != entries[order[first]].key {
                first = at;
                continue;
            }
            let (one, two) = (&entries[order[first]], &entries[order[at]]);
            let mut fault = Fault::new(
                Code::DuplicateKey,
                two.span,
                format!("the key `{}` stands twice in one map", shorten(&two.key)),
                "remove one of them",
            );
            fault.related = Some((one.span, "the first one".to_owned()));
            self.fault(fault);
            doubles.push(order[at]);
        }
        if doubles.is_empty() {
            return entries;
        }
        doubles.sort_unstable();
        let keep = |at: &usize| doubles.binary_search(at).is_err();
        entries.into_iter().enumerate().filter(|(at, _)| keep(at)).map(|(_, entry)| entry).collect()
    }

    /// Adds what `<<` brings in; what is written out wins, then the earlier merge.
    fn merge(&mut self, mut entries: Vec<Entry>, merges: Vec<Node>) -> Result<Vec<Entry>, Fault> {
        if merges.is_empty() {
            return Ok(entries);
        }
        let mut known: BTreeSet<Box<str>> = entries.iter().map(|entry| entry.key.clone()).collect();
        for merge in merges {
            let span = merge.span;
            let maps = match merge.content {
                Content::List(items) => items,
                content => vec![Node { span, content }],
            };
            for map in maps {
                let Content::Map(more) = map.content else {
                    return Err(Fault::new(Code::UnsupportedYaml, span, "a merge key (`<<`) takes a map or a list of maps", ""));
                };
                entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
            }
        }
        Ok(entries)
    }
}

fn height(node: &Node) -> usize {
    match &node.content {
        Content::Scalar(..) => 0,
        Content::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Content::Map(entries) => 1 + entries.iter().map(|entry| height(&entry.value)).max().unwrap_or(0),
    }
}

fn weight(node: &Node) -> (usize, usize) {
    let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
    match &node.content {
        Content::Scalar(text, _) => (1, text.len()),
        Content::List(items) => items.iter().map(weight).fold((1, 0), add),
        Content::Map(entries) => entries.iter().map(|entry| add((1, entry.key.len()), weight(&entry.value))).fold((1, 0), add),
    }
}

/// At most 60 characters of a text, for messages.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
