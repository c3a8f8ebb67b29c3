//! What may stand where: one table from which come the strict reader and the schema of the CRDs.
//!
//! The reader walks a document against the table and reports everything that does not fit: unknown
//! keys (with the key that was probably meant), wrong types, words and numbers out of range, repeated
//! keys. What fits goes on to the types of [`crate::model`], which have the same keys (tested).

use crate::Finding;
use crate::document::{Entry, Node, Place, Value, path, shortened};
use crate::limits::{MAX_ENDPOINTS, MAX_ENTRIES, MAX_FINDINGS, MAX_MIDDLEWARES, MAX_NAME, MAX_PATH, MAX_PATHS, MAX_POLICIES, MAX_TEXT};

/// What may stand at a place.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Known keys only.
    Object { noun: &'static str, keys: &'static [Key] },
    /// Any keys, all of one shape.
    Map { of: &'static Shape, most: usize },
    /// Items of one shape.
    List { of: &'static Shape, most: usize },
    /// Text of at most so many bytes.
    Text { most: usize },
    /// One of these words.
    Word { words: &'static [&'static str], case: Case },
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer { least: i64, most: i64 },
    /// A glob, `{glob: …}` or `{any: […]}`.
    Matcher,
    /// An object that somebody else defines.
    Free,
}

/// Whether a word is compared as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Exact,
    Any,
}

/// A key of an object.
#[derive(Debug)]
pub(crate) struct Key {
    pub name: &'static str,
    pub shape: &'static Shape,
    pub help: &'static str,
}

const fn key(name: &'static str, shape: &'static Shape, help: &'static str) -> Key {
    Key { name, shape, help }
}

const fn word(words: &'static [&'static str]) -> Shape {
    Shape::Word { words, case: Case::Exact }
}

const FLAG: Shape = Shape::Flag;
const PATH: Shape = Shape::Text { most: MAX_PATH };
const TEXT: Shape = Shape::Text { most: MAX_TEXT };
const NAME: Shape = Shape::Text { most: MAX_NAME };
const PATHS: Shape = Shape::List { of: &PATH, most: MAX_PATHS };
const TEXTS: Shape = Shape::List { of: &TEXT, most: MAX_ENTRIES };
const PORT: Shape = Shape::Integer { least: 1, most: 65_535 };
const BODY_BYTES: Shape = Shape::Integer { least: 1, most: u32::MAX as i64 };
const MATCHERS: Shape = Shape::Map { of: &Shape::Matcher, most: MAX_ENTRIES };
const OPERATION_TYPE: Shape = word(&["query", "mutation", "subscription", "*"]);

