//! A small HTTP server that says what it is told to.

use std::net::SocketAddr;

use regent_agent::driver::Health;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::servers::free_port;
use crate::support::driver;

/// Answers every connection with these bytes, again and again if `endless`, or not at all if there are none.
async fn serve(answer: String, endless: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                let mut filler = answer.as_bytes();
                while stream.write_all(filler).await.is_ok() && endless {
                    filler = &[b'x'; 4096];
                }
            });
        }
    });
    address
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn check(address: SocketAddr, more: &str) -> std::sync::Arc<dyn regent_agent::driver::Driver> {
    driver(&format!("kind: http\nurl: http://{address}/healthz?token=hunter2\n{more}"))
}

#[tokio::test]
async fn status_and_body_are_checked() {
    let good = serve(answer("200 OK", "all is ok here"), false).await;
    assert_eq!(check(good, "expectBody: is ok").probe().await.health, Health::Healthy);
    assert!(check(good, "").verify().await.unwrap().already);
    let error = check(good, "expectBody: absent").verify().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("http-not-ready", true));
    let bad = serve(answer("503 Service Unavailable", "no"), false).await;
    let probe = check(bad, "").probe().await;
    assert_eq!(probe.health, Health::Failed);
    assert!(probe.detail.contains("503") && !probe.detail.contains("hunter2"), "{}", probe.detail);
    assert_eq!(check(bad, "expectStatus: 503").probe().await.health, Health::Healthy);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let moved = serve("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_owned(), false).await;
    assert_eq!(check(moved, "").probe().await.health, Health::Failed);
    assert_eq!(check(moved, "expectStatus: 302").probe().await.health, Health::Healthy);
}

#[tokio::test]
async fn silence_is_unknown_and_refusal_is_failure() {
    let silent = serve(String::new(), false).await;
    let probe = check(silent, "timeout: 200ms").probe().await;
    assert_eq!(probe.health, Health::Unknown, "{}", probe.detail);
    let nobody = check(([127, 0, 0, 1], free_port()).into(), "").probe().await;
    assert_eq!(nobody.health, Health::Failed, "{}", nobody.detail);
    assert!(!nobody.detail.contains("hunter2"), "{}", nobody.detail);
}

#[tokio::test]
async fn an_endless_body_is_cut() {
    let endless = serve("HTTP/1.1 200 OK\r\n\r\n".to_owned(), true).await;
    let probe = check(endless, "expectBody: never\ntimeout: 20s").probe().await;
    assert_eq!(probe.health, Health::Failed, "{}", probe.detail);
    assert!(probe.detail.contains("64 KiB"), "{}", probe.detail);
}

#[tokio::test]
async fn what_is_no_tls_is_told_so() {
    let plain = serve(answer("200 OK", ""), false).await;
    let probe = driver(&format!("kind: http\nurl: https://{plain}/")).probe().await;
    assert_ne!(probe.health, Health::Healthy, "{}", probe.detail);
    assert!(probe.detail.contains("cannot be asked"), "{}", probe.detail);
}
