//! One HTML file without outside assets, for screens and for print, light and dark.

use std::fmt::Write;

use regent_proto::operator::v1 as wire;

use super::{STALE_ANSWERS, TIMELINE, facts, no_losses, objectives, stale_answers, summary, timeline, who};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886;--soft:#8881}\
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}\
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}\
.lead{font-size:1.1rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.5rem;margin:1rem 0}\
dt{font-weight:600}dd{margin:0}.wide{overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}\
th{background:var(--soft)}\
@media print{body{margin:0;max-width:none;font-size:11pt}h2{break-after:avoid}tr{break-inside:avoid}}";

/// The whole report.
pub(crate) fn render(report: &wire::Report) -> String {
    let title = report
        .run
        .as_ref()
        .map_or_else(|| "Report".to_owned(), |run| format!("{}: {} → {}", run.application, run.from, run.to));
    let title = escape(&title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n",
        escape(&summary(report))
    );
    if let Some(run) = &report.run {
        body(&mut text, report, run);
    }
    text.push_str("</body>\n</html>\n");
    text
}

fn body(text: &mut String, report: &wire::Report, run: &wire::Run) {
    text.push_str("<dl>\n");
    for (key, value) in facts(run) {
        let _ = writeln!(text, "<dt>{key}</dt><dd>{}</dd>", escape(&value));
    }
    text.push_str("</dl>\n");

    heading(text, "Objectives");
    table(text, &["Objective", "Wanted", "Achieved", "Judgement"], &objectives(report));
    if !report.remarks.is_empty() {
        list(text, &report.remarks, "");
    }

    heading(text, "Why");
    let reasons = run.finding.as_ref().map(|finding| finding.reasons.as_slice()).unwrap_or_default();
    list(text, reasons, "No reasons are recorded.");

    heading(text, "Data loss");
    let sentences: Vec<String> = report.losses.iter().map(|loss| loss.sentence.clone()).collect();
    list(text, &sentences, no_losses(run));

    heading(text, "Timeline");
    table(text, &TIMELINE, &timeline(report));

    heading(text, "Stale DNS answers");
    let stale = stale_answers(run);
    if stale.is_empty() {
        text.push_str("<p>None were seen.</p>\n");
    } else {
        table(text, &STALE_ANSWERS, &stale);
    }

    heading(text, "Who");
    table(text, &["Time", "Actor", "Event", "Detail"], &who(report));
}

fn heading(text: &mut String, heading: &str) {
    let _ = writeln!(text, "<h2>{heading}</h2>");
}

fn list(text: &mut String, sentences: &[String], none: &str) {
    if sentences.is_empty() {
        let _ = writeln!(text, "<p>{none}</p>");
        return;
    }
    text.push_str("<ul>\n");
    for sentence in sentences {
        let _ = writeln!(text, "<li>{}</li>", escape(sentence));
    }
    text.push_str("</ul>\n");
}

fn table<const N: usize>(text: &mut String, headings: &[&str; N], rows: &[[String; N]]) {
    text.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for heading in headings {
        let _ = write!(text, "<th scope=\"col\">{heading}</th>");
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for cell in row {
            let _ = write!(text, "<td>{}</td>", escape(cell));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table></div>\n");
}

/// What an agent or an operator wrote must not become markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
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
    fn everything_that_is_asked_for_is_there_and_nothing_from_outside() {
        let text = render(&sample());
        for expected in [
            "<h1>shop: eu-west-1 → eu-central-1</h1>",
            "<td>RTO: time without service</td><td>1h</td><td>14s</td><td>met</td>",
            "<li>2 of 3 coordinators &lt;lost&gt; it</li>",
            "<td>www</td><td>127.0.0.1:7303</td><td>1.2s</td><td>gave the new answer</td>",
            "<td>www</td><td>127.0.0.1:7313</td><td></td><td>could not be reached</td>",
            "<td>quorum</td><td>decided</td>",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        for outside in ["http://", "https://", "<script", "src="] {
            assert!(!text.contains(outside), "{outside:?} is in\n{text}");
        }
    }
}