const REQUEST_MATCH: Shape = Shape::Object {
    noun: "an allow or deny rule",
    keys: &[
        key("method", &NAME, "HTTP method, or `*` for any."),
        key("path", &PATH, "Glob over the path; `*` and `**` both cross `/`."),
        key("command", &NAME, "SQL command."),
        key("query", &MATCHERS, "Conditions on decoded query parameters: a glob, or `{any: [globs]}`."),
        key("operation_type", &OPERATION_TYPE, "GraphQL operation kind."),
        key("operation_name", &TEXT, "GraphQL operation name."),
        key("fields", &TEXTS, "GraphQL root fields."),
        key("tool", &Shape::Matcher, "MCP tool."),
        key("params", &MATCHERS, "JSON-RPC parameters."),
    ],
};
const RULE: Shape = Shape::Object { noun: "a rule", keys: &[key("allow", &REQUEST_MATCH, "What is allowed.")] };
const GRAPHQL_OPERATION: Shape = Shape::Object {
    noun: "a registered query",
    keys: &[
        key("operation_type", &OPERATION_TYPE, "Its kind."),
        key("operation_name", &TEXT, "Its name."),
        key("fields", &TEXTS, "Its root fields."),
    ],
};
const ENDPOINT: Shape = Shape::Object {
    noun: "an endpoint",
    keys: &[
        key("host", &NAME, "Name, IP literal or wildcard; empty only together with `allowed_ips`."),
        key("port", &PORT, "A single port."),
        key("ports", &Shape::List { of: &PORT, most: MAX_ENTRIES }, "Several ports; not together with `port`."),
        key("path", &PATH, "Selects the requests that this endpoint governs; empty is all."),
        key(
            "protocol",
            &Shape::Word { words: &["", "tcp", "rest", "websocket", "graphql", "sql", "json-rpc", "mcp"], case: Case::Any },
            "What is spoken; empty means that nobody looks inside.",
        ),
        key("tls", &word(&["", "skip", "terminate"]), "`skip`: TLS is never terminated."),
        key(
            "enforcement",
            &word(&["enforce", "audit"]),
            "Whether a request that no rule allows is refused or only recorded; `audit` unless said.",
        ),
        key("access", &word(&["read-only", "read-write", "full"]), "A ready-made set of allow rules; not together with `rules`."),
        key("rules", &Shape::List { of: &RULE, most: MAX_ENTRIES }, "What is allowed."),
        key("deny_rules", &Shape::List { of: &REQUEST_MATCH, most: MAX_ENTRIES }, "What is taken away again; beats every allow rule."),
        key(
            "allowed_ips",
            &Shape::List { of: &NAME, most: MAX_ENTRIES },
            "Addresses and networks in which the host has to resolve; the only way to private ranges.",
        ),
        key("allow_encoded_slash", &FLAG, "`%2F` stays encoded in a path instead of being refused."),
        key("websocket_credential_rewrite", &FLAG, "Placeholders in client WebSocket text frames are replaced."),
        key("request_body_credential_rewrite", &FLAG, "Placeholders in request bodies are replaced."),
        key("allow_uninspected_credentials", &FLAG, "Accept that credentials reach an endpoint whose requests nobody looks at."),
        key("persisted_queries", &word(&["deny", "allow_registered"]), "GraphQL: what happens to persisted queries."),
        key(
            "graphql_persisted_queries",
            &Shape::Map { of: &GRAPHQL_OPERATION, most: MAX_ENTRIES },
            "GraphQL: registered persisted queries, by hash or id.",
        ),
        key("graphql_max_body_bytes", &BODY_BYTES, "GraphQL: largest body that is parsed."),
        key(
            "json_rpc",
            &Shape::Object { noun: "JSON-RPC options", keys: &[key("max_body_bytes", &BODY_BYTES, "Largest body that is parsed.")] },
            "JSON-RPC options.",
        ),
        key(
            "mcp",
            &Shape::Object {
                noun: "MCP options",
                keys: &[
                    key("max_body_bytes", &BODY_BYTES, "Largest body that is parsed."),
                    key("strict_tool_names", &FLAG, "Tool names are compared by the strict grammar."),
                    key("allow_all_known_mcp_methods", &FLAG, "Every method of the protocol is allowed."),
                ],
            },
            "MCP options.",
        ),
        key("credential_signing", &word(&["sigv4", "sigv4:body", "sigv4:no_body"]), "Requests are signed on their way out."),
        key("signing_service", &NAME, "Service name of the signature."),
        key("signing_region", &NAME, "Region of the signature."),
        key(
            "credential_binding",
            &Shape::Object { noun: "a credential binding", keys: &[key("provider", &NAME, "Name of a provider.")] },
            "Which provider's credentials are meant.",
        ),
    ],
};
const BINARY: Shape = Shape::Object {
    noun: "a binary",
    keys: &[
        key("path", &PATH, "Absolute path, or a glob: `*` stays inside one component, `**` does not."),
        key("harness", &FLAG, "Has no effect any more."),
    ],
};
const NETWORK_POLICY: Shape = Shape::Object {
    noun: "a network policy",
    keys: &[
        key("name", &NAME, "Shown in logs; the key unless said."),
        key("endpoints", &Shape::List { of: &ENDPOINT, most: MAX_ENDPOINTS }, "What may be reached."),
        key("binaries", &Shape::List { of: &BINARY, most: MAX_ENTRIES }, "Who may reach it; empty is any executable."),
    ],
};
const MIDDLEWARE: Shape = Shape::Object {
    noun: "a middleware",
    keys: &[
        key("name", &NAME, "Shown in logs; the key unless said."),
        key("middleware", &NAME, "Which service."),
        key("order", &Shape::Integer { least: i32::MIN as i64, most: i32::MAX as i64 }, "Position in the chain, ascending."),
        key("config", &Shape::Free, "Handed to the service."),
        key("on_error", &word(&["fail_closed", "fail_open"]), "What happens to a request when the service fails."),
        key(
            "endpoints",
            &Shape::Object {
                noun: "a middleware's endpoints",
                keys: &[
                    key("include", &Shape::List { of: &NAME, most: MAX_ENTRIES }, "Host patterns that it is for."),
                    key("exclude", &Shape::List { of: &NAME, most: MAX_ENTRIES }, "Host patterns that it is not for."),
                ],
            },
            "Which hosts it is for.",
        ),
    ],
};
/// A policy file.
pub(crate) const POLICY: Shape = Shape::Object {
    noun: "a policy file",
    keys: &[
        key("version", &Shape::Integer { least: 1, most: 1 }, "Always 1."),
        key(
            "filesystem_policy",
            &Shape::Object {
                noun: "the filesystem policy",
                keys: &[
                    key("include_workdir", &FLAG, "Grant the working directory read-write."),
                    key("read_only", &PATHS, "Absolute paths that may be read."),
                    key("read_write", &PATHS, "Absolute paths that may be read and written."),
                ],
            },
            "What the agent may read and write.",
        ),
        key(
            "landlock",
            &Shape::Object {
                noun: "the Landlock policy",
                keys: &[key(
                    "compatibility",
                    &word(&["best_effort", "hard_requirement"]),
                    "What to do where Landlock cannot hold everything: report, or refuse to start.",
                )],
            },
            "How strictly Landlock is needed.",
        ),
        key(
            "process",
            &Shape::Object {
                noun: "the process policy",
                keys: &[
                    key("run_as_user", &NAME, "`sandbox` or a numeric uid from 1."),
                    key("run_as_group", &NAME, "`sandbox` or a numeric gid from 1."),
                ],
            },
            "Who the agent runs as.",
        ),
        key("network_policies", &Shape::Map { of: &NETWORK_POLICY, most: MAX_POLICIES }, "What the agent may reach; empty is nothing."),
        key(
            "network_middlewares",
            &Shape::Map { of: &MIDDLEWARE, most: MAX_MIDDLEWARES },
            "Services that look at requests on their way out.",
        ),
    ],
};

