//! Framing and targets: pieces do not matter, and canonical is canonical.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openshell_supervisor::egress::http::{
    lint::Lint,
    target::{EncodedSlash, canonical_path, query_parameters},
};

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Lint::default();
    let verdict = whole.feed(bytes);
    let mut single = Lint::default();
    assert_eq!(verdict, bytes.iter().try_for_each(|byte| single.feed(std::slice::from_ref(byte))));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = query_parameters(text);
    for slashes in [EncodedSlash::Refuse, EncodedSlash::Keep] {
        if let Ok(path) = canonical_path(text, slashes) {
            assert_eq!(canonical_path(&path.encoded, slashes).as_ref(), Ok(&path));
            assert!(path.text == "*" || path.text.split('/').all(|segment| segment != ".."));
        }
    }
});
