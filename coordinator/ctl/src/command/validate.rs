//! `regentctl validate`, and the showing of mistakes that `apply` shares.

use std::fmt::Write;
use std::fs;
use std::io::Read;

use clap::Args;
use regent_core::application::{Application, Mistake, parse};

use crate::failure::Failure;
use crate::output::say;

/// Checks a document here, without a coordinator, and shows the place of each mistake.
#[derive(Args)]
#[command(after_help = "\
All mistakes are shown at once. What only the group can know, such as a name that another application has, is checked
by `regentctl apply --dry-run`.

Examples:
  regentctl validate -f shop.yaml
  cat shop.yaml | regentctl validate -f -")]
pub(crate) struct Validate {
    /// The document; - is the standard input.
    #[arg(short, long, value_name = "FILE")]
    file: String,
}

impl Validate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let text = read(&self.file)?;
        let application = check(&self.file, &text)?;
        say(&format!("{}: the application {} is valid", shown(&self.file), application.name));
        Ok(())
    }
}

/// The text of a document.
pub(super) fn read(file: &str) -> Result<String, Failure> {
    let unreadable = |error| Failure::failed(format!("cannot read {}: {error}", shown(file)));
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        return Ok(text);
    }
    fs::read_to_string(file).map_err(unreadable)
}

/// A valid application, or all mistakes with their places. What is no mistake and may surprise is told beside the answer.
pub(super) fn check(file: &str, text: &str) -> Result<Application, Failure> {
    let application = parse(text).map_err(|mistakes| Failure::failed(show(shown(file), text, &mistakes)))?;
    for remark in application.remarks() {
        eprintln!("note: {remark}");
    }
    Ok(application)
}

fn shown(file: &str) -> &str {
    if file == "-" { "standard input" } else { file }
}

/// Like a compiler: file, line and column, the line itself, and a caret under the place.
fn show(file: &str, text: &str, mistakes: &[Mistake]) -> String {
    let mut out = match mistakes.len() {
        0 => format!("{file} is no Application document"),
        1 => format!("{file} has 1 mistake"),
        count => format!("{file} has {count} mistakes"),
    };
    for mistake in mistakes {
        let (line, column) = (mistake.line, mistake.column);
        let _ = write!(out, "\n\n{file}:{line}:{column}: {}", mistake.path);
        let source = usize::try_from(line).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?));
        let margin = line.to_string().len();
        if let Some(source) = source {
            // Tabs before the place stay tabs, so that the caret stands under it whatever their width.
            let before = usize::try_from(column.saturating_sub(1)).unwrap_or(0);
            let indent: String =
                source.chars().take(before).map(|sign| if sign == '\t' { '\t' } else { ' ' }).collect();
            let _ = write!(out, "\n {line} | {source}\n {:margin$} | {indent}^", "");
        }
        let _ = write!(out, "\n {:margin$} = {}", "", mistake.message);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place() {
        let mistake = Mistake { path: "spec.rto".into(), line: 2, column: 8, message: "not a length of time".into() };
        let text = "spec:\n  rto: soon\n";
        let expected =
            "a.yaml has 1 mistake\n\na.yaml:2:8: spec.rto\n 2 |   rto: soon\n   |        ^\n   = not a length of time";
        assert_eq!(show("a.yaml", text, &[mistake]), expected);
    }

    #[test]
    fn a_place_behind_the_end_is_told_without_its_line() {
        let mistake = Mistake { path: "spec".into(), line: 99, column: 1, message: "is missing".into() };
        assert_eq!(
            show("a.yaml", "kind: x\n", &[mistake]),
            "a.yaml has 1 mistake\n\na.yaml:99:1: spec\n    = is missing"
        );
    }
}