/// Objects in which a key may belong that stands elsewhere.
const HOMES: [&Shape; 6] = [&POLICY, &NETWORK_POLICY, &ENDPOINT, &REQUEST_MATCH, &BINARY, &MIDDLEWARE];

/// Walks documents and remembers what does not fit.
#[derive(Default)]
pub(crate) struct Reader {
    pub findings: Vec<Finding>,
}

impl Reader {
    /// One more than is reported, so that it is known that there are more.
    fn is_full(&self) -> bool {
        self.findings.len() > MAX_FINDINGS
    }

    fn refuse(&mut self, code: &'static str, path: &str, place: Option<Place>, message: String) {
        if self.is_full() {
            return;
        }
        let (line, column) = place.map(|p| (p.line, p.column)).unzip();
        self.findings.push(Finding { code, path: path.to_owned(), line, column, message });
    }

    /// What fits, as data; `None` for a value that does not.
    pub(crate) fn read(&mut self, node: &Node, shape: &Shape, path: &str) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        match (shape, &node.value) {
            (Shape::Object { noun, keys }, Value::Map(_)) => Some(self.object(node, noun, keys, path)),
            (Shape::Map { of, most }, Value::Map(entries)) => {
                self.bounded(node, entries.len(), *most, path)?;
                let mut map = serde_json::Map::new();
                for (entry, child) in self.entries(node, path) {
                    if let Some(value) = self.read(&entry.node, of, &child) {
                        map.insert(entry.key.clone(), value);
                    }
                }
                Some(Json::Object(map))
            }
            (Shape::List { of, most }, Value::List(items)) => {
                self.bounded(node, items.len(), *most, path)?;
                let read = items.iter().enumerate().map(|(i, item)| self.read(item, of, &path::index(path, i)));
                // An item that does not fit leaves a hole, so that the others keep their numbers.
                Some(Json::Array(read.map(|value| value.unwrap_or_else(|| hole(of))).collect()))
            }
            (Shape::Text { most }, Value::Text(text)) => {
                if text.len() > *most {
                    self.refuse("too-long", path, node.place, format!("has {} bytes; at most {most} are possible", text.len()));
                    return None;
                }
                Some(Json::String(text.clone()))
            }
            (Shape::Word { words, case }, Value::Text(text)) => {
                let same = |word: &&&str| if *case == Case::Any { word.eq_ignore_ascii_case(text) } else { **word == text };
                if let Some(word) = words.iter().find(same) {
                    return Some(Json::String((*word).to_owned()));
                }
                let hint = nearest(text, words).map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default();
                let message = format!("`{}` is not known{hint}; use one of {}", shortened(text), listed(words));
                self.refuse("unknown-value", path, node.place, message);
                None
            }
            (Shape::Flag, Value::Flag(flag)) => Some(Json::Bool(*flag)),
            (Shape::Integer { least, most }, Value::Number(number)) => {
                let fits = number.as_i64().filter(|n| (*least..=*most).contains(n));
                if fits.is_none() {
                    let range = if least == most {
                        format!("has to be {least}")
                    } else {
                        format!("has to be a whole number from {least} to {most}")
                    };
                    self.refuse("out-of-range", path, node.place, format!("{number} is not possible: it {range}"));
                }
                fits.map(Json::from)
            }
            (Shape::Matcher, Value::Text(_)) => self.read(node, &TEXT, path),
            (Shape::Matcher, Value::Map(_)) => self.matcher(node, path),
            (Shape::Free, Value::Map(_)) => Some(self.free(node, path)),
            (shape, _) => {
                let mut message = format!("has to be {}, not {}", shape.describe(), node.describe());
                match (shape, &node.value) {
                    (Shape::Text { .. } | Shape::Word { .. } | Shape::Matcher, Value::Number(_) | Value::Flag(_)) => {
                        message.push_str("; write it in quotes");
                    }
                    (Shape::Integer { .. }, Value::Text(text)) if text.parse::<i64>().is_ok() => {
                        message.push_str("; write it without quotes");
                    }
                    (_, Value::Null) => message.push_str("; give a value or leave the key out"),
                    (Shape::List { .. }, _) => message.push_str("; write `[…]`, or one `- ` per line"),
                    _ => {}
                }
                self.refuse("wrong-type", path, node.place, message);
                None
            }
        }
    }

    fn object(&mut self, node: &Node, noun: &str, keys: &[Key], path: &str) -> serde_json::Value {
        let mut map = serde_json::Map::new();
        for (entry, child) in self.entries(node, path) {
            if let Some(known) = keys.iter().find(|k| k.name == entry.key) {
                if let Some(value) = self.read(&entry.node, known.shape, &child) {
                    map.insert(entry.key.clone(), value);
                }
            } else if !self.is_full() {
                self.refuse("unknown-key", &child, entry.key_place, unknown_key(&entry.key, noun, keys));
            }
        }
        serde_json::Value::Object(map)
    }

    /// The entries of a map with their paths; a repeated key is reported and left out.
    fn entries<'n>(&mut self, node: &'n Node, path: &str) -> Vec<(&'n Entry, String)> {
        let Value::Map(entries) = &node.value else { return Vec::new() };
        let mut seen = std::collections::HashMap::new();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            let child = path::key(path, &entry.key);
            if let Some(first) = seen.insert(entry.key.as_str(), entry.key_place) {
                let line = first.map(|p| format!(" on line {}", p.line)).unwrap_or_default();
                let message = format!("`{}` stands here twice, first{line}; keep one", shortened(&entry.key));
                self.refuse("duplicate-key", &child, entry.key_place, message);
                continue;
            }
            kept.push((entry, child));
        }
        kept
    }

    fn bounded(&mut self, node: &Node, count: usize, most: usize, path: &str) -> Option<()> {
        if count > most {
            self.refuse("too-many", path, node.place, format!("has {count} entries; at most {most} are possible"));
            return None;
        }
        Some(())
    }

    fn matcher(&mut self, node: &Node, path: &str) -> Option<serde_json::Value> {
        const KEYS: &[Key] = &[key("glob", &TEXT, "One glob."), key("any", &TEXTS, "Globs of which one has to match.")];
        let before = self.findings.len();
        let value = self.object(node, "a matcher", KEYS, path);
        if self.findings.len() == before && value.as_object().is_none_or(|map| map.len() != 1) {
            self.refuse("invalid-matcher", path, node.place, "needs exactly one of `glob` and `any`".to_owned());
        }
        (self.findings.len() == before).then_some(value)
    }

    fn free(&mut self, node: &Node, path: &str) -> serde_json::Value {
        use serde_json::Value as Json;
        match &node.value {
            Value::Null => Json::Null,
            Value::Flag(flag) => Json::Bool(*flag),
            Value::Number(number) => Json::Number(number.clone()),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().enumerate().map(|(i, item)| self.free(item, &path::index(path, i))).collect()),
            Value::Map(_) => {
                let entries = self.entries(node, path);
                Json::Object(entries.into_iter().map(|(entry, child)| (entry.key.clone(), self.free(&entry.node, &child))).collect())
            }
        }
    }
}

