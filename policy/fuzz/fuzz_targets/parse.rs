//! Any text is answered: by a valid policy whose canonical form means the same, or by findings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openshell_policy::{from_json, from_yaml};

fuzz_target!(|bytes: &[u8]| {
    let _ = from_json(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match from_yaml(text) {
        Ok(policy) => {
            policy.validate().expect("what was parsed is valid");
            assert_eq!(from_json(&policy.canonical_json()).expect("the canonical form is a policy"), policy);
        }
        Err(error) => assert!(!error.findings.is_empty()),
    }
});
