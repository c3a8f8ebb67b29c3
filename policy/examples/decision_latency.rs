//! How long a decision takes: `cargo run --release -p openshell-policy --example decision_latency`.
//!
//! Three policies (the agent of `tests/good/rest.yaml`, one with a hundred endpoints of a team, one at
//! the bounds of the language), asked about connections and requests that are allowed, denied and
//! unknown, in a random order. Prints p50, p99 and the largest time of each in nanoseconds, and for
//! comparison what the rules in Rego take. Exit code 1 if a p99 is above the promised 10 µs.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use openshell_policy::{Engine, Process, RequestFacts, from_yaml};

/// Promised in `docs/SPECIFICATION.md`.
const LIMIT_NANOS: u128 = 10_000;
const ROUNDS: usize = 200_000;
const RULE_ROUNDS: usize = 50;

fn main() -> ExitCode {
    let mut held = true;
    for (name, text) in
        [("agent", include_str!("../tests/good/rest.yaml").to_owned()), ("team", generated(20, 5, 10)), ("bounds", generated(100, 8, 16))]
    {
        let started = Instant::now();
        let parsed = from_yaml(&text).is_ok();
        println!("{name:7} {:>6} bytes, {} in {:?}", text.len(), if parsed { "parsed" } else { "refused" }, started.elapsed());
        let started = Instant::now();
        let engine = match from_yaml(&text).map_err(|e| e.to_string()).and_then(|p| Engine::compile(&p).map_err(|e| e.to_string())) {
            Ok(engine) => engine,
            Err(e) => {
                println!("{name}: {e}");
                return ExitCode::FAILURE;
            }
        };
        println!("{name:7} {:>6} bytes, parsed and compiled in {:?}", text.len(), started.elapsed());
        let started = Instant::now();
        let verified = engine.verify();
        println!("{name:7} against the rules: {verified:?}, in {:?}", started.elapsed());
        let authority = match engine.authority() {
            Ok(authority) => authority,
            Err(e) => {
                println!("{name}: {e}");
                return ExitCode::FAILURE;
            }
        };
        let questions = questions();
        let mut order = Order(0x9e37_79b9_7f4a_7c15);
        held &= report(name, "connect", ROUNDS, LIMIT_NANOS, || {
            let (process, host, port, _) = questions[order.next(questions.len())];
            let process = Process { path: process, ancestors: &[] };
            let started = Instant::now();
            black_box(engine.connect(process, black_box(host), port));
            started.elapsed().as_nanos()
        });
        held &= report(name, "request", ROUNDS, LIMIT_NANOS, || {
            let (process, host, port, facts) = questions[order.next(questions.len())];
            let process = Process { path: process, ancestors: &[] };
            let started = Instant::now();
            black_box(engine.request(process, black_box(host), port, facts));
            started.elapsed().as_nanos()
        });
        report(name, "rules", RULE_ROUNDS, u128::MAX, || {
            let (process, host, port, facts) = questions[order.next(questions.len())];
            let process = Process { path: process, ancestors: &[] };
            let started = Instant::now();
            let _ = black_box(authority.request(process, black_box(host), port, facts));
            started.elapsed().as_nanos()
        });
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(policy: &str, what: &str, rounds: usize, limit: u128, mut once: impl FnMut() -> u128) -> bool {
    let mut nanos: Vec<u128> = (0..rounds).map(|_| once()).collect();
    nanos.sort_unstable();
    let (p50, p99, most) = (nanos[rounds / 2], nanos[rounds * 99 / 100], nanos[rounds - 1]);
    println!("{policy:7} {what:8} p50 {p50:>8} ns   p99 {p99:>8} ns   max {most:>9} ns");
    p99 <= limit
}

/// A small generator (xorshift64): the order has to be the same in every run.
struct Order(u64);

impl Order {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

type Question = (&'static str, &'static str, u16, RequestFacts<'static>);

fn questions() -> Vec<Question> {
    let query: &'static [(String, String)] =
        Vec::leak(vec![("q".to_owned(), "repo:acme/x".to_owned()), ("sort".to_owned(), "created".to_owned())]);
    let mut questions = Vec::new();
    for process in ["/usr/bin/git", "/usr/local/bin/agent-7", "/usr/bin/python3.12", "/bin/sh"] {
        for host in
            ["api.forge.example", "files.pypi.example", "svc-7.team-3.example.com", "a.b.wild-2.example.com", "evil.example", "10.1.2.3"]
        {
            for (method, path) in [
                ("GET", "/repos/acme/tools/contents/src/main.rs"),
                ("POST", "/repos/acme/tools/pulls"),
                ("DELETE", "/repos/acme/secrets/token"),
                ("GET", "/search/issues"),
                ("PUT", "/v1/area-9/items/1234567890/things/abcdef/x/y/z"),
            ] {
                questions.push((process, host, 443, RequestFacts { method, path, query }));
            }
        }
    }
    questions
}

fn generated(policies: usize, endpoints: usize, rules: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("version: 1\nnetwork_policies:\n");
    for p in 0..policies {
        let _ = write!(
            text,
            "  team-{p}:\n    binaries: [{{ path: /usr/bin/git }}, {{ path: \"/usr/bin/python3*\" }}, {{ path: \"/opt/**\" }}]\n    endpoints:\n"
        );
        for e in 0..endpoints {
            let host = if e == 0 { format!("\"**.wild-{p}.example.com\"") } else { format!("svc-{e}.team-{p}.example.com") };
            let _ = writeln!(text, "      - {{ host: {host}, port: 443, protocol: rest, enforcement: enforce, rules: [");
            // Together within the largest policy text.
            for r in 0..rules.min(180_000 / (policies * endpoints * 80)) {
                let _ = writeln!(text, "          {{ allow: {{ method: GET, path: \"/v1/area-{r}/*/things/**\" }} }},");
            }
            let _ = writeln!(text, "          {{ allow: {{ method: POST, path: \"/**/comments\" }} }}] }}");
        }
    }
    text
}
