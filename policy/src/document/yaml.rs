//! YAML 1.2 to a tree, in bounded time and memory.
//!
//! The events of `granit-parser` are built into a tree without recursion. Aliases are expanded at a
//! price: their nodes count against one budget for the whole document, which is what stops an alias
//! bomb. Merge keys (`<<`) are not part of YAML 1.2 and end up as an unknown key; plain scalars follow
//! the core schema, so `y`, `no` and `on` are text.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{Entry, Node, Place, Value};
use crate::Finding;
use crate::limits::{MAX_ALIASES, MAX_DEPTH, MAX_NODES};

pub(crate) fn read(text: &str) -> Result<Node, Finding> {
    let mut tree = Tree::default();
    // The byte order mark is no part of the first key.
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|e| finding("syntax", place(e.marker()), format!("this is not YAML: {}", e.info())))?;
        tree.take(event, place(&span.start))?;
    }
    tree.root.ok_or_else(|| finding("syntax", Place { line: 1, column: 1 }, "is empty; a policy begins with `version: 1`".to_owned()))
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

fn finding(code: &'static str, place: Place, message: String) -> Finding {
    Finding { code, path: String::new(), line: Some(place.line), column: Some(place.column), message }
}

/// A collection that is still open.
struct Open {
    anchor: usize,
    place: Place,
    /// Nodes in the document when it began.
    nodes_before: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, Place)>),
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    /// Anchored nodes and how many nodes each is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    aliases: usize,
    documents: usize,
    root: Option<Node>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Finding> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here; a policy is one document, put others into files of their own";
                    return Err(finding("multiple-documents", place, message.to_owned()));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, place)?;
                if let Some(Open { kind: Kind::Map(_, key @ None), .. }) = self.open.last_mut() {
                    // Keys are compared as they are written: `443:` is the key `443`.
                    *key = Some((text.into_owned(), place));
                    return Ok(());
                }
                let value = resolve(text, style, tag.as_deref(), place)?;
                self.put(Node::new(Some(place), value), anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => self.begin(anchor, tag.as_deref(), "seq", Kind::List(Vec::new()), place),
            Event::MappingStart(_, anchor, tag) => self.begin(anchor, tag.as_deref(), "map", Kind::Map(Vec::new(), None), place),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.kind {
                    Kind::List(items) => Value::List(items),
                    Kind::Map(entries, _) => Value::Map(entries),
                };
                let size = self.nodes - open.nodes_before;
                self.put(Node::new(Some(open.place), value), open.anchor, size)
            }
            Event::Alias(id) => {
                self.aliases += 1;
                if self.aliases > MAX_ALIASES {
                    return Err(finding("alias-limit", place, format!("more than {MAX_ALIASES} aliases; write the values out")));
                }
                if matches!(self.open.last(), Some(Open { kind: Kind::Map(_, None), .. })) {
                    return Err(finding("syntax", place, "an alias cannot be a key; write the key out".to_owned()));
                }
                let Some((node, size)) = self.anchors.get(&id) else {
                    return Err(finding(
                        "syntax",
                        place,
                        "this alias stands for a key or for something it is part of; write the value out".to_owned(),
                    ));
                };
                let (node, size) = (node.clone(), *size);
                self.count(size, place)?;
                self.put(node, 0, size)
            }
            _ => Ok(()),
        }
    }

    /// Counts before anything is built, so that a bomb is refused before it goes off.
    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Finding> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values once its aliases are expanded; a policy needs far fewer");
            return Err(finding("alias-limit", place, message));
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, tag: Option<&Tag>, native: &str, kind: Kind, place: Place) -> Result<(), Finding> {
        if tag.is_some_and(|tag| tag.core_suffix() != Some(native)) {
            return Err(unknown_tag(place));
        }
        if matches!(self.open.last(), Some(Open { kind: Kind::Map(_, None), .. })) {
            return Err(finding("syntax", place, "a key is plain text here, not a list or a mapping".to_owned()));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(finding("too-deep", place, format!("nested deeper than {MAX_DEPTH} levels; no policy is")));
        }
        let nodes_before = self.nodes;
        self.count(1, place)?;
        self.open.push(Open { anchor, place, nodes_before, kind });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Finding> {
        let place = node.place.unwrap_or(Place { line: 1, column: 1 });
        if anchor != 0 {
            // A copy is kept, so it counts: anchors around anchors would keep many.
            self.count(size, place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { kind: Kind::List(items), .. }) => items.push(node),
            Some(Open { kind: Kind::Map(entries, key), .. }) => {
                let Some((key, key_place)) = key.take() else {
                    return Err(finding("syntax", place, "a value stands where a key should".to_owned()));
                };
                entries.push(Entry { key, key_place: Some(key_place), node });
            }
        }
        Ok(())
    }
}

fn unknown_tag(place: Place) -> Finding {
    finding("unknown-tag", place, "this tag has no meaning in a policy; leave it out".to_owned())
}

/// The value of a scalar by the core schema (YAML 1.2.2, section 10.3).
fn resolve(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Value, Finding> {
    match tag.map(Tag::core_suffix) {
        None if style == ScalarStyle::Plain => {}
        None | Some(Some("str")) => return Ok(Value::Text(text.into_owned())),
        Some(Some("int" | "float" | "bool" | "null")) => {}
        Some(_) => return Err(unknown_tag(place)),
    }
    Ok(match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Flag(true),
        "false" | "False" | "FALSE" => Value::Flag(false),
        word => number(word).map_or_else(|| Value::Text(word.to_owned()), Value::Number),
    })
}

fn number(word: &str) -> Option<serde_json::Number> {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(digits) = word.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Into::into);
    }
    if let Some(digits) = word.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Into::into);
    }
    if let Ok(number) = word.parse::<u64>() {
        return Some(number.into());
    }
    if let Ok(number) = word.parse::<i64>() {
        return Some(number.into());
    }
    // `1.2.3.4`, `1_000` and `12:30` are text.
    let float = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if float { word.parse::<f64>().ok().and_then(serde_json::Number::from_f64) } else { None }
}
