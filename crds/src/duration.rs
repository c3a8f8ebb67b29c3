//! A length of time as Kubernetes writes it: `90s`, `2h`, `1h30m`.
//!
//! The text of `metav1.Duration` in the form that the Gateway API settled on (GEP-2257), without
//! its milliseconds: whole hours, minutes and seconds.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration as Span;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Each part at most once, the largest first: what GEP-2257 takes and people write.
const PATTERN: &str = "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$";

/// A length of time. It is written back as it was read, so that nobody sees a change that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duration {
    text: String,
    value: Span,
}

impl Duration {
    /// The duration that a text says. None: it says none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut value = Span::ZERO;
        let mut rest = text;
        for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((amount, after)) = rest.split_once(unit) else { continue };
            if amount.is_empty() || amount.len() > 5 || !amount.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            value += Span::from_secs(amount.parse::<u64>().ok()? * seconds);
            rest = after;
        }
        (rest.is_empty() && !text.is_empty()).then(|| Self { text: text.to_owned(), value })
    }

    /// How long it is.
    pub fn get(&self) -> Span {
        self.value
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a duration is a text such as 90s, 30m or 1h30m"))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 2, "maxLength": 18, "pattern": PATTERN })
    }
}

/// The bounds of a field, as a rule: `at_least` and `at_most` are durations themselves.
pub(crate) fn bounds(at_least: &str, at_most: &str) -> serde_json::Value {
    serde_json::json!([{
        "rule": format!("duration(self) >= duration('{at_least}') && duration(self) <= duration('{at_most}')"),
        "message": format!("it must be from {at_least} to {at_most}"),
    }])
}

#[cfg(test)]
mod tests {
    use super::{Duration, Span};

    #[test]
    fn the_text_stays_and_the_value_follows() {
        for (text, seconds) in [("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1h0m1s", 3601), ("99999h", 99_999 * 3600)] {
            let read = Duration::parse(text).map(|duration| (duration.get(), duration.to_string()));
            assert_eq!(read, Some((Span::from_secs(seconds), text.to_owned())));
        }
        for text in ["", "s", "90", "1.5h", "30m1h", "-1s", "1h 2m", "100000s", "1ms", "1d", "1h1h", "+1s", "１s"] {
            assert_eq!(Duration::parse(text), None, "{text}");
        }
    }
}
