//! The reference of the command line as Markdown, made from clap. `docs/cli.md` is this text; a test compares them.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// How `docs/cli.md` is renewed.
#[cfg(test)]
pub(crate) const RENEW: &str = "cargo run -q -p quaymaster -- docs > docs/cli.md";

/// The whole reference.
pub(crate) fn markdown(root: &Command) -> String {
    let mut root = root.clone();
    root.build();
    let mut out = String::from("# The command line\n\n");
    let _ = writeln!(out, "{}.\n", root.get_about().map(ToString::to_string).unwrap_or_default());
    if let Some(after) = root.get_after_help() {
        let _ = writeln!(out, "```text\n{after}\n```\n");
    }
    let commands = leaves(&root, "");
    out.push_str("| Command | What it does |\n|---|---|\n");
    for (name, command) in &commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "| [`{name}`](#quaymaster-{}) | {about} |", name.replace(' ', "-"));
    }
    commands.iter().for_each(|(name, command)| section(&mut out, name, command));
    out
}

/// The commands that do something, each with all its words.
fn leaves<'a>(command: &'a Command, above: &str) -> Vec<(String, &'a Command)> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    shown
        .flat_map(|command| {
            let name = format!("{above}{}", command.get_name());
            if command.has_subcommands() { leaves(command, &format!("{name} ")) } else { vec![(name, command)] }
        })
        .collect()
}

fn section(out: &mut String, name: &str, command: &Command) {
    let _ = writeln!(out, "\n## quaymaster {name}\n");
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    for paragraph in about.split("\n\n") {
        let _ = writeln!(out, "{}{}\n", paragraph.trim(), if paragraph.trim().ends_with('.') { "" } else { "." });
    }
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(out, "```text\n{}\n```\n", usage.trim_start_matches("Usage: "));
    let args: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help").collect();
    if !args.is_empty() {
        out.push_str("| Argument | |\n|---|---|\n");
        args.iter().for_each(|arg| row(out, arg));
        out.push('\n');
    }
    if let Some(after) = command.get_after_help() {
        let examples = after.to_string();
        let _ = writeln!(
            out,
            "```sh\n{}\n```",
            examples.trim_start_matches("Examples:\n").lines().map(str::trim).collect::<Vec<_>>().join("\n")
        );
    }
}

fn row(out: &mut String, arg: &Arg) {
    let takes = arg.get_action().takes_values();
    let value = arg.get_value_names().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")).unwrap_or_default();
    let mut spelling = Vec::new();
    if let Some(short) = arg.get_short() {
        spelling.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        spelling.push(format!("--{long}"));
    }
    let spelled = match (spelling.is_empty(), takes) {
        (true, _) => value,
        (false, true) => format!("{} {value}", spelling.join(", ")),
        (false, false) => spelling.join(", "),
    };
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if takes {
        let values: Vec<String> =
            arg.get_possible_values().iter().filter(|value| !value.is_hide_set()).map(|value| format!("`{}`", value.get_name())).collect();
        if !values.is_empty() {
            let _ = write!(text, "; one of {}", values.join(", "));
        }
        let defaults: Vec<String> = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        if !defaults.is_empty() {
            let _ = write!(text, "; default `{}`", defaults.join(" "));
        }
        if let Some(env) = arg.get_env() {
            let _ = write!(text, "; environment `{}`", env.to_string_lossy());
        }
    }
    let _ = writeln!(out, "| `{spelled}` | {} |", text.replace('|', "\\|"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_reference_is_up_to_date() {
        let path = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"))
            .join("../../docs/cli.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == markdown(&super::super::Cli::command()), "docs/cli.md is stale; renew it with `{RENEW}`");
    }
}
