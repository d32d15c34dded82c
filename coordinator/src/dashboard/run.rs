//! One run: how far it is, how long service is away and what was lost, against the objectives; and the list of runs.

use maud::{Markup, html};

use super::format;
use super::parts::{Tone, application_link, badge, icon, known, run_link, state, time};
use super::{audit, timeline};
use crate::view::{LossView, ObjectiveState, RecoveryView, RunState, RunView, StepView, View};

pub(super) fn list_page(view: &View) -> Markup {
    html! {
        div.title { h1 { "Runs" } }
        section.card {
            @if view.runs.is_empty() { p.empty { "None yet." } } @else { (table(view.runs.iter())) }
        }
    }
}

pub(super) fn draw(view: &View, run: &RunView) -> Markup {
    html! {
        (headline(view, run, false))
        section.card {
            h2 { "Timeline" }
            (timeline::draw(run))
            (steps(run))
        }
        div.pair {
            (reasons(run))
            @if let Some(lost) = &run.loss { (loss(lost)) }
        }
        section.card {
            h2 { "Audit" }
            (audit::table(view.audit.iter().filter(|record| record.run == Some(run.id))))
        }
    }
}

/// What everyone asks first: what is it, is it done, how long, how much was lost.
pub(super) fn headline(view: &View, run: &RunView, linked: bool) -> Markup {
    let dated = !view.quorum.held && run.ended.is_none();
    let title = html! { (purpose(run)) " of " (run.application) };
    html! {
        div.headline {
            div.what {
                @if linked { h2 { a href={ "/runs/" (run.id) } { (title) } } } @else { h1 { (title) } }
                p.route {
                    (state(run.state)) " "
                    @if dated { (badge(Tone::Unknown, "as last known")) }
                    span { (run.from) " → " strong { (run.to) } }
                    span.number { "epoch " (run.epoch_before)
                        @if let Some(decision) = &run.decision { " → " strong { (decision.epoch) } }
                    }
                    span.kind { "run " (run.id) ", began " (time(&run.started)) " UTC" }
                }
            }
            div.measures {
                @if let Some(away) = &run.recovery { (recovery(away)) }
                @if let Some(missing) = &run.loss { (lost(missing)) }
            }
        }
        @for awaited in &run.awaiting {
            p.awaiting {
                (icon(if run.state == RunState::Stuck { Tone::Bad } else { Tone::Live }))
                span { "Waiting for " (awaited) }
            }
        }
        @if let Some((by, reason)) = &run.aborted {
            p.awaiting { (icon(Tone::Warn)) span { "Aborted by " (by) ": " (reason) } }
        }
        p.next { strong { "Next" } " " (run.advice.next) }
    }
}

fn purpose(run: &RunView) -> &'static str {
    match run.cause {
        "switchover" => "Switchover",
        "failback" => "Failback",
        "rollback" => "Rollback",
        "forced" => "Ordered failover",
        "rejoin" => "Rejoin",
        _ => "Failover",
    }
}

fn recovery(recovery: &RecoveryView) -> Markup {
    let since = match recovery.measured_from {
        "last-contact" => "since the primary was last heard",
        "first-fence" => "since writes were refused",
        _ => "since the run began",
    };
    let label = if recovery.done { "Service was away" } else { "Service away so far" };
    html! {
        div.measure title=(since) {
            span.label { (label) }
            strong.number { (format::duration(recovery.elapsed_ms)) }
            span.against {
                (state(recovery.objective))
                @if let Some(limit) = recovery.objective_ms { " RTO " (format::setting(limit)) }
            }
        }
    }
}

fn lost(loss: &LossView) -> Markup {
    let amount = if loss.none_by_catch_up {
        Some("none".to_owned())
    } else {
        loss.bytes.map(|bytes| if bytes == 0 { "none known".to_owned() } else { format::bytes(bytes) })
    };
    html! {
        div.measure {
            span.label { "Data loss" }
            strong.number {
                (known(amount))
                @if let (Some(lag), false) = (loss.lag_ms, loss.none_by_catch_up) { small { (format::duration(lag)) } }
            }
            span.against {
                (state(loss.objective))
                @if let Some(limit) = loss.objective_ms { " RPO " (format::setting(limit)) }
            }
        }
    }
}

fn steps(run: &RunView) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Steps" {
            table.steps {
                thead { tr {
                    th scope="col" { "#" } th scope="col" { "Step" } th scope="col" { "State" }
                    th.right scope="col" { "Began after" } th.right scope="col" { "Took" } th.right scope="col" { "Driver" }
                    th.right scope="col" { "Attempts" } th scope="col" { "Result" }
                } }
                tbody { @for step in timeline::shown(run) { (row(step)) } }
            }
        }
    }
}

