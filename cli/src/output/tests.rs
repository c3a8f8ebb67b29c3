//! Tables and the text in them.

use super::table::{Details, Table};
use super::{clean, clean_line, span};

#[test]
fn columns_are_as_wide_as_needed() {
    let mut table = Table::new(["name", "phase"]);
    table.row(["a", "Ready"]);
    table.row(["a-long-name", ""]);
    assert_eq!(table.render(), "NAME         PHASE\na            Ready\na-long-name  -\n");
}

#[test]
fn details_line_up_and_leave_out_what_is_empty() {
    let mut details = Details::default();
    details.add("Name", "a");
    details.add("Empty", "");
    details.add("Endpoints", "one\ntwo");
    assert_eq!(details.render(), "Name:      a\nEndpoints: one\n           two\n");
}

#[test]
fn control_characters_become_visible() {
    assert_eq!(clean("a\nb\tc\u{1b}[0m\r\u{9b}"), "a\nb\tc\\u{1b}[0m\\r\\u{9b}");
    assert_eq!(clean_line("a\nb"), "a\\nb");
    assert_eq!(clean("safe\u{202e}elif.exe"), "safe\\u{202e}elif.exe");
    assert_eq!(clean("grün 日本"), "grün 日本");
}

#[test]
fn ages_are_short() {
    let cases = [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (172_799, "47h"),
        (172_800, "2d"),
    ];
    for (seconds, text) in cases {
        assert_eq!(span(seconds), text, "{seconds}");
    }
}
