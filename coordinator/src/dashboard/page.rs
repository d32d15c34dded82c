//! Which pages there are, and what surrounds each.

use std::sync::LazyLock;

use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::live::Live;
use super::parts::{Tone, badge, icon, sprite};
use super::{application, audit, format, overview, run};
use crate::view::View;

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    Overview,
    Application(String),
    Runs,
    Run(u64),
    Audit(Filter),
    Nowhere,
}

/// What of the audit is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Filter {
    /// Only what concerns this application; empty: everything.
    #[serde(default)]
    pub(super) application: String,
}

/// A page, drawn.
pub(super) struct Drawn {
    pub(super) title: String,
    /// Everything inside of `#page`.
    pub(super) html: Markup,
    pub(super) found: bool,
}

/// Names the assets of this build (FNV-1a): a browser that holds those of another loads them again.
pub(super) fn build() -> &'static str {
    static BUILD: LazyLock<String> = LazyLock::new(|| {
        let bytes = super::CSS.bytes().chain(super::JS.bytes());
        let hash =
            bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        format!("{hash:016x}")
    });
    &BUILD
}

impl Page {
    /// From the path and query of an address.
    pub(super) fn parse(address: &str) -> Self {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let mut parts = path.trim_matches('/').split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("") | None, None, None) => Self::Overview,
            (Some("applications"), Some(name), None) => Self::Application(name.to_owned()),
            (Some("runs"), None, None) => Self::Runs,
            (Some("runs"), Some(id), None) => id.parse().map_or(Self::Nowhere, Self::Run),
            (Some("audit"), None, None) => {
                let application = query.split('&').find_map(|pair| pair.strip_prefix("application="));
                Self::Audit(Filter { application: application.unwrap_or_default().to_owned() })
            }
            _ => Self::Nowhere,
        }
    }

    /// Draws the page as things are now.
    pub(super) fn draw(&self, live: &Live) -> Drawn {
        let view = live.view();
        let (title, content) = match self {
            Self::Overview => ("Overview".to_owned(), Some(overview::draw(&view))),
            Self::Application(name) => {
                (name.clone(), view.application(name).map(|application| application::draw(&view, application)))
            }
            Self::Runs => ("Runs".to_owned(), Some(run::list_page(&view))),
            Self::Run(id) => {
                let old = if view.run(*id).is_none() { live.run(*id) } else { None };
                (format!("Run {id}"), view.run(*id).or(old.as_ref()).map(|run| run::draw(&view, run)))
            }
            Self::Audit(filter) => ("Audit".to_owned(), Some(audit::draw(&view, filter))),
            Self::Nowhere => ("Not found".to_owned(), None),
        };
        let found = content.is_some();
        let content = content.unwrap_or_else(|| nothing(&title));
        let html = html! {
            (top(self, &view))
            main #main tabindex="-1" { (banners(&view)) (content) }
            (foot(&view))
        };
        let urgent = if view.quorum.held { "" } else { "No quorum · " };
        Drawn { title: format!("{urgent}{title} · Regent {}", place(&view)), html, found }
    }
}

/// The whole document around a page.
pub(super) fn document(page: &Page, drawn: &Drawn) -> Markup {
    let refreshing = *page != Page::Nowhere;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (drawn.title) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if refreshing { noscript { meta http-equiv="refresh" content="5"; } }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href={ "/assets/dashboard.css?" (build()) };
                script defer src={ "/assets/dashboard.js?" (build()) } {}
            }
            body data-build=(build()) {
                (sprite())
                a.skip href="#main" { "Skip to content" }
                // Written by the script: it lives when the server does not.
                div #offline .banner.bad role="alert" hidden {
                    (icon(Tone::Bad))
                    p {
                        strong { "Connection to this coordinator lost." }
                        " This page shows what was known " span #offline-age { "some time" } " ago. Trying again …"
                    }
                }
                div #page { (drawn.html) }
            }
        }
    }
}

