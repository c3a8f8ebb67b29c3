//! `docs/cli.md` from the command tree, so that the page cannot differ from the program.

use std::fmt::Write as _; // Into a String, which cannot fail.

use clap::{Arg, ArgAction, Command};

/// The page.
pub(crate) fn markdown(mut command: Command) -> String {
    command.build();
    let mut page = String::from("# The `openshell` command\n\nMade from the command's own definitions; a test compares them.\n\n");
    page.push_str(&about(&command));
    page.push_str("\n## Global options\n\n");
    page.push_str(&options(command.get_arguments().filter(|a| !is_builtin(a))));
    page.push_str(
        "\n## Exit codes\n\n\
         | Code | Meaning |\n|---|---|\n\
         | the command's own | `sandbox create -- COMMAND`, `sandbox exec`, `sandbox connect` |\n\
         | 0 | done |\n| 1 | an error; standard error says what, why and what to do next |\n\
         | 2 | wrong usage |\n| 124 | a timeout |\n| 128 + n | ended by signal n |\n",
    );
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        section(&mut page, sub, "openshell");
    }
    page
}

fn section(page: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let groups: Vec<&Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
    let _ = write!(page, "\n## `{name}`\n\n");
    page.push_str(&about(command));
    let aliases: Vec<String> = command.get_visible_aliases().map(|a| format!("`{a}`")).collect();
    if !aliases.is_empty() {
        let _ = write!(page, "\nAlias: {}\n", aliases.join(", "));
    }
    if groups.is_empty() {
        let usage = command.clone().render_usage().to_string();
        let _ = write!(page, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: "));
    }
    let own: Vec<&Arg> = command.get_arguments().filter(|a| !a.is_global_set() && !is_builtin(a)).collect();
    if !own.is_empty() {
        page.push('\n');
        page.push_str(&options(own.into_iter()));
    }
    for sub in groups {
        section(page, sub, &name);
    }
}

fn is_builtin(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version") || arg.is_hide_set()
}

fn about(command: &Command) -> String {
    let text = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    format!("{}\n", text.trim_end())
}

fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut table = String::from("| Option | Meaning |\n|---|---|\n");
    for arg in arguments {
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut meaning = help.replace('\n', " ").replace('|', "\\|");
        let values: Vec<String> =
            arg.get_possible_values().iter().filter(|v| !v.is_hide_set()).map(|v| format!("`{}`", v.get_name())).collect();
        if takes_value(arg) && !values.is_empty() {
            let _ = write!(meaning, ": {}", values.join(", "));
        }
        let defaults: Vec<String> = arg.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
        if takes_value(arg) && !defaults.is_empty() {
            let _ = write!(meaning, " (default {})", defaults.join(", "));
        }
        if let Some(variable) = arg.get_env() {
            let _ = write!(meaning, " (environment `{}`)", variable.to_string_lossy());
        }
        let _ = writeln!(table, "| `{}` | {meaning} |", spelling(arg));
    }
    table
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn spelling(arg: &Arg) -> String {
    let value = arg.get_value_names().map(|n| n.join(" ")).unwrap_or_default();
    let mut names: Vec<String> = arg.get_short().map(|s| format!("-{s}")).into_iter().collect();
    names.extend(arg.get_long().map(|l| format!("--{l}")));
    let repeated = if matches!(arg.get_action(), ArgAction::Append) { "…" } else { "" };
    if names.is_empty() {
        let many = if arg.get_num_args().is_some_and(|n| n.max_values() > 1) { "…" } else { "" };
        return format!("{value}{many}");
    }
    let flag = names.join(", ");
    if takes_value(arg) { format!("{flag} {value}{repeated}") } else { flag }
}
