//! Which gateway is meant, from which files.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Bundle, Config, Source, Wanted};
use crate::args::Global;
use crate::context::Context;
use crate::env::Environment;
use crate::session::{Found, Startable, find};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn register(&self, root: &str, name: &str, endpoint: &str) {
        self.write(&format!("{root}/gateways/{name}/metadata.json"), &format!(r#"{{"name":"{name}","gateway_endpoint":"{endpoint}"}}"#));
    }

    fn environment(&self, more: &[(&str, &str)]) -> Environment {
        let mut variables: BTreeMap<String, String> = more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let path = |p: &str| self.0.path().join(p).display().to_string();
        variables.insert("HOME".into(), path("home"));
        variables.insert("XDG_CONFIG_HOME".into(), path("config"));
        variables.insert("OPENSHELL_SYSTEM_GATEWAY_DIR".into(), path("etc"));
        Environment::from_variables(variables).expect("usable variables")
    }

    fn context(&self, flags: Global, more: &[(&str, &str)]) -> Context {
        Context::new(flags, self.environment(more)).expect("there is a home")
    }
}

fn named(name: &str) -> Global {
    Global { gateway: Some(name.to_owned()), ..Global::default() }
}

#[test]
fn a_flag_beats_the_environment_and_that_beats_the_files() {
    let home = Home::new();
    home.write("config/openshell/active_gateway", "user\n");
    home.write("etc/active_gateway", "system\n");
    let wanted = |flags: &Global, more: &[(&str, &str)]| {
        let context = home.context(flags.clone(), more);
        context.config.wanted(flags, &context.environment).expect("readable")
    };
    let both = [("OPENSHELL_GATEWAY", "env"), ("OPENSHELL_GATEWAY_ENDPOINT", "https://env:1")];
    let endpoint = Global { gateway_endpoint: Some("https://flag:1".into()), gateway: Some("flag".into()), ..Global::default() };
    assert_eq!(wanted(&endpoint, &both), Wanted::Endpoint("https://flag:1".into()));
    assert_eq!(wanted(&named("flag"), &both), Wanted::Named("flag".into(), "--gateway"));
    assert_eq!(wanted(&Global::default(), &both), Wanted::Endpoint("https://env:1".into()));
    assert_eq!(wanted(&Global::default(), &both[..1]), Wanted::Named("env".into(), "OPENSHELL_GATEWAY"));
    assert_eq!(wanted(&Global::default(), &[("OPENSHELL_GATEWAY", "")]), Wanted::Named("user".into(), "active_gateway"));
    home.write("config/openshell/active_gateway", " \n");
    assert_eq!(wanted(&Global::default(), &[]), Wanted::Named("system".into(), "active_gateway"));
    home.write("etc/active_gateway", "");
    assert_eq!(wanted(&Global::default(), &[]), Wanted::Nothing);
}

#[test]
fn a_users_registration_hides_the_machines() {
    let home = Home::new();
    home.register("etc", "a", "https://system:1");
    home.register("etc", "b", "https://system:2");
    home.register("config/openshell", "a", "https://user:1");
    let config = home.context(Global::default(), &[]).config;
    let all = config.gateways().expect("readable");
    let found: Vec<_> = all.iter().map(|g| (g.name.as_str(), g.metadata.gateway_endpoint.as_str(), g.source)).collect();
    assert_eq!(found, [("a", "https://user:1", Source::User), ("b", "https://system:2", Source::System)]);
}

#[test]
fn directories_fall_back_to_home_and_relative_ones_are_ignored() {
    let env = |pairs: &[(&str, &str)]| {
        let variables = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment::from_variables(variables).expect("usable variables")
    };
    let plain = env(&[("HOME", "/h")]);
    assert_eq!(plain.config_dir.as_deref(), Some(Path::new("/h/.config/openshell")));
    assert_eq!(plain.state_dir.as_deref(), Some(Path::new("/h/.local/state/openshell")));
    let relative = env(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "here")]);
    assert_eq!(relative.config_dir.as_deref(), Some(Path::new("/h/.config/openshell")));
    assert!(env(&[]).config_dir.is_none());
    assert_eq!(Config::new(&env(&[])).expect_err("no place").stable_code(), "no-home");
}

#[test]
fn an_unknown_gateway_names_the_known_ones() {
    let home = Home::new();
    home.register("config/openshell", "work", "https://a:1");
    let text = find(&home.context(named("wrok"), &[])).expect_err("not registered").plain();
    assert!(text.contains("There is no gateway wrok.") && text.contains("--gateway") && text.contains("Registered are: work."), "{text}");
    for bad in ["../x", "a/b", "", ".hidden"] {
        assert_eq!(find(&home.context(named(bad), &[])).expect_err(bad).stable_code(), "usage", "{bad}");
    }
}

