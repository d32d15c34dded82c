//! Before a switchover keeps writes out the TTL of a name is shortened at its server, and an undo restores it: the same data, by
//! nobody else's leave.

use std::sync::Arc;

use regent_agent::driver::{Driver, DriverResult, Redirect};
use regent_core::time::Span;
use tokio::sync::Notify;

use crate::guard::{code, proxy, redirect};
use crate::servers::{Kind, NAME, SECRET, Server};
use crate::support::driver;

on_each_server! {
    a_ttl_is_changed_and_nothing_else
    a_record_that_nobody_has_redirected_yet_gets_one_too
    a_ttl_is_not_changed_by_an_older_epoch_or_for_another
    what_was_changed_in_between_is_left
}

/// Of the name, or what is said against it.
async fn set(driver: &dyn Driver, epoch: u64, ttl: u32) -> DriverResult {
    driver.redirect(&Redirect { ttl, ttl_only: true, ..redirect(epoch, &[]) }).await
}

/// A driver for the name at this server, which knows it from the beginning.
fn knowing(server: &Server) -> Arc<dyn Driver> {
    driver(&format!("{}\nname: {NAME}", server.resource()))
}

/// What the server gives the name's addresses with.
async fn given(driver: &dyn Driver) -> Option<Span> {
    driver.facts().await.unwrap().findings.dns.unwrap().authorities[0].ttl
}

async fn a_ttl_is_changed_and_nothing_else(kind: Kind) {
    let server = Server::start(kind).await;
    let driver = knowing(&server);
    driver.redirect(&redirect(3, &["127.0.0.12", "::5"])).await.unwrap();
    let looks = || ["A", "AAAA"].map(|of| server.dig(NAME, of));
    let guard = || server.dig("_regent.www.example.test.", "TXT");
    let (before, guarded) = (looks(), guard());
    for (ttl, wanted) in [(1, Span::from_secs(1)), (30, Span::from_secs(30))] {
        let done = set(driver.as_ref(), 3, ttl).await.unwrap();
        assert!(!done.already, "{done:?}");
        assert_eq!(given(driver.as_ref()).await, Some(wanted));
        assert_eq!((looks(), guard()), (before.clone(), guarded.clone()));
        let serial = server.dig("example.test.", "SOA");
        assert!(set(driver.as_ref(), 3, ttl).await.unwrap().already);
        assert_eq!(server.dig("example.test.", "SOA"), serial, "nothing was written again");
    }
    // The redirect of the next epoch writes the documented one.
    set(driver.as_ref(), 3, 1).await.unwrap();
    driver.redirect(&redirect(4, &["127.0.0.11"])).await.unwrap();
    assert_eq!(given(driver.as_ref()).await, Some(Span::from_secs(30)));
}

async fn a_record_that_nobody_has_redirected_yet_gets_one_too(kind: Kind) {
    let server = Server::start(kind).await;
    let driver = knowing(&server);
    assert!(!set(driver.as_ref(), 1, 1).await.unwrap().already);
    assert_eq!(given(driver.as_ref()).await, Some(Span::from_secs(1)));
    assert_eq!(server.dig(NAME, "A"), "127.0.0.10", "not the address of this cluster");
    assert_eq!(server.dig("_regent.www.example.test.", "TXT"), "", "the record is not claimed");
    // Nobody holds an answer of a name that has none.
    let missing = Redirect { name: "new.example.test.".to_owned(), ttl_only: true, ttl: 1, ..redirect(1, &[]) };
    assert!(driver.redirect(&missing).await.unwrap().already);
    assert_eq!(server.dig("new.example.test.", "A"), "");
}

async fn a_ttl_is_not_changed_by_an_older_epoch_or_for_another(kind: Kind) {
    let server = Server::start(kind).await;
    let driver = knowing(&server);
    driver.redirect(&redirect(7, &["127.0.0.12"])).await.unwrap();
    assert_eq!(code(&set(driver.as_ref(), 6, 1).await), ("dns-stale-epoch", false));
    let other = Redirect { application: "other".to_owned(), ttl_only: true, ttl: 1, ..redirect(9, &[]) };
    assert_eq!(code(&driver.redirect(&other).await), ("dns-foreign-guard", false));
    assert_eq!(given(driver.as_ref()).await, Some(Span::from_secs(30)));
}

/// Somebody gives the name another address after it was read.
async fn what_was_changed_in_between_is_left(kind: Kind) {
    let server = Server::start(kind).await;
    let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = proxy(server.address, held.clone(), release.clone()).await;
    let update = Server::update(slow, "regent.", SECRET);
    let delayed = driver(&format!("kind: dns\naddresses: [127.0.0.11]\nauthorities: [{}]\n{update}", server.address));
    let task = tokio::spawn(async move { set(delayed.as_ref(), 1, 1).await });
    held.notified().await;
    server.nsupdate(&format!("update delete {NAME} A\nupdate add {NAME} 30 A 127.0.0.99"));
    release.notify_one();
    assert_eq!(code(&task.await.unwrap()), ("dns-raced", true));
    assert_eq!(server.dig(NAME, "A"), "127.0.0.99");
    assert_eq!(given(knowing(&server).as_ref()).await, Some(Span::from_secs(30)));
}

#[tokio::test]
async fn another_authority_is_awaited() {
    let (primary, late) = (Server::start(Kind::Knot).await, Server::start(Kind::Bind).await);
    let update = Server::update(primary.address, "regent.", SECRET);
    let text = format!("kind: dns\naddresses: [127.0.0.11]\nauthorities: [{}]\ntimeout: 300ms\n{update}", late.address);
    let driver = driver(&text);
    let error = set(driver.as_ref(), 1, 1).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("dns-still-old", true));
    assert!(error.message.contains(&late.address.to_string()), "{error}");
    late.nsupdate(&format!("update delete {NAME} A\nupdate add {NAME} 1 A 127.0.0.10"));
    assert!(set(driver.as_ref(), 1, 1).await.unwrap().already, "the primary has it since");
}

#[tokio::test]
async fn who_may_not_update_says_so() {
    let server = Server::start(Kind::Knot).await;
    let driver = driver(&format!("kind: dns\naddresses: [127.0.0.11]\nauthorities: [{}]", server.address));
    assert_eq!(code(&set(driver.as_ref(), 1, 1).await), ("dns-configuration", false));
}
