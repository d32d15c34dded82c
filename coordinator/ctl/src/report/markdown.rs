//! Markdown.

use std::fmt::Write;

use regent_proto::operator::v1 as wire;

use super::{STALE_ANSWERS, TIMELINE, facts, no_losses, objectives, stale_answers, summary, timeline, who};

/// The whole report.
pub(crate) fn render(report: &wire::Report) -> String {
    let Some(run) = &report.run else { return summary(report) };
    let mut text =
        format!("# {}: {} → {}\n\n{}\n", text_of(&run.application), run.from, run.to, text_of(&summary(report)));
    for (key, value) in facts(run) {
        let _ = write!(text, "\n- **{key}:** {}", text_of(&value));
    }
    let _ = write!(text, "\n\n## Objectives\n\n");
    table(&mut text, &["Objective", "Wanted", "Achieved", "Judgement"], &objectives(report));

    if !report.remarks.is_empty() {
        let _ = writeln!(text);
        list(&mut text, &report.remarks, "");
    }

    let _ = write!(text, "\n## Why\n\n");
    let reasons = run.finding.as_ref().map(|finding| finding.reasons.as_slice()).unwrap_or_default();
    list(&mut text, reasons, "No reasons are recorded.");

    let _ = write!(text, "\n## Data loss\n\n");
    let sentences: Vec<String> = report.losses.iter().map(|loss| loss.sentence.clone()).collect();
    list(&mut text, &sentences, no_losses(run));

    let _ = write!(text, "\n## Timeline\n\n");
    table(&mut text, &TIMELINE, &timeline(report));

    let _ = write!(text, "\n## Stale DNS answers\n\n");
    let stale = stale_answers(run);
    if stale.is_empty() {
        let _ = writeln!(text, "None were seen.");
    } else {
        table(&mut text, &STALE_ANSWERS, &stale);
    }

    let _ = write!(text, "\n## Who\n\n");
    table(&mut text, &["Time", "Actor", "Event", "Detail"], &who(report));
    text
}

fn list(text: &mut String, sentences: &[String], none: &str) {
    if sentences.is_empty() {
        let _ = writeln!(text, "{none}");
    }
    for sentence in sentences {
        let _ = writeln!(text, "- {}", text_of(sentence));
    }
}

fn table<const N: usize>(text: &mut String, headings: &[&str; N], rows: &[[String; N]]) {
    let _ = writeln!(text, "| {} |", headings.join(" | "));
    let _ = writeln!(text, "|{}", " --- |".repeat(N));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| text_of(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

/// What an agent or an operator wrote must not become markup.
fn text_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => out.extend(['\\', sign]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\r' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn everything_that_is_asked_for_is_there() {
        let text = render(&sample());
        for expected in [
            "# shop: eu-west-1 → eu-central-1",
            "because the region was lost. Service was restored 14s after",
            "| RTO: time without service | 1h | 14s | met |",
            "- 2 of 3 coordinators &lt;lost&gt; it",
            "- orders-db: at least 5 bytes",
            "| 22:13:21.000 | +1s | promote orders-db | eu-central-1 | done | 1s |",
            "| www | 127.0.0.1:7303 | 1.2s | gave the new answer |",
            "| www | 127.0.0.1:7313 |  | could not be reached |",
            "| quorum | decided |",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn text_never_becomes_markup() {
        assert_eq!(text_of("a|b\n<script> *x*"), "a\\|b &lt;script&gt; \\*x\\*");
    }
}
