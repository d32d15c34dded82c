//! One application: where it is, how it is in each cluster, why a failover would or would not start.

use maud::{Markup, html};

use super::format;
use super::overview::lag;
use super::parts::{Tone, badge, fact, icon, known, state, time};
use super::{audit, readiness, run, timeline, why};
use crate::view::{ApplicationView, ClusterInApplication, Lease, ResourceView, Role, View};

pub(super) fn draw(view: &View, application: &ApplicationView) -> Markup {
    let of_this = |run: &&crate::view::RunView| run.application == application.name;
    let under_way = view.runs.iter().filter(of_this).find(|run| run.ended.is_none());
    html! {
        div.title {
            h1 { (application.name) }
            (super::overview::verdict(application.why.verdict))
        }
        (notices(application))
        @if let Some(run) = under_way {
            section.card.run-now { (run::headline(view, run, true)) (timeline::draw(run)) }
        }
        section.card {
            h2.quiet { "Facts" }
            (facts(application))
        }
        section.clusters aria-label="Clusters" {
            @for cluster in &application.clusters { (place(cluster)) }
        }
        (why::draw(view, application))
        (readiness::draw(application))
        (answers(application))
        section.card {
            h2 { "Runs" }
            @if view.runs.iter().any(|run| of_this(&run)) {
                (run::table(view.runs.iter().filter(of_this).take(10)))
            } @else {
                p.empty { "None yet." }
            }
        }
        section.card {
            h2 { "Audit" }
            (audit::table(view.audit.iter().filter(|record| record.application.as_deref() == Some(application.name.as_str())).take(10)))
            p { a href={ "/audit?application=" (application.name) } { "all of it" } }
        }
    }
}

fn notices(application: &ApplicationView) -> Markup {
    html! {
        @if let Some(missing) = &application.recovering {
            div.banner.bad role="alert" { (icon(Tone::Bad)) p {
                strong { "Recovering. " } "Nothing is granted or decided: " (missing)
            } }
        }
        @if let Some(pause) = &application.paused {
            div.banner.warn { (icon(Tone::Warn)) p {
                strong { "Paused" } " by " (pause.by) " since " (time(&pause.at)) ": " (pause.reason)
            } }
        }
        @if let Some(order) = &application.order {
            div.banner.warn { (icon(Tone::Warn)) p { strong { "Failover" } " " (order) } }
        }
        @if let Some(window) = &application.commit_window {
            div.banner.warn { (icon(Tone::Warn)) p {
                strong { "Can be rolled back" } " to " (window.back_to) " for another " (format::duration(window.left_ms)) ": "
                a href={ "/runs/" (window.run) } { "run " (window.run) } " is not committed yet"
            } }
        }
        @if let Some(hold) = &application.held {
            div.banner.warn { (icon(Tone::Warn)) p {
                strong { "Planned moves are held" } " by " (hold.by) " since " (time(&hold.at)) ": " (hold.reason)
            } }
        }
        @if let Some(protection) = application.protection.as_ref().filter(|found| !found.protected) {
            div.banner.bad { (icon(Tone::Bad)) p { strong { "Not protected" } " " (protection.sentence) } }
        }
        @if application.run.is_none() && application.order.is_none() && application.advice.state != "steady" {
            p.next { strong { "Next" } " (" (application.advice.state) ") " (application.advice.next) }
        }
        @if let Some(refusal) = &application.refusal {
            div.banner.warn { (icon(Tone::Warn)) p {
                strong { "Automatic action refused" } " by the rule " code { (refusal.rule) } ": " (refusal.detail)
            } }
        }
        @for (resource, run) in &application.stuck {
            div.banner.bad { (icon(Tone::Bad)) p {
                strong { (resource) " was left half-changed" } " by " a href={ "/runs/" (run) } { "run " (run) }
                ". Mend it and clear the step."
            } }
        }
    }
}

fn facts(application: &ApplicationView) -> Markup {
    html! {
        dl.facts {
            (fact("Primary", known(application.primary.clone())))
            (fact("Epoch", html! { span.number { (application.epoch) } }))
            (fact("Automation", application.mode))
            (fact("Failover after", format::setting(application.failover_after_ms)))
            (fact("RTO", format::setting(application.rto_ms)))
            (fact("RPO", format::setting(application.rpo_ms)))
            (fact("Most data loss", format!(
                "{}, beyond: {}", format::setting(application.max_data_loss_ms), application.beyond_max_data_loss
            )))
            (fact("Lease terms", html! {
                @if application.terms_confirmed { (badge(Tone::Good, "confirmed")) }
                @else { (badge(Tone::Warn, "not confirmed")) }
            }))
            (fact("Cool-down", html! {
                @match &application.cool_down {
                    Some(cool_down) => { (format::duration(cool_down.left_ms)) " left, or until acknowledged" },
                    None => "none",
                }
            }))
            (fact("Document", html! { "revision " span.number { (application.revision) } }))
        }
    }
}

