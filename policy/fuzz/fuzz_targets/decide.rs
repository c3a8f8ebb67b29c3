//! Index and rules agree about any policy and any question: the text up to the first NUL is the
//! policy, the rest are executable, host, method and path, separated by NUL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openshell_policy::{Engine, Process, RequestFacts, from_yaml};

fuzz_target!(|text: &str| {
    let mut parts = text.split('\0');
    let mut next = || parts.next().unwrap_or_default();
    let Ok(policy) = from_yaml(next()) else { return };
    let Ok(engine) = Engine::compile(&policy) else { panic!("a valid policy compiles") };
    let authority = engine.authority().expect("the rules load");
    let (path, host, method, request) = (next(), next(), next(), next());
    let process = Process { path, ancestors: &[] };
    let facts = RequestFacts { method, path: request, query: &[] };
    for port in [443, 80] {
        assert_eq!(engine.connect(process, host, port), authority.connect(process, host, port).expect("the rules answer"));
        assert_eq!(engine.request(process, host, port, facts), authority.request(process, host, port, facts).expect("the rules answer"));
    }
});
