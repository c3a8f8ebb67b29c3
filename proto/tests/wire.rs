//! The wire is what `wire-openshell-v1.txt` lists: messages, fields with numbers, types and labels,
//! enums, options, and every method that users may call.
//!
//! Both sides are brought into the words of that list and compared entry by entry, so that a failure
//! names the message or method. Methods of the reference's own components (their authorization modes
//! are `sandbox`, `peer`, `operator`) are not part of our surface; our supervisors have a protocol of
//! their own.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};

/// Who may call what users may call.
const USER_MODES: [&str; 3] = ["bearer", "dual", "unauthenticated"];
const PACKAGES: [&str; 4] = ["openshell.datamodel.v1", "openshell.sandbox.v1", "openshell.v1", "openshell.options.v1"];

/// `message x.y` or `enum x.y` or `method Service/Name`, each with its lines.
type Entries = BTreeMap<String, BTreeSet<String>>;

fn pool() -> DescriptorPool {
    DescriptorPool::decode(openshell_proto::DESCRIPTORS).unwrap()
}

fn expected() -> Entries {
    let list = include_str!("wire-openshell-v1.txt");
    let mut entries = Entries::new();
    let mut current = String::new();
    for line in list.lines() {
        if line.starts_with("===") || line.is_empty() {
            current.clear();
        } else if line.starts_with("message ") || line.starts_with("enum ") {
            let (header, reserved) = line.split_once("   (").map_or((line, None), |(header, rest)| (header, Some(rest)));
            header.clone_into(&mut current);
            entries.entry(current.clone()).or_default().extend(reserved.map(|r| r.trim_end_matches(')').to_owned()));
        } else if let Some(service) = line.strip_prefix("service ") {
            current = format!("service {service}");
        } else if line.starts_with("extension ") {
            entries.entry("extensions".to_owned()).or_default().insert(line.to_owned());
        } else if let Some(service) = current.strip_prefix("service ") {
            let (name, rest) = line.trim().split_once(": ").unwrap();
            if USER_MODES.iter().any(|mode| rest.contains(&format!("auth_mode: \"{mode}\""))) {
                entries.entry(format!("method {service}/{name}")).or_default().insert(rest.to_owned());
            }
        } else {
            entries.get_mut(&current).unwrap().insert(line.trim().to_owned());
        }
    }
    entries
}

fn actual() -> Entries {
    let pool = pool();
    let mut entries = Entries::new();
    for message in pool.all_messages().filter(|m| PACKAGES.contains(&m.package_name()) && !m.is_map_entry()) {
        entries.insert(format!("message {}", message.full_name()), message_lines(&message));
    }
    for kind in pool.all_enums().filter(|e| PACKAGES.contains(&e.package_name())) {
        entries.insert(format!("enum {}", kind.full_name()), enum_lines(&kind));
    }
    for service in pool.services().filter(|s| PACKAGES.contains(&s.package_name())) {
        for method in service.methods() {
            entries.insert(format!("method {}/{}", service.full_name(), method.name()), BTreeSet::from([method_line(&method)]));
        }
    }
    let extension =
        |e: prost_reflect::ExtensionDescriptor| format!("extension {} = {}: {}", e.full_name(), e.number(), type_name(&e.kind()));
    entries.insert("extensions".to_owned(), pool.all_extensions().map(extension).collect());
    entries
}

fn message_lines(message: &MessageDescriptor) -> BTreeSet<String> {
    let mut lines: BTreeSet<String> = message.fields().map(|field| field_line(&field)).collect();
    let reserved: Vec<String> = message.reserved_ranges().flatten().map(|n| n.to_string()).collect();
    if !reserved.is_empty() {
        lines.insert(format!("reserved {}", reserved.join(", ")));
    }
    lines
}

fn enum_lines(kind: &EnumDescriptor) -> BTreeSet<String> {
    kind.values().map(|value| format!("{} {}", value.number(), value.name())).collect()
}

