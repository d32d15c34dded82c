//! What must be refused by name, with the world untouched: one living world, everything thrown at it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use regent_deploy::certs;
use regent_deploy::config::APPLICATION;
use regent_deploy::wait;
use regent_proto::agent::v1::agent_service_client::AgentServiceClient;
use regent_proto::agent::v1::connect_request::Body;
use regent_proto::agent::v1::connect_response::Body as Answer;
use regent_proto::agent::v1::{ConnectRequest, Hello};
use regent_proto::tls::{ChannelOptions, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_garbage_change_nothing() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let epoch = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;

    strangers(&scene).await?;
    for port in scene.tcp_ports()? {
        for garbage in garbages() {
            throw(port, &garbage).await.with_context(|| format!("at {port}"))?;
        }
    }
    for region in scene.world.regions() {
        throw_datagrams(region.place().dns).await?;
    }

    scene.world.protected(scene.old(), scene.other()).await?;
    let after = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    let record = writer.stop().await?;
    ensure!(record.failed == 0, "{} writes failed meanwhile: {:?}", record.failed, record.last_error);
    scene.end().await
}

/// Whoever is not who it says is refused, and told why.
async fn strangers(scene: &Scene) -> Result<()> {
    let certificates = scene.world.folder().join("certs");
    let coordinator = scene.world.regions()[0].place().listen;
    let hello = |cluster: &str, group: &str| Hello {
        group: group.into(),
        cluster: cluster.into(),
        region: "eu-west".into(),
        installation: uuid::Uuid::new_v4().to_string(),
        incarnation: 1,
        ..Hello::default()
    };
    let central = TlsFiles {
        ca: certificates.join("ca.pem"),
        certificate: certificates.join("agent-eu-central-1.pem"),
        key: certificates.join("agent-eu-central-1-key.pem"),
    };
    let operator = TlsFiles {
        ca: certificates.join("ca.pem"),
        certificate: certificates.join("operator.pem"),
        key: certificates.join("operator-key.pem"),
    };
    let claimed = say(&central, coordinator, hello("eu-west-1", "")).await;
    ensure!(claimed.contains("the certificate is that of agent eu-central-1"), "another's identity: {claimed}");
    let second = say(&central, coordinator, hello("eu-central-1", "")).await;
    ensure!(second.contains("belongs to installation"), "another installation: {second}");
    let elsewhere = say(&central, coordinator, hello("eu-central-1", "00000000-0000-4000-8000-000000000000")).await;
    ensure!(elsewhere.contains("belongs to group"), "another group: {elsewhere}");
    let role = say(&operator, coordinator, hello("eu-west-1", "")).await;
    ensure!(role.contains("this service is for agents"), "an operator as agent: {role}");

    let foreign = scene.world.folder().join("foreign");
    certs::make(&foreign, &[(1, coordinator.ip())], &[("eu-west-1", coordinator.ip())]).await?;
    let stranger = foreign_operator(&foreign, &certificates, coordinator).await;
    ensure!(stranger.contains("was not issued by the authority"), "foreign: {stranger}");
    Ok(())
}

/// An operator of another authority asks this group.
async fn foreign_operator(foreign: &Path, certificates: &Path, coordinator: SocketAddr) -> String {
    let text = |path: &Path| path.display().to_string();
    let words = [
        "--endpoints".to_owned(),
        coordinator.to_string(),
        "--ca".to_owned(),
        text(&certificates.join("ca.pem")),
        "--cert".to_owned(),
        text(&foreign.join("operator.pem")),
        "--key".to_owned(),
        text(&foreign.join("operator-key.pem")),
        "status".to_owned(),
    ];
    match regent_deploy::ctl::run(words).await {
        Ok(answer) => format!("it was answered: {answer}"),
        Err(error) => format!("{error:#}"),
    }
}

/// Says one Hello and gives what came back.
async fn say(files: &TlsFiles, coordinator: SocketAddr, hello: Hello) -> String {
    let spoken = async {
        let tls = files.load()?;
        let channel = tls.channel(&coordinator.to_string(), ChannelOptions::heartbeat(Duration::from_secs(1)))?;
        let mut client = AgentServiceClient::new(channel);
        let request = ConnectRequest { body: Some(Body::Hello(hello)) };
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(request).await?;
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers =
            client.connect(stream).await.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner();
        match answers.message().await.map_err(|status| anyhow::anyhow!("{}", status.message()))? {
            Some(answer) => match answer.body {
                Some(Answer::Refusal(refusal)) => bail!("{}", refusal.message),
                other => Ok(format!("it was answered: {other:?}")),
            },
            None => Ok("the stream ended without a word".to_owned()),
        }
    };
    match tokio::time::timeout(Duration::from_secs(10), spoken).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "no answer".to_owned(),
    }
}

fn garbages() -> Vec<Vec<u8>> {
    let mut noise = Vec::new();
    let mut seed: u32 = 0x9e37_79b9;
    while noise.len() < 64 * 1024 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((seed >> 24) as u8);
    }
    vec![
        noise,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\xff".to_vec(),
        vec![0x16, 0x03, 0x01, 0xff, 0xff, 0x01],
        vec![0; 70_000],
        Vec::new(),
    ]
}

/// Connects, throws, and hears what comes until it is cut off or nothing more comes.
async fn throw(port: SocketAddr, garbage: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(port).await.context("nobody listens")?;
    // It may be cut off in the middle; that is its right.
    let _ = stream.write_all(garbage).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
    Ok(())
}

async fn throw_datagrams(port: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    for garbage in garbages() {
        let _ = socket.send_to(&garbage[..garbage.len().min(4096)], port).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_an_agent_is_named() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let document = std::fs::read_to_string(scene.world.document())?;
    let other = document
        .replace(&format!("name: {APPLICATION}\n"), "name: other\n")
        .replace("shop.regent.test.", "other.regent.test.")
        .replace("eu-west-1, eu-central-1", "mars-1, eu-west-1");
    let file = scene.world.folder().join("other.yaml");
    std::fs::write(&file, other)?;
    scene.world.ctl().apply(&file).await?;
    wait::until("the reason", Duration::from_secs(20), || async {
        let why = scene.world.ctl().run(&["why", "other"]).await?;
        ensure!(why.contains("mars-1"), "{why}");
        Ok(())
    })
    .await?;
    let status = scene.world.ctl().status().await?;
    ensure!(status.application("other")?.epoch == 0, "it was adopted without an agent");
    scene.end().await
}