fn place(cluster: &ClusterInApplication) -> Markup {
    let primary = cluster.role == Role::Primary;
    html! {
        article.card.cluster.primary[primary] {
            header {
                h2 { (cluster.cluster) }
                span.region { (cluster.region) }
                span.role { (cluster.role.as_str()) }
                (state(cluster.health))
            }
            @if !cluster.rogues.is_empty() {
                p { (badge(Tone::Bad, "rogue writer")) " " (cluster.rogues.join(", ")) " accepted writes where the terms say standby" }
            }
            @if let Some(reason) = &cluster.excluded {
                p { (badge(Tone::Warn, "excluded")) " " (reason) }
            }
            dl.facts {
                @if !primary { (fact("Lag", known(lag(cluster)))) }
                (fact("Lease", html! {
                    (state(cluster.lease))
                    @if let Some(left) = cluster.lease_left_ms { " " span.number { (format::duration(left)) " left" } }
                    @if cluster.failsafe { " " (badge(Tone::Warn, "by promises of the other agents")) }
                    @if primary && cluster.lease == Lease::None { " " (badge(Tone::Warn, "primary without a lease")) }
                }))
                (fact("Fence", state(cluster.fence)))
                (fact("Guard", html! {
                    @match cluster.guard_alive {
                        Some(true) => (badge(Tone::Good, "alive")),
                        Some(false) if cluster.guarded => (badge(Tone::Warn, "not answering")),
                        Some(false) => (badge(Tone::Idle, "not guarded yet")),
                        None => (badge(Tone::Unknown, "unknown")),
                    }
                }))
                (fact("Agent", html! {
                    @match cluster.beat_age_ms {
                        Some(age) if age < 1_000 => "heard just now",
                        Some(age) => { "heard " (format::age(age)) " ago" },
                        None => span.none { "not heard" },
                    }
                    @if let Some(epoch) = cluster.stored_epoch { ", epoch " span.number { (epoch) } " stored" }
                }))
            }
            ul.resources { @for resource in &cluster.resources { (of(resource)) } }
        }
    }
}

fn of(resource: &ResourceView) -> Markup {
    html! {
        li {
            p.name {
                strong { (resource.name) } span.kind { (resource.kind) } (state(resource.health))
                @if resource.guarded && resource.role != Role::Unknown {
                    span { (resource.role.as_str()) @if resource.writable { ", takes writes" } }
                }
            }
            p.detail {
                @if !resource.position_text.is_empty() {
                    span.number { "at " (resource.position_text) }
                    @if resource.timeline > 0 { span.number { "timeline " (resource.timeline) } }
                }
                @if let Some(bytes) = resource.lag_bytes { span.number { "behind by " (format::bytes(bytes)) } }
                @if let Some(lag) = resource.lag_ms { span.number { (format::duration(lag)) } }
                @if let Some(upstream) = &resource.upstream {
                    @if upstream.connected { span { "upstream connected" } }
                    @else {
                        (badge(Tone::Warn, "upstream not connected"))
                        @if let Some(age) = upstream.last_heard_age_ms { span { "last heard " (format::age(age)) " ago" } }
                    }
                }
                @if resource.failures > 0 { (badge(Tone::Warn, &format!("{} probes failed", resource.failures))) }
                @match resource.age_ms {
                    Some(age) if resource.stale => (badge(Tone::Unknown, &format!("last probe {} ago", format::age(age)))),
                    Some(_) => "",
                    None => span.none { "never probed" },
                }
                @if !resource.detail.is_empty() {
                    span.said { (resource.detail) }
                }
            }
        }
    }
}

fn answers(application: &ApplicationView) -> Markup {
    html! {
        @if !application.answers.is_empty() {
            section.card {
                h2 { "Names" }
                ul.rules {
                    @for answer in &application.answers {
                        li {
                            code { (answer.name) } " → "
                            @match &answer.cluster {
                                Some(cluster) => strong { (cluster) },
                                None => span.none { "nowhere yet" },
                            }
                            @if answer.addresses.is_empty() { " " (badge(Tone::Bad, "no address")) }
                            @else { " " span.number { (answer.addresses.join(", ")) } }
                            span.kind { " " (answer.provider) ", TTL " (format::setting(answer.ttl_ms)) }
                        }
                    }
                }
            }
        }
    }
}