#[test]
fn only_the_gateway_of_this_machine_may_be_started() {
    let home = Home::new();
    assert!(matches!(find(&home.context(Global::default(), &[])), Ok(Found::NothingConfigured)));
    home.write("config/openshell/active_gateway", "openshell");
    assert!(matches!(find(&home.context(Global::default(), &[])), Ok(Found::NothingConfigured)), "its registration is gone");
    home.register("config/openshell", "openshell", "https://127.0.0.1:1");
    home.register("config/openshell", "far", "https://far:1");
    assert!(matches!(find(&home.context(Global::default(), &[])), Ok(Found::Gateway(_, Startable::Yes))));
    assert!(matches!(find(&home.context(named("far"), &[])), Ok(Found::Gateway(_, Startable::No))));
    home.write("config/openshell/gateways/openshell/metadata.json", r#"{"gateway_endpoint":"https://x:1","is_remote":true}"#);
    assert!(matches!(find(&home.context(Global::default(), &[])), Ok(Found::Gateway(_, Startable::No))), "one of that name elsewhere");
}

#[test]
fn a_bundle_is_whole_or_an_error() {
    let home = Home::new();
    home.register("config/openshell", "a", "https://a:1");
    let bundle = || home.context(Global::default(), &[]).config.gateway("a").expect("readable").expect("registered").bundle();
    assert_eq!(bundle().expect("none is fine"), Bundle::default());
    home.write("config/openshell/gateways/a/mtls/ca.crt", "ca");
    assert_eq!(bundle().expect("a CA alone is fine").identity, None);
    home.write("config/openshell/gateways/a/mtls/tls.crt", "crt");
    let text = bundle().expect_err("no key").plain();
    assert!(text.contains("tls.key is missing"), "{text}");
    home.write("config/openshell/gateways/a/mtls/tls.key", "key");
    assert_eq!(bundle().expect("whole").identity, Some((b"crt".to_vec(), b"key".to_vec())));
}

#[test]
fn a_broken_registration_says_which_file() {
    let home = Home::new();
    home.write("config/openshell/gateways/a/metadata.json", "{");
    let text = find(&home.context(named("a"), &[])).expect_err("no JSON").plain();
    assert!(text.contains("openshell::bad-registration") && text.contains("gateways/a/metadata.json"), "{text}");
    home.write("config/openshell/gateways/a/metadata.json", r#"{"gateway_endpoint":"https://a:1","auth_mode":"oidc"}"#);
    let text = find(&home.context(named("a"), &[])).expect_err("not yet").plain();
    assert!(text.contains("openshell::not-supported-yet") && text.contains("`oidc`"), "{text}");
}

#[test]
fn addresses_are_judged_before_they_are_dialled() {
    let home = Home::new();
    let at = |endpoint: &str, insecure: bool| {
        let flags = Global { gateway_endpoint: Some(endpoint.into()), gateway_insecure: insecure, ..Global::default() };
        match find(&home.context(flags, &[])) {
            Ok(Found::Gateway(gateway, _)) => Ok(gateway.endpoint),
            Ok(Found::NothingConfigured) => panic!("an address is something"),
            Err(error) => Err(error.stable_code().to_owned()),
        }
    };
    assert_eq!(at("gateway.example.com:1", false).as_deref(), Ok("https://gateway.example.com:1"));
    assert_eq!(at("http://127.0.0.1:1", false).as_deref(), Ok("http://127.0.0.1:1"));
    assert_eq!(at("http://[::1]:1", false).as_deref(), Ok("http://[::1]:1"));
    assert_eq!(at("http://10.0.0.1:1", false), Err("plaintext".into()));
    assert_eq!(at("http://10.0.0.1:1", true).as_deref(), Ok("http://10.0.0.1:1"));
    for bad in ["ftp://a", "https://", "https://a b", ""] {
        assert_eq!(at(bad, false), Err("usage".into()), "{bad}");
    }
}

#[test]
fn the_last_sandbox_belongs_to_a_gateway_and_a_workspace() {
    let home = Home::new();
    let config = home.context(Global::default(), &[]).config;
    assert_eq!(config.last_sandbox("g", "w"), None);
    config.remember_sandbox("g", "w", "one");
    assert_eq!(config.last_sandbox("g", "w").as_deref(), Some("one"));
    assert_eq!(config.last_sandbox("g", "other"), None);
    assert_eq!(config.last_sandbox("other", "w"), None);
    config.forget_sandbox("g", "w", "another");
    assert_eq!(config.last_sandbox("g", "w").as_deref(), Some("one"));
    config.forget_sandbox("g", "w", "one");
    assert_eq!(config.last_sandbox("g", "w"), None);
}

#[test]
fn insecure_is_on_only_where_the_variable_says_so() {
    let home = Home::new();
    for (value, expected) in [("1", true), ("true", true), ("yes", true), ("0", false), ("false", false), ("No", false), ("", false)] {
        assert_eq!(home.context(Global::default(), &[("OPENSHELL_GATEWAY_INSECURE", value)]).insecure(), expected, "{value:?}");
    }
}

#[test]
fn a_variable_that_cannot_be_meant_is_an_error() {
    for (name, value) in
        [("OPENSHELL_GATEWAY_INSECURE", "flase"), ("OPENSHELL_PROVISION_TIMEOUT", "5m"), ("OPENSHELL_LIFECYCLE_TIMEOUT", "-1")]
    {
        let refused = Environment::from_variables([(name.to_owned(), value.to_owned())].into()).expect_err(name);
        assert_eq!(refused.stable_code(), "usage");
        assert!(refused.plain().contains(&format!("{name} is `{value}`")), "{}", refused.plain());
    }
}
