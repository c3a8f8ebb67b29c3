//! Names of sandboxes: the rule for given ones, and invented ones.

use sha2::Digest as _;

use crate::limits::NAME_LENGTH;

/// Why this is no name for a sandbox; `None` when it is one. Host names of a sandbox's services
/// are `<name>--<service>`, hence the length and the rule about two hyphens.
pub(super) fn wrong(name: &str) -> Option<String> {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    if bytes.len() > NAME_LENGTH {
        return Some(format!("it has {} characters; a name has at most {NAME_LENGTH}", bytes.len()));
    }
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if !inner || !edge(bytes.first()) || !edge(bytes.last()) {
        return Some("a name has lower-case letters, digits and '-', and begins and ends with a letter or digit".to_owned());
    }
    name.contains("--").then(|| "a name must not contain '--'".to_owned())
}

/// A name of two words. The same seed and attempt give the same name, so that a repeated
/// request finds what it made.
pub(super) fn invent(seed: &[u8], attempt: u8) -> String {
    let digest = sha2::Sha256::new().chain_update(seed).chain_update([attempt]).finalize();
    let first = FIRST[usize::from(digest[0]) % FIRST.len()];
    let second = SECOND[usize::from(digest[1]) % SECOND.len()];
    // Most collisions happen on machines with many sandboxes: later attempts get digits.
    match attempt {
        0 | 1 => format!("{first}-{second}"),
        _ => format!("{first}-{second}-{}", u16::from_be_bytes([digest[2], digest[3]]) % 1000),
    }
}

const FIRST: [&str; 64] = [
    "able", "amber", "apt", "azure", "bold", "brave", "brisk", "bright", "calm", "clear", "clever", "cool", "coral", "crisp", "dapper",
    "deft", "eager", "early", "easy", "exact", "fair", "fast", "fine", "firm", "fresh", "gentle", "glad", "golden", "grand", "green",
    "happy", "hardy", "ivory", "jolly", "keen", "kind", "lively", "lucid", "lucky", "mellow", "merry", "mild", "neat", "nimble", "noble",
    "plain", "prime", "proud", "quick", "quiet", "rapid", "ready", "robust", "royal", "sharp", "silver", "smart", "solid", "steady",
    "sunny", "swift", "tidy", "vivid", "warm",
];

const SECOND: [&str; 64] = [
    "acorn", "alder", "aspen", "badger", "beaver", "birch", "bison", "brook", "cedar", "cliff", "clover", "comet", "crane", "cypress",
    "delta", "dolphin", "dune", "eagle", "ember", "falcon", "fern", "finch", "fjord", "forest", "fox", "garnet", "gecko", "geyser",
    "glade", "harbor", "hare", "hawk", "hazel", "heron", "island", "jasper", "juniper", "kestrel", "lagoon", "lark", "lemur", "lotus",
    "lynx", "maple", "marlin", "meadow", "otter", "panda", "pebble", "pine", "plover", "quartz", "raven", "reef", "river", "robin",
    "sparrow", "spruce", "summit", "thrush", "tulip", "valley", "willow", "wren",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        for good in ["a", "web-1", "0", "a23456789012345678b"] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a_b", "a.b", "a23456789012345678bc", "ä", "a b", "../x"] {
            assert!(wrong(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn every_invented_name_keeps_the_rule() {
        for seed in 0..2000_u32 {
            for attempt in 0..4 {
                let name = invent(&seed.to_be_bytes(), attempt);
                assert_eq!(wrong(&name), None, "{name}");
            }
        }
        assert_eq!(invent(b"x", 0), invent(b"x", 0));
    }
}
