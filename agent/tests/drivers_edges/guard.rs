//! Incident `stale_dns_writer`: an older epoch never overwrites a newer one, on each server that is supported.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use regent_agent::driver::{DriverResult, Redirect};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::servers::{Kind, NAME, OTHER_SECRET, SECRET, Server};
use crate::support::driver;

pub(crate) fn redirect(epoch: u64, addresses: &[&str]) -> Redirect {
    Redirect {
        name: NAME.to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ttl: 30,
        ttl_only: false,
        epoch,
        application: "shop".to_owned(),
    }
}

pub(crate) fn code(result: &DriverResult) -> (&'static str, bool) {
    let error = result.as_ref().expect_err("it should have been refused");
    (error.code, error.retryable)
}

on_each_server! {
    a_redirect_is_made_once
    an_older_epoch_is_rejected
    a_delayed_writer_is_rejected
    an_empty_answer_is_refused
    an_update_survives_kill_9
    an_unknown_key_is_named
    a_wrong_secret_is_named
    a_key_without_the_right_is_named
    what_a_key_may_not_is_known_before
    a_foreign_name_is_left_alone
    an_alias_is_refused
    another_zone_is_refused
}

async fn a_redirect_is_made_once(kind: Kind) {
    let server = Server::start(kind).await;
    let driver = driver(&server.resource());
    let done = driver.redirect(&redirect(3, &["127.0.0.12", "::5"])).await.unwrap();
    assert!(!done.already, "{done:?}");
    assert_eq!(done.stale_answers, [], "the server that was updated answers rightly at once");
    assert_eq!(server.dig(NAME, "A"), "127.0.0.12");
    assert_eq!(server.dig(NAME, "AAAA"), "::5");
    assert_eq!(server.dig("_regent.www.example.test.", "TXT"), "\"regent=1 application=shop epoch=3\"");
    let serial = server.dig("example.test.", "SOA");
    let again = driver.redirect(&redirect(3, &["::5", "127.0.0.12"])).await.unwrap();
    assert!(again.already, "{again:?}");
    assert_eq!(server.dig("example.test.", "SOA"), serial, "nothing was written again");
    driver.redirect(&redirect(4, &["127.0.0.11"])).await.unwrap();
    assert_eq!((server.dig(NAME, "A").as_str(), server.dig(NAME, "AAAA").as_str()), ("127.0.0.11", ""));
}

async fn an_older_epoch_is_rejected(kind: Kind) {
    let server = Server::start(kind).await;
    let driver = driver(&server.resource());
    driver.redirect(&redirect(7, &["127.0.0.12"])).await.unwrap();
    let stale = driver.redirect(&redirect(6, &["127.0.0.11"])).await;
    assert_eq!(code(&stale), ("dns-stale-epoch", false));
    assert_eq!(server.dig(NAME, "A"), "127.0.0.12");
}