fn row(step: &StepView) -> Markup {
    let span = |ms: Option<u64>| ms.map_or_else(String::new, format::duration);
    html! {
        tr id={ "step-" (step.id) } {
            td.number data-label="#" { (step.id) }
            td data-label="Step" {
                strong { (step.title()) } " " span.kind { (step.cluster) }
                @if step.detached { " " span.kind { "· not awaited" } }
            }
            td data-label="State" { (state(step.state)) }
            td.number.right data-label="Began after" { (span(step.started_after_ms)) }
            td.number.right data-label="Took" { (span(step.duration_ms)) }
            td.number.right data-label="Driver" { (span(step.driver_ms.filter(|ms| *ms > 0))) }
            td.number.right data-label="Attempts" {
                @if step.attempts > 0 { (step.attempts) span.kind { " of " (step.attempts_allowed) } }
            }
            td data-label="Result" { (result(step)) }
        }
    }
}

fn result(step: &StepView) -> Markup {
    html! {
        @if !step.message.is_empty() { p { (step.message) @if step.already { span.kind { " (was so already)" } } } }
        @if let Some(failure) = &step.failure { p.failure { code { (failure.code) } " " (failure.message) } }
        @for stale in &step.stale_answers {
            p.failure {
                (stale.server)
                @if stale.lasted_ms > 0 { " gave the old answer for " (format::duration(stale.lasted_ms)) }
                @if !stale.cleared {
                    @if stale.lasted_ms > 0 { ", then" }
                    @if stale.reached { " did not give the new answer" } @else { " could not be reached" }
                }
            }
        }
    }
}

fn reasons(run: &RunView) -> Markup {
    html! {
        section.card {
            h2 { "Why" }
            p { (run.cause_detail) }
            ul { @for reason in &run.reasons { li { (reason) } } }
            dl.facts {
                div { dt { "Last contact" } dd {
                    @match &run.last_contact { Some(at) => (time(at)), None => span.none { "unknown" } }
                } }
                div { dt { "Point of no return" } dd {
                    @match &run.decision {
                        Some(decision) => { (time(&decision.at)) " · entry " span.number { (decision.index) } },
                        None => "not passed",
                    }
                } }
                @if let Some(decision) = &run.decision {
                    div { dt { "Rests on" } dd { (decision.ground_detail) } }
                }
            }
        }
    }
}

fn loss(loss: &LossView) -> Markup {
    html! {
        section.card {
            h2 { "What was lost" }
            @if loss.none_by_catch_up {
                p { (badge(Tone::Good, "nothing")) " The new primary had everything that the old one acknowledged, up to its last position." }
            } @else if loss.databases.is_empty() {
                p.empty { "No database reported a position." }
            }
            @for gap in &loss.databases {
                div.gap {
                    p.name { strong { (gap.resource) } " " span.number { (gap.text) } }
                    dl.facts {
                        div { dt { "Missing of what was reported" } dd.number { (known(gap.bytes.map(format::bytes))) } }
                        div { dt { "In time" } dd.number { (known(gap.lag_ms.map(format::duration))) } }
                        div { dt { "Last report at the decision" } dd.number {
                            (known(gap.primary_age_ms.map(|age| format!("{} old", format::duration(age)))))
                        } }
                    }
                }
            }
            @if !loss.databases.is_empty() && !loss.none_by_catch_up {
                p.note { "What the old primary acknowledged after its last report is not in these numbers." }
            }
        }
    }
}

pub(super) fn table<'a>(runs: impl Iterator<Item = &'a RunView>) -> Markup {
    html! {
        table.stacked {
            thead { tr {
                th scope="col" { "Run" } th scope="col" { "Application" } th scope="col" { "State" } th scope="col" { "Route" }
                th scope="col" { "Began" } th.right scope="col" { "Service away" } th.right scope="col" { "Data loss" }
            } }
            tbody { @for run in runs {
                tr {
                    td data-label="Run" { (run_link(run.id)) " " span.kind { (purpose(run)) } }
                    td data-label="Application" { (application_link(&run.application)) }
                    td data-label="State" { (state(run.state)) }
                    td data-label="Route" { (run.from) " → " (run.to) }
                    td data-label="Began" { span.kind { (format::day(&run.started)) " " } (time(&run.started)) }
                    td.number.right data-label="Service away" {
                        @if let Some(away) = &run.recovery {
                            (format::duration(away.elapsed_ms)) (objective_icon(away.objective))
                        } @else { "not at all" }
                    }
                    td.number.right data-label="Data loss" {
                        @if let Some(lost) = &run.loss {
                            @if lost.none_by_catch_up { "none" } @else { (known(lost.bytes.map(format::bytes))) }
                            (objective_icon(lost.objective))
                        } @else { "none" }
                    }
                }
            } }
        }
    }
}

fn objective_icon(objective: ObjectiveState) -> Markup {
    use super::parts::State;
    html! { " " span.badge.(objective.tone().as_str()) title={ (objective.word()) " the objective" } {
        (icon(objective.tone())) span.hidden { (objective.word()) " the objective" }
    } }
}
