#![allow(clippy::unwrap_used)]

use clap::Parser as _;
use openshell_proto::value::object_from_wire;
use serde_json::json;

use super::*;
use crate::args::sandbox::SandboxCommand;
use crate::args::{Cli, Command};

fn args(flags: &[&str]) -> CreateArgs {
    let line = ["openshell", "sandbox", "create"].iter().chain(flags);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Sandbox(SandboxCommand::Create(args)) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_make_a_template() {
    assert_eq!(template(&mut args(&[]), None).unwrap(), None);
    let config = r#"{"kubernetes":{"pod":{"runtime_class_name":"crun"}}}"#;
    let made = template(&mut args(&["--from", "debian:12", "--cpu", "500m", "--memory", "1Gi", "--driver-config-json", config]), None);
    let made = made.unwrap().unwrap();
    assert_eq!(made.image, "debian:12");
    assert_eq!(json!(object_from_wire(&made.resources.unwrap())), json!({"limits": {"cpu": "500m", "memory": "1Gi"}}));
    assert_eq!(json!(object_from_wire(&made.driver_config.unwrap())).to_string(), config);
    let thousand = template(&mut args(&["--memory", "1000K"]), None).unwrap().unwrap();
    assert_eq!(json!(object_from_wire(&thousand.resources.unwrap())), json!({"limits": {"memory": "1000k"}}));
    assert_eq!((args(&["--gpu"]).gpu, args(&["--gpu=2"]).gpu, args(&[]).gpu), (Some(1), Some(2), None));
    assert!(Cli::try_parse_from(["openshell", "sandbox", "create", "--driver-config-json", "[]"]).is_err());
}

#[test]
fn what_from_means() {
    let image = |from: &str, registry| image(from.to_owned(), registry).map_err(|e| e.plain());
    for (from, registry, expected) in [
        ("debian:12", None, Some("debian:12")),
        ("registry.example.com/a/b", Some("r.example/x"), Some("registry.example.com/a/b")),
        ("base", Some("r.example/x/"), Some("r.example/x/base:latest")),
        ("base", None, None),
        ("./Dockerfile", None, None),
        ("/srv/image", None, None),
    ] {
        assert_eq!(image(from, registry).ok().as_deref(), expected, "{from}");
    }
}