fn place(view: &View) -> String {
    if view.me.region.is_empty() { format!("coordinator {}", view.me.id) } else { view.me.region.clone() }
}

fn top(page: &Page, view: &View) -> Markup {
    let link = |href: &str, name: &str, here: bool| {
        html! { a href=(href) aria-current=[here.then_some("page")] { (name) } }
    };
    let quorum = &view.quorum;
    html! {
        header.top {
            a.brand href="/" { "Regent" }
            nav aria-label="Pages" {
                (link("/", "Overview", *page == Page::Overview))
                (link("/runs", "Runs", matches!(page, Page::Runs | Page::Run(_))))
                (link("/audit", "Audit", matches!(page, Page::Audit(_))))
            }
            p.where {
                span.seen { "seen from " strong { (place(view)) } " · coordinator " (view.me.id) }
                @if quorum.held {
                    (badge(Tone::Good, "quorum"))
                } @else {
                    (badge(Tone::Bad, "no quorum"))
                }
                @match quorum.leader {
                    Some(_) if view.me.leader => (badge(Tone::Idle, "leader")),
                    Some(leader) => span.badge.idle { "led by " (leader) },
                    None => (badge(Tone::Warn, "no leader")),
                }
            }
        }
    }
}

fn banners(view: &View) -> Markup {
    html! {
        @if !view.quorum.held {
            div.banner.bad role="alert" {
                (icon(Tone::Bad))
                p {
                    strong { "No quorum. " }
                    "This coordinator is not in contact with a majority, so nothing is decided here. "
                    @match view.quorum.view_age_ms {
                        Some(age) => {
                            "The group's state below is as it was "
                            strong { (format::duration(age)) } " ago"
                            @if let Some(at) = &view.quorum.last_held { " (" (super::parts::time(at)) " UTC)" }
                            "; other coordinators may know more. "
                        }
                        None => {
                            "There has been no contact since this coordinator started: how old the state below is, is "
                            strong { "unknown" } ". "
                        }
                    }
                    "DNS keeps giving the last answer."
                }
            }
        }
        @if let Some(pause) = &view.paused {
            div.banner.warn { (icon(Tone::Warn)) p {
                strong { "Everything is paused" } " by " (pause.by) " since " (super::parts::time(&pause.at)) ": " (pause.reason)
            } }
        }
        @if let Some(clusters) = &view.frozen {
            div.banner.bad role="alert" { (icon(Tone::Bad)) p {
                strong { "Frozen. " } "Too many clusters looked lost at once (" (clusters.join(", "))
                "), so it is probably us: nothing is started until this is gone or acknowledged."
            } }
        }
    }
}

fn foot(view: &View) -> Markup {
    html! {
        footer {
            p {
                "As of " (super::parts::time(&view.made_at)) " UTC · term " (view.quorum.term)
                " · entry " (view.applied_index) " · DNS serial " (view.dns_serial)
                @if !view.group.is_empty() { " · group " code { (view.group) } }
            }
            p { a href="/api/view" { "this view as JSON" } " · " a href="/metrics" { "metrics" } " · " a href="/readyz" { "ready?" } }
        }
    }
}

fn nothing(title: &str) -> Markup {
    html! {
        section.card {
            h1 { (title) ": nothing here" }
            p { "There is no such page, or no such thing in the state that was applied here. " a href="/" { "Overview" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_pages() {
        assert_eq!(Page::parse("/"), Page::Overview);
        assert_eq!(Page::parse(""), Page::Overview);
        assert_eq!(Page::parse("/applications/shop"), Page::Application("shop".to_owned()));
        assert_eq!(Page::parse("/runs/4711"), Page::Run(4711));
        assert_eq!(Page::parse("/runs"), Page::Runs);
        assert_eq!(Page::parse("/audit?application=shop"), Page::Audit(Filter { application: "shop".to_owned() }));
        assert_eq!(Page::parse("/runs/x"), Page::Nowhere);
        assert_eq!(Page::parse("/../etc/passwd"), Page::Nowhere);
    }
}
