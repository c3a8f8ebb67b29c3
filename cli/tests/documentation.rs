//! The reference page is what the program says of itself.
#![allow(missing_docs, clippy::unwrap_used)] // Tests: a panic is their way to fail.

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");

#[test]
fn the_page_is_made_from_the_commands() {
    let made = openshell_cli::reference_page();
    if std::env::var_os("OPENSHELL_UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &made).unwrap();
    }
    let page = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(page == made, "docs/cli.md differs from the command; make it again with OPENSHELL_UPDATE_DOCS=1 cargo test -p openshell-cli");
}

#[test]
fn every_command_of_the_readme_exists() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap_or_default();
    // Between "```sh" and "```" stands what a reader types.
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).filter(|l| l.starts_with("openshell "));
    let mut seen = 0;
    for line in lines {
        // Without comments, pipes and shell expansions the words are arguments.
        let plain = line.split(" #").next().unwrap_or_default().split(" | ").next().unwrap_or_default();
        let words: Vec<String> = plain.split_whitespace().map(|w| w.trim_matches(['\'', '"', '\\']).to_owned()).collect();
        if let Err(error) = openshell_cli::command().try_get_matches_from(&words) {
            assert!(!error.use_stderr(), "{line}: {error}");
        }
        seen += 1;
    }
    assert!(seen >= 10, "the README shows {seen} commands");
}
