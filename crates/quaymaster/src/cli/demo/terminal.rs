//! How the story looks: headings, commands as a person types them, and output folded to 80 columns.

use std::path::Path;

use super::super::CliError;
use crate::output::{self, Style, Tone};

/// How wide the story is.
const WIDTH: usize = 80;
/// What stands before output.
const INDENT: &str = "  ";

/// Says what will be seen, and the command that starts it.
pub(super) fn opening(manifests: &Path) -> Result<(), CliError> {
    let style = Style::of_stdout();
    output::print(&format!(
        "{}\n{}\n\n",
        style.paint(Tone::Strong, "Quaymaster, the real operator, on a simulated Docker inside this process."),
        "Nothing else on this machine is touched. The services are those of\nexamples/platform: 22, in six levels of dependencies.",
    ))?;
    heading(1, "Deploy: each service starts when what it needs is usable")?;
    command(&format!("quaymaster run --engine sim --manifests {}", manifests.display()))
}

pub(super) fn heading(number: u32, text: &str) -> Result<(), CliError> {
    let gap = if number > 1 { "\n" } else { "" };
    Ok(output::print(&format!("{gap}{}\n", Style::of_stdout().paint(Tone::Strong, &format!("{number}. {text}"))))?)
}

/// A command line as a person would type it.
pub(super) fn command(line: &str) -> Result<(), CliError> {
    let style = Style::of_stdout();
    let folded = fold(line, WIDTH - 8, "    ").join(" \\\n");
    Ok(output::print(&format!("{} {}\n", style.paint(Tone::Dim, "$"), style.paint(Tone::Strong, &folded)))?)
}

/// What a command printed.
pub(super) fn shown(text: &str) -> Result<(), CliError> {
    let mut out = String::new();
    for line in text.trim_end().lines() {
        let hang = " ".repeat(line.len() - line.trim_start().len() + 4);
        for folded in fold(line, WIDTH - INDENT.len(), &hang) {
            out.push_str(if folded.is_empty() { "" } else { INDENT });
            out.push_str(&folded);
            out.push('\n');
        }
    }
    Ok(output::print(&out)?)
}

/// What the story itself observed.
pub(super) fn told(tone: Tone, text: &str) -> Result<(), CliError> {
    let style = Style::of_stdout();
    let lines: Vec<String> = fold(text, WIDTH - INDENT.len(), "").iter().map(|line| style.paint(tone, line)).collect();
    Ok(output::print(&output::indent(&lines.join("\n"), INDENT))?)
}

/// The line over several, broken between words, later ones behind `hang`. Colours take no room.
fn fold(line: &str, width: usize, hang: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = line.to_owned();
    while visible(&rest) > width {
        let (mut room, mut cut, mut in_colour) = (width, None, false);
        let lead = rest.len() - rest.trim_start().len();
        for (at, c) in rest.char_indices() {
            match c {
                '\x1b' => in_colour = true,
                'm' if in_colour => in_colour = false,
                _ if in_colour => {}
                _ => {
                    if c == ' ' && at > lead {
                        cut = Some(at);
                    }
                    if room == 0 && cut.is_some() {
                        break;
                    }
                    room = room.saturating_sub(1);
                }
            }
        }
        // A word that is longer than a line stays whole.
        let Some(cut) = cut else { break };
        let tail = format!("{hang}{}", rest[cut..].trim_start());
        rest.truncate(cut);
        lines.push(rest.trim_end().to_owned());
        rest = tail;
    }
    lines.push(rest);
    lines
}

fn visible(text: &str) -> usize {
    let mut in_colour = false;
    let shows = |c: &char| {
        let was = in_colour;
        in_colour = *c == '\x1b' || in_colour && *c != 'm';
        !was && !in_colour
    };
    text.chars().filter(shows).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(fold("one two three", 80, ""), ["one two three"]);
        assert_eq!(fold("one two three", 8, "  "), ["one two", "  three"]);
        assert_eq!(fold("  a-word-that-is-too-long b", 8, ""), ["  a-word-that-is-too-long", "b"]);
        assert_eq!(fold("unbreakable", 4, ""), ["unbreakable"]);
        assert_eq!(fold("\x1b[32mone\x1b[0m two", 7, ""), ["\x1b[32mone\x1b[0m two"]);
        assert_eq!(visible("\x1b[1mbold\x1b[0m"), 4);
    }
}
