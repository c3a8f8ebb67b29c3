//! Where credentials come from.

use std::collections::BTreeMap;

use super::{KNOWN, existing};
use crate::args::Global;
use crate::context::Context;
use crate::env::Environment;

fn context(variables: &[(&str, &str)]) -> Context {
    let mut all: BTreeMap<String, String> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert("HOME".into(), "/h".into());
    Context::new(Global::default(), Environment::from_variables(all).expect("usable variables")).expect("there is a home")
}

#[test]
fn what_programs_of_a_type_use_is_found() {
    let found = existing(&context(&[("GH_TOKEN", "a"), ("GITHUB_TOKEN", ""), ("OTHER", "b")]), "github").expect("one is set");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("GH_TOKEN".to_owned(), "a".to_owned())]);
    assert_eq!(existing(&context(&[]), "github").expect_err("none is set").stable_code(), "no-credential");
    assert_eq!(existing(&context(&[]), "generic").expect_err("not known").stable_code(), "usage");
}

#[test]
fn types_are_known_once() {
    let mut names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
    names.dedup();
    assert_eq!(names.len(), KNOWN.len());
}