fn field_line(field: &FieldDescriptor) -> String {
    let kind = if field.is_map() {
        let Kind::Message(entry) = field.kind() else { panic!("a map is a message") };
        format!("map<{}, {}>", type_name(&entry.map_entry_key_field().kind()), type_name(&entry.map_entry_value_field().kind()))
    } else if field.cardinality() == Cardinality::Repeated {
        format!("repeated {}", type_name(&field.kind()))
    } else {
        type_name(&field.kind())
    };
    let label = if field.field_descriptor_proto().proto3_optional() {
        " (optional)".to_owned()
    } else {
        field.containing_oneof().map(|oneof| format!(" (oneof {})", oneof.name())).unwrap_or_default()
    };
    let secret = field.parent_pool().get_extension_by_name("openshell.options.v1.secret").unwrap();
    let secret = if field.options().get_extension(&secret).as_bool() == Some(true) { " [secret=True]" } else { "" };
    format!("{} {}: {kind}{label}{secret}", field.number(), field.name())
}

fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn method_line(method: &MethodDescriptor) -> String {
    let stream = |streaming| if streaming { "stream " } else { "" };
    // The list names them without package; there are no two of one name.
    let short = |message: MessageDescriptor| {
        let same = method.parent_pool().all_messages().filter(|m| PACKAGES.contains(&m.package_name()) && m.name() == message.name());
        assert_eq!(same.count(), 1, "{}", message.full_name());
        message.name().to_owned()
    };
    format!(
        "{}{} -> {}{}   authorization{{{}}}",
        stream(method.is_client_streaming()),
        short(method.input()),
        stream(method.is_server_streaming()),
        short(method.output()),
        authorization(method)
    )
}

fn authorization(method: &MethodDescriptor) -> String {
    let extension = method.parent_pool().get_extension_by_name("openshell.options.v1.authorization").unwrap();
    let options = method.options();
    let rule = options.get_extension(&extension);
    let rule: &DynamicMessage = rule.as_message().unwrap();
    let message = rule.descriptor();
    let fields = message.fields().filter_map(|field| match rule.get_field(&field).as_ref() {
        Value::String(text) if !text.is_empty() => Some(format!("{}: \"{text}\"", field.name())),
        _ => None,
    });
    fields.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_wire_is_what_is_listed() {
    let (expected, actual) = (expected(), actual());
    assert!(expected.len() > 300 && expected.keys().filter(|k| k.starts_with("method ")).count() == 64, "{}", expected.len());
    let mut differences = Vec::new();
    for key in expected.keys().chain(actual.keys()).collect::<BTreeSet<_>>() {
        match (expected.get(key), actual.get(key)) {
            (Some(listed), Some(ours)) => {
                differences.extend(listed.difference(ours).map(|line| format!("{key}: missing: {line}")));
                differences.extend(ours.difference(listed).map(|line| format!("{key}: not listed: {line}")));
            }
            (Some(_), None) => differences.push(format!("{key}: missing")),
            (None, _) => differences.push(format!("{key}: not listed")),
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// What is secret by its option has a `Debug` that does not show it.
#[test]
fn secrets_are_not_printed() {
    let provider = openshell_proto::datamodel::Provider {
        credentials: [("KEY".to_owned(), "hunter2".to_owned())].into(),
        ..openshell_proto::datamodel::Provider::default()
    };
    assert!(!format!("{provider:?}").contains("hunter2"));
    let listed: BTreeSet<String> = pool()
        .all_messages()
        .filter(|m| m.fields().any(|f| field_line(&f).contains("[secret=True]")))
        .map(|m| m.full_name().to_owned())
        .collect();
    let redacted = include_str!("../src/redact.rs");
    for message in listed {
        let name = message.rsplit('.').next().unwrap();
        assert!(redacted.contains(name), "{message} has a secret field and no redacted Debug");
    }
}
