//! Certificates that the program makes work between its own processes and a coordinator.

use std::os::unix::fs::PermissionsExt;

use regent_proto::tls::TlsFiles;

use crate::terminal::{bare, finish};

async fn certs(dir: &std::path::Path, arguments: &[&str]) -> crate::terminal::Said {
    let mut all = vec!["certs"];
    all.extend(arguments);
    all.extend(["--dir", dir.to_str().unwrap()]);
    finish(bare(&all)).await
}

#[tokio::test]
async fn a_whole_set_is_made_and_loads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/folder");
    for arguments in [
        ["ca", "--group", "prod"].as_slice(),
        &["coordinator", "1", "--name", "10.0.0.1"],
        &["agent", "eu-west-1"],
        &["operator", "ann"],
        &["operator", "bob", "--file", "bob"],
    ] {
        let said = certs(&path, arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    }
    for (stem, identity) in [
        ("coordinator-1", "coordinator/1"),
        ("agent-eu-west-1", "agent/eu-west-1"),
        ("operator", "operator/ann"),
        ("bob", "operator/bob"),
    ] {
        let key = path.join(format!("{stem}-key.pem"));
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let certificate = path.join(format!("{stem}.pem"));
        let tls = TlsFiles { ca: path.join("ca.pem"), certificate, key }.load().unwrap();
        assert_eq!((tls.group(), tls.identity().to_string().as_str()), ("prod", identity));
    }
}

#[tokio::test]
async fn mistakes_are_told_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let early = certs(dir.path(), &["operator", "ann"]).await;
    assert_eq!(early.code, 1);
    assert!(early.err.contains("make the authority first"), "{}", early.err);
    assert_eq!(certs(dir.path(), &["ca"]).await.code, 0);
    let again = certs(dir.path(), &["ca"]).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("--force"), "{}", again.err);
    assert_eq!(certs(dir.path(), &["ca", "--force"]).await.code, 0);
    assert_eq!(certs(dir.path(), &["operator", "a/b"]).await.code, 1);
    assert_eq!(certs(dir.path(), &["ca", "--days", "0"]).await.code, 2);
    assert_eq!(certs(dir.path(), &["coordinator", "one"]).await.code, 2);
}