/// Passes connections on; the second one, which carries the update, is held until it is let go.
pub(crate) async fn proxy(target: SocketAddr, held: Arc<Notify>, release: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = AtomicUsize::new(0);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let second = count.fetch_add(1, Ordering::SeqCst) == 1;
            let (held, release) = (held.clone(), release.clone());
            tokio::spawn(async move {
                if second {
                    held.notify_one();
                    release.notified().await;
                }
                let mut far = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

/// The writer of epoch 5 has read the guard and made its decision; epoch 6 writes before its update arrives.
async fn a_delayed_writer_is_rejected(kind: Kind) {
    for before in [None, Some(4)] {
        let server = Server::start(kind).await;
        let newer = driver(&server.resource());
        if let Some(epoch) = before {
            newer.redirect(&redirect(epoch, &["127.0.0.10"])).await.unwrap();
        }
        let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = proxy(server.address, held.clone(), release.clone()).await;
        let update = Server::update(slow, "regent.", SECRET);
        let delayed =
            driver(&format!("kind: dns\naddresses: [127.0.0.11]\nauthorities: [{}]\n{update}", server.address));
        let task = tokio::spawn(async move {
            let first = delayed.redirect(&redirect(5, &["127.0.0.11"])).await;
            let second = delayed.redirect(&redirect(5, &["127.0.0.11"])).await;
            (first, second)
        });
        held.notified().await;
        newer.redirect(&redirect(6, &["127.0.0.12"])).await.unwrap();
        release.notify_one();
        let (first, second) = task.await.unwrap();
        assert_eq!(code(&first), ("dns-raced", true));
        assert_eq!(code(&second), ("dns-stale-epoch", false), "the next attempt reads again");
        assert_eq!(server.dig(NAME, "A"), "127.0.0.12");
        assert_eq!(server.dig("_regent.www.example.test.", "TXT"), "\"regent=1 application=shop epoch=6\"");
    }
}

async fn an_empty_answer_is_refused(kind: Kind) {
    let server = Server::start(kind).await;
    let refused = driver(&server.resource()).redirect(&redirect(1, &[])).await;
    assert_eq!(code(&refused), ("dns-would-be-empty", false));
    assert_eq!(server.dig(NAME, "A"), "127.0.0.10");
}

async fn an_update_survives_kill_9(kind: Kind) {
    let mut server = Server::start(kind).await;
    let driver = driver(&server.resource());
    driver.redirect(&redirect(2, &["127.0.0.12"])).await.unwrap();
    server.kill();
    let unreachable = driver.redirect(&redirect(2, &["127.0.0.12"])).await;
    assert_eq!(code(&unreachable), ("dns-unreachable", true));
    server.restart().await;
    assert_eq!(server.dig(NAME, "A"), "127.0.0.12");
    assert!(driver.redirect(&redirect(2, &["127.0.0.12"])).await.unwrap().already);
    assert_eq!(code(&driver.redirect(&redirect(1, &["127.0.0.11"])).await), ("dns-stale-epoch", false));
}

async fn refused_key(kind: Kind, key: &str, secret: &str) -> (&'static str, bool) {
    let server = Server::start(kind).await;
    let update = Server::update(server.address, key, secret);
    let driver = driver(&format!("kind: dns\naddresses: [127.0.0.11]\n{update}"));
    let result = driver.redirect(&redirect(1, &["127.0.0.11"])).await;
    let message = result.as_ref().unwrap_err().to_string();
    assert!(message.contains(&server.address.to_string()) && message.contains(key), "{message}");
    assert!(!message.contains(secret), "{message}");
    assert_eq!(server.dig(NAME, "A"), "127.0.0.10");
    code(&result)
}

async fn an_unknown_key_is_named(kind: Kind) {
    assert_eq!(refused_key(kind, "nobody.", SECRET).await, ("dns-bad-key", false));
}

async fn a_wrong_secret_is_named(kind: Kind) {
    assert_eq!(refused_key(kind, "regent.", OTHER_SECRET).await, ("dns-bad-signature", false));
}

async fn a_key_without_the_right_is_named(kind: Kind) {
    let expected = match kind {
        Kind::Knot => "dns-bad-key",
        Kind::Bind => "dns-refused",
    };
    assert_eq!(refused_key(kind, "powerless.", OTHER_SECRET).await, (expected, false));
}

async fn what_a_key_may_not_is_known_before(kind: Kind) {
    let mut server = Server::start(kind).await;
    let before = server.dig("example.test.", "SOA");
    let lacks = async |key: &str, secret: &str| {
        let update = Server::update(server.address, key, secret);
        let driver = driver(&format!("kind: dns\naddresses: [127.0.0.11]\n{update}"));
        driver.facts().await.unwrap().findings.lacks
    };
    assert_eq!(lacks("regent.", SECRET).await, Vec::<String>::new());
    for (key, secret) in [("powerless.", OTHER_SECRET), ("regent.", OTHER_SECRET), ("stranger.", SECRET)] {
        let told = lacks(key, secret).await;
        assert!(told.len() == 1 && told[0].contains(key.trim_end_matches('.')), "{key}: {told:?}");
    }
    assert_eq!(server.dig("example.test.", "SOA"), before, "something was written");
    let update = Server::update(server.address, "powerless.", OTHER_SECRET);
    server.kill();
    let driver = driver(&format!("kind: dns\naddresses: [127.0.0.11]\n{update}"));
    let told = driver.facts().await.unwrap().findings.lacks;
    assert_eq!(told, Vec::<String>::new(), "a server that is down refuses nothing");
}

async fn a_foreign_name_is_left_alone(kind: Kind) {
    let server = Server::start(kind).await;
    let driver = driver(&server.resource());
    let other = Redirect { application: "other".to_owned(), ..redirect(9, &["127.0.0.12"]) };
    driver.redirect(&other).await.unwrap();
    assert_eq!(code(&driver.redirect(&redirect(10, &["127.0.0.11"])).await), ("dns-foreign-guard", false));
    server.nsupdate("update delete _regent.www.example.test. TXT\nupdate add _regent.www.example.test. 30 TXT \"x\"");
    assert_eq!(code(&driver.redirect(&redirect(10, &["127.0.0.11"])).await), ("dns-guard-unreadable", false));
    assert_eq!(server.dig(NAME, "A"), "127.0.0.12");
}

async fn an_alias_is_refused(kind: Kind) {
    let server = Server::start_with(kind, "www CNAME ns").await;
    let refused = driver(&server.resource()).redirect(&redirect(1, &["127.0.0.11"])).await;
    assert_eq!(code(&refused), ("dns-alias", false));
}

async fn another_zone_is_refused(kind: Kind) {
    let server = Server::start(kind).await;
    let foreign = Redirect { name: "www.example.net.".to_owned(), ..redirect(1, &["127.0.0.11"]) };
    assert_eq!(code(&driver(&server.resource()).redirect(&foreign).await), ("dns-not-in-zone", false));
}