impl Shape {
    fn describe(&self) -> &'static str {
        match self {
            Self::Object { .. } | Self::Map { .. } | Self::Free => "a mapping",
            Self::List { .. } => "a list",
            Self::Text { .. } => "text",
            Self::Word { .. } => "a word",
            Self::Flag => "`true` or `false`",
            Self::Integer { .. } => "a number",
            Self::Matcher => "a glob or `{any: [globs]}`",
        }
    }
}

fn hole(shape: &Shape) -> serde_json::Value {
    match shape {
        Shape::Object { .. } => serde_json::json!({}),
        Shape::Integer { least, .. } => serde_json::json!(least),
        _ => serde_json::json!(""),
    }
}

fn unknown_key(key: &str, noun: &str, keys: &[Key]) -> String {
    let names: Vec<&str> = keys.iter().map(|k| k.name).collect();
    let shown = shortened(key);
    if key == "<<" {
        return "merge keys are not part of YAML 1.2; write the keys out, or use an alias for the whole value".to_owned();
    }
    if let Some(name) = nearest(key, &names) {
        return format!("{noun} has no key `{shown}`; did you mean `{name}`?");
    }
    for home in HOMES {
        if let Shape::Object { noun: other, keys } = home
            && *other != noun
            && keys.iter().any(|k| k.name == key)
        {
            return format!("{noun} has no key `{shown}`; it is a key of {other}");
        }
    }
    format!("{noun} has no key `{shown}`; it has {}", listed(&names))
}

/// The word that was probably meant.
fn nearest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    let text = shortened(text).to_ascii_lowercase().replace('-', "_");
    let distance = |word: &str| strsim::damerau_levenshtein(&text, &word.replace('-', "_"));
    let best = words.iter().filter(|word| !word.is_empty()).min_by_key(|word| distance(word))?;
    (distance(best) <= (text.chars().count() / 3).clamp(1, 3)).then_some(best)
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| if word.is_empty() { "nothing".to_owned() } else { format!("`{word}`") }).collect::<Vec<_>>().join(", ")
}
