//! The command line as it is parsed.

use clap::{CommandFactory as _, Parser as _};

use super::sandbox::{SandboxCommand, TtyChoice};
use super::value::{Credential, Destination, KeyValue, ago};
use super::{Cli, Command};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("openshell").chain(line.split_whitespace()))
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn commands_and_their_aliases() {
    for line in [
        "sb create -- true",
        "sandbox create --name a --policy p.yaml --provider x --provider y --env A=b --label c=d --no-keep -- sh -c x",
        "sandbox create --detach -o json",
        "sandbox exec -n a --workdir /w --timeout 3 --env A=b ls -la --color",
        "sandbox exec -- ls",
        "sandbox delete a b",
        "sandbox delete --all",
        "sandbox connect",
        "sandbox stop",
        "logs a -n 5 --tail --since 5m --source sandbox --source gateway --level warn",
        "lg -f",
        "pol set a --policy f --wait --timeout 3",
        "policy get --rev 2 --full -o yaml",
        "policy check -f x",
        "provider create --name a --type github --credential GITHUB_TOKEN",
        "provider create --name a --type generic --credential A=b --config C=d --endpoint api.example.com:443/v1",
        "apply -f a -f b",
        "get ossb a -o yaml",
        "delete -f a",
        "delete ossb a b",
        "gw start --port 1 --driver process",
        "gateway select a",
        "status -o json",
        "dr",
        "completions bash",
        "-g a --workspace w sandbox list",
        "sandbox list -g a --gateway-endpoint https://x --gateway-insecure -vv",
    ] {
        parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[test]
fn what_is_not_implemented_is_not_accepted() {
    for line in [
        "sandbox create --upload x",
        "sandbox create --editor vscode",
        "policy set a --policy f --global",
        "gateway start --remote a@b",
        "provider create --name a --type x --runtime-credentials",
        "term",
        "sandbox exec",
        "sandbox list --limit 0",
        "sandbox list --limit 1001",
        "logs --level loud",
        "logs --since yesterday",
        "apply",
        "get",
        "delete",
        "delete ossb",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn the_terminal_is_asked_for_refused_or_left_to_us() {
    for (flags, expected) in [
        ("", TtyChoice::Auto),
        ("--tty", TtyChoice::Always),
        ("--no-tty", TtyChoice::Never),
        ("--tty --no-tty", TtyChoice::Never),
        ("--no-tty --tty", TtyChoice::Always),
    ] {
        let Command::Sandbox(SandboxCommand::Exec(args)) = parse(&format!("sandbox exec {flags} -- ls")).expect(flags).command else {
            panic!("another command")
        };
        assert_eq!(args.tty.choice(), expected, "{flags}");
    }
}

#[test]
fn key_values() {
    let parse = |t: &str| t.parse::<KeyValue>().map(|p| (p.key, p.value));
    assert_eq!(parse("A=b=c"), Ok(("A".into(), "b=c".into())));
    assert_eq!(parse("A="), Ok(("A".into(), String::new())));
    assert!(parse("A").is_err());
    assert!(parse("=b").is_err());
}

#[test]
fn credentials_do_not_show_their_value() {
    let credential: Credential = "KEY=hunter2".parse().expect("it has both parts");
    assert_eq!(credential.value.as_deref(), Some("hunter2"));
    assert!(!format!("{credential:?}").contains("hunter2"));
    assert_eq!("KEY".parse::<Credential>().expect("a name alone is one").value, None);
    assert!("KEY=".parse::<Credential>().is_err());
    assert!("=x".parse::<Credential>().is_err());
}

#[test]
fn destinations() {
    for good in ["api.example.com", "api.example.com:8443", "api.example.com/v1/x", "*.example.com:443/v1", "[::1]:80", "10.0.0.1:80"] {
        assert!(good.parse::<Destination>().is_ok(), "{good}");
    }
    for bad in ["", ":443", "https://a.com", "a.com:0", "a.com:70000", "a.com:x", "a.com,b.com", "a b", "::1", "/path"] {
        assert!(bad.parse::<Destination>().is_err(), "{bad}");
    }
}

#[test]
fn ages() {
    let seconds = |t: &str| ago(t).map(|d| d.as_secs());
    assert_eq!((seconds("30s"), seconds("5m"), seconds("2h"), seconds("1d")), (Ok(30), Ok(300), Ok(7200), Ok(86_400)));
    for bad in ["", "5", "m", "-1m", "1w", "1.5h", "99999999999999999999d", "18446744073709551615d"] {
        assert!(ago(bad).is_err(), "{bad}");
    }
}
