//! The first page: what is under way, what every region sees of every cluster, how every application is.

use maud::{Markup, html};

use super::format;
use super::parts::{Tone, application_link, badge, icon, known, state};
use super::{run, timeline};
use crate::view::{
    ApplicationView, ClusterInApplication, ClusterView, Contacted, CoordinatorView, Role, SightView, View,
};

pub(super) fn draw(view: &View) -> Markup {
    let under_way: Vec<_> = view.runs.iter().filter(|run| run.ended.is_none()).collect();
    html! {
        h1.quiet { "Overview" }
        @for run in &under_way {
            section.card.run-now aria-label={ "Run " (run.id) } {
                (run::headline(view, run, true))
                (timeline::draw(run))
            }
        }
        (applications(view))
        (matrix(view))
        (coordinators(view))
        @if !view.runs.is_empty() {
            section.card {
                h2 { "Latest runs" }
                (run::table(view.runs.iter().take(8)))
            }
        }
    }
}

fn applications(view: &View) -> Markup {
    let mut applications: Vec<_> = view.applications.iter().collect();
    applications.sort_by_key(|application| !needs_eyes(application));
    html! {
        section.card {
            h2 { "Applications" }
            @if view.applications.is_empty() {
                p.empty { "None yet. Apply a document: " code { "regentctl apply -f app.yaml" } }
            }
            @for application in applications {
                article.application id={ "application-" (application.name) } {
                    (heading(application))
                    div.places {
                        @for cluster in &application.clusters { (place(cluster)) }
                    }
                }
            }
        }
    }
}

/// These come first.
fn needs_eyes(application: &ApplicationView) -> bool {
    application.run.is_some()
        || !application.stuck.is_empty()
        || application.refusal.is_some()
        || application.why.verdict != "healthy"
}

fn heading(application: &ApplicationView) -> Markup {
    html! {
        header {
            h3 { (application_link(&application.name)) }
            span.epoch { "epoch " span.number { (application.epoch) } }
            (verdict(application.why.verdict))
            @if let Some(run) = application.run {
                a.badge.live href={ "/runs/" (run) } { (icon(Tone::Live)) span { "run " (run) } }
            }
            @if application.recovering.is_some() { (badge(Tone::Bad, "recovering")) }
            @if application.paused.is_some() { (badge(Tone::Warn, "paused")) }
            @if let Some(cool_down) = &application.cool_down {
                (badge(Tone::Warn, &format!("cooling down, {}", format::age(cool_down.left_ms))))
            }
            @if !application.stuck.is_empty() { (badge(Tone::Bad, "stuck")) }
            @if let Some(refusal) = &application.refusal {
                (badge(Tone::Warn, &format!("refused: {}", refusal.rule)))
            }
        }
    }
}

/// The verdict on a primary, in its own words.
pub(super) fn verdict(verdict: &str) -> Markup {
    let tone = match verdict {
        "healthy" => Tone::Good,
        "suspect" | "agent-unreachable" => Tone::Warn,
        "lost" => Tone::Bad,
        _ => Tone::Unknown,
    };
    badge(tone, &format!("primary {verdict}"))
}

fn place(cluster: &ClusterInApplication) -> Markup {
    let primary = cluster.role == Role::Primary;
    html! {
        div.place.primary[primary] {
            p.name { strong { (cluster.cluster) } " " span.role { (cluster.role.as_str()) } }
            p {
                (state(cluster.health))
                @if primary {
                    span { "lease " (cluster.lease.as_str()) }
                } @else {
                    span.number { "lag " (known(lag(cluster))) }
                }
                @if !cluster.rogues.is_empty() { (badge(Tone::Bad, "rogue writer")) }
                @if cluster.excluded.is_some() { (badge(Tone::Warn, "excluded")) }
                @if cluster.failsafe { (badge(Tone::Warn, "failsafe")) }
            }
        }
    }
}

/// Bytes, and time where it is known.
pub(super) fn lag(cluster: &ClusterInApplication) -> Option<String> {
    let bytes = cluster.lag_bytes.map(format::bytes);
    let time = cluster.lag_ms.map(format::duration);
    match (bytes, time) {
        (Some(bytes), Some(time)) => Some(format!("{bytes} · {time}")),
        (one, other) => one.or(other),
    }
}

fn matrix(view: &View) -> Markup {
    html! {
        section.card {
            h2 { "Who sees what" }
            @if view.clusters.is_empty() {
                p.empty { "No agent has registered yet." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="Clusters by observer" {
                    table.matrix {
                        thead { tr {
                            th scope="col" { "Cluster" }
                            @for coordinator in &view.coordinators { (observer(coordinator)) }
                        } }
                        tbody {
                            @for cluster in &view.clusters { (row(view, cluster)) }
                        }
                    }
                }
                @if !view.me.leader {
                    p.note { "What other coordinators hear is relayed to the leader only; here stand their votes." }
                }
            }
        }
    }
}

fn observer(coordinator: &CoordinatorView) -> Markup {
    html! {
        th scope="col" {
            (coordinator.region)
            small {
                "coordinator " (coordinator.id)
                @if coordinator.me { " · here" }
            }
        }
    }
}

fn row(view: &View, cluster: &ClusterView) -> Markup {
    html! {
        tr {
            th scope="row" {
                (cluster.name)
                small { (cluster.region) }
                @if cluster.lost_by_majority { (badge(Tone::Bad, "lost by a majority")) }
                @if !cluster.registered { (badge(Tone::Unknown, "never registered")) }
            }
            @for (sight, observer) in cluster.observers.iter().zip(&view.coordinators) {
                td data-label={ (observer.region) } { (cell(sight)) }
            }
        }
    }
}

fn cell(sight: &SightView) -> Markup {
    html! {
        (state(sight.contact))
        small.number {
            @match (&sight.vote, sight.two_way_age_ms) {
                (Some(vote), _) => { "vote, after " (format::duration(vote.silence_ms)) },
                (None, Some(age)) if sight.contact == Contacted::Heard && age < 1_000 => "now",
                (None, Some(age)) => { (format::age(age)) " ago" },
                (None, None) => "",
            }
        }
    }
}

fn coordinators(view: &View) -> Markup {
    html! {
        section.card {
            h2 { "Coordinators" }
            ul.members {
                @for coordinator in &view.coordinators {
                    li {
                        strong { (coordinator.region) }
                        span.number { "coordinator " (coordinator.id) }
                        @match coordinator.reachable {
                            Some(true) => (badge(Tone::Good, if coordinator.me { "here" } else { "heard" })),
                            Some(false) => (badge(Tone::Bad, "not heard")),
                            None => (badge(Tone::Unknown, "not known here")),
                        }
                        @if coordinator.leader { (badge(Tone::Idle, "leader")) }
                        @if !coordinator.voter { (badge(Tone::Warn, "no voter")) }
                        span.number {
                            @if let (false, Some(age)) = (coordinator.me, coordinator.heard_age_ms) {
                                @if age < 1_000 { "just now" } @else { (format::age(age)) " ago" }
                            }
                        }
                        span.address { (coordinator.dashboard) }
                    }
                }
            }
        }
    }
}
