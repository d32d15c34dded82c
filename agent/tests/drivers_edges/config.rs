//! agent.yaml: defaults, mistakes with their line, and secrets that stay secret.

use std::path::Path;
use std::time::Duration;

use regent_agent::config::{Config, ConfigError, ResourceConfig};

use crate::support::{document, parse};

const MINIMAL: &str = "cluster: eu-west-1
region: eu-west
coordinators: [127.0.0.1:7101, regent.example.test:7101]
listen: 127.0.0.1:7401
admin: 127.0.0.1:7501
dataDirectory: /var/lib/regent/agent
runtimeDirectory: /run/regent/agent
tls: { ca: ca.pem, certificate: a.pem, key: a-key.pem }
";

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/regent/agent.yaml"))
}

/// The mistake of a changed document, which must name this line.
fn mistake(text: &str, line: u64) -> String {
    let error = load(text).expect_err(text);
    let message = error.to_string();
    assert_eq!(error.line(), Some(line), "{message}\n{text}");
    assert!(message.starts_with(&format!("/etc/regent/agent.yaml: line {line}, ")), "{message}");
    message
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = load(MINIMAL).unwrap();
    assert_eq!(config.advertise, "127.0.0.1:7401");
    assert_eq!(config.probe_interval, Duration::from_secs(1));
    assert_eq!(config.log, "info");
    assert_eq!(config.resolvers, None);
    assert!(config.applications.is_empty());
    let shown = config.to_yaml_redacted().unwrap();
    assert!(shown.contains("probeInterval: 1s") && shown.contains("advertise: 127.0.0.1:7401"), "{shown}");
}

#[test]
fn every_mistake_has_its_line() {
    for (from, to, line, says) in [
        ("region: eu-west", "region: eu-west\nregoin: x", 3, "unknown key `regoin`"),
        ("region: eu-west", "region: EU_WEST", 2, "is not a name"),
        ("region: eu-west", "region: 7", 2, "put it into quotes"),
        ("region: eu-west\n", "", 1, "the key `region` is missing"),
        ("127.0.0.1:7101, ", "nowhere, ", 3, "write host:port"),
        ("[127.0.0.1:7101, regent.example.test:7101]", "[]", 3, "list the address"),
        ("listen: 127.0.0.1:7401", "listen: localhost:7401", 4, "is not an address"),
        ("listen: 127.0.0.1:7401", "listen: 0.0.0.0:7401", 1, "other agents cannot reach"),
        ("admin: 127.0.0.1:7501", "admin: 10.0.0.1:7501", 5, "loopback"),
        ("admin: 127.0.0.1:7501", "admin: 127.0.0.1:7401", 5, "another port"),
        ("/run/regent/agent", "/var/lib/regent/../regent/agent/.", 7, "runtimeDirectory"),
        ("/run/regent/agent", "run", 7, "not an absolute path"),
        ("key: a-key.pem", "kee: a-key.pem", 8, "unknown key `kee`"),
        ("region: eu-west", "region: eu-west\nlog: \"a=b=c\"", 3, "not a filter"),
        ("region: eu-west", "region: eu-west\nprobeInterval: 1", 3, "put it into quotes"),
        ("region: eu-west", "region: eu-west\nprobeInterval: 0s", 3, "longer than 0"),
        ("region: eu-west", "region: eu-west\nregion: eu-west", 3, "duplicate"),
        ("region: eu-west", "region: \"${env:HOME}\"", 2, "hold a secret"),
        ("region: eu-west", "region: [", 4, "did not find"),
    ] {
        let changed = MINIMAL.replacen(from, to, 1);
        assert_ne!(changed, MINIMAL, "{from}");
        let message = mistake(&changed, line);
        assert!(message.contains(says), "{message}");
    }
}

/// The first line of the resource in a document is line 13.
#[test]
fn mistakes_in_resources_have_their_line_and_path() {
    for (resource, line, says) in [
        ("kind: command\nactivate: [/bin/true]\nactivat: [/bin/true]", 15, "shop.it: unknown key `activat`"),
        ("kind: command\nactivate: [true]", 14, "shop.it.activate[0]: expected a text"),
        ("kind: command\nactivate: [\"bin/true\"]", 14, "is not an absolute path"),
        ("kind: command\nactivate: []", 14, "a command needs a program"),
        ("kind: command\nactivate: [/bin/echo, \"${env:HOME}\"]", 14, "shop.it.activate[1]"),
        ("kind: command\ntimeout: soon", 14, "shop.it.timeout: \"soon\" is not a length of time"),
        ("kind: mongo", 13, "shop.it.kind: unknown value `mongo`"),
        ("url: http://127.0.0.1/", 13, "the key `kind` is missing"),
        ("kind: http", 13, "the key `url` is missing"),
        ("kind: http\nurl: ftp://127.0.0.1/", 14, "write http://"),
        ("kind: http\nurl: http://127.0.0.1/\nexpectStatus: 99999", 15, "expectStatus"),
        ("kind: http\nurl: http://me:hunter2@127.0.0.1/", 14, "cannot be part of the URL"),
        ("kind: dns\naddresses: [127.0.0.11, 127.0.0.256]", 14, "addresses[1]"),
        ("kind: dns\naddresses: [127.0.0.11]", 13, "authorities is empty"),
        ("kind: dns\naddresses: []\nauthorities: [127.0.0.1:53]", 13, "addresses is empty"),
        ("kind: dns\naddresses: [127.0.0.11]\nupdate:\n  server: 127.0.0.1:53\n  zone: a.\n  kee: 1", 18, "`kee`"),
    ] {
        let message = mistake(&document(resource), line);
        assert!(message.contains(says), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn one_server_is_in_one_application() {
    let redis = |name: &str, address: &str| {
        let options = "password: hunter2, pidFile: /p, start: [/bin/true], stop: [/bin/true]";
        format!("  {name}:\n    cache: {{ kind: redis, {address}, {options} }}\n")
    };
    let both = |first: &str, second: &str| {
        load(&format!("{MINIMAL}applications:\n{}{}", redis("shop", first), redis("store", second)))
    };
    let error = both("port: 6379", "host: localhost, port: 6379").unwrap_err().to_string();
    assert!(error.contains("shop.cache and store.cache are the same server, 127.0.0.1:6379"), "{error}");
    both("port: 6379", "port: 6380").unwrap();
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nowhere/agent.yaml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/agent.yaml"), "{error}");
}

fn with_secret(secret: &str) -> String {
    format!(
        "kind: dns\naddresses: [127.0.0.11]\nupdate:\n  server: 127.0.0.1:53\n  zone: example.test.\n  key:\n    name: \
         regent.\n    secret: {secret}"
    )
}

#[test]
fn a_secret_is_read_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "aHVudGVyMmh1bnRlcjI=\n").unwrap();
    let config = parse(&with_secret(&format!("${{file:{}}}", file.display()))).unwrap();
    let resource = config.applications.values().next().unwrap().values().next().unwrap();
    let ResourceConfig::Dns(options) = resource else { panic!("{resource:?}") };
    assert_eq!(options.update.as_ref().unwrap().key.secret.expose(), "aHVudGVyMmh1bnRlcjI=");
    for shown in [format!("{config:?}"), format!("{config:#?}"), config.to_yaml_redacted().unwrap()] {
        assert!(!shown.contains("aHVudGVy"), "{shown}");
    }
}

#[test]
fn what_a_secret_refers_to_must_be_there() {
    let message = mistake(&document(&with_secret("${file:/nowhere/key}")), 20);
    assert!(message.contains("shop.it.update.key.secret: ") && message.contains("/nowhere/key"), "{message}");
    let message = mistake(&document(&with_secret("${env:REGENT_TEST_UNSET}")), 20);
    assert!(message.contains("REGENT_TEST_UNSET"), "{message}");
}

#[test]
fn no_message_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "hunter2 is not base64").unwrap();
    let read = format!("${{file:{}}}", file.display());
    for (secret, line) in [(read.as_str(), 19), ("\"hunter2!\"", 19), ("[hunter2]", 20), ("{ hunter2: x }", 20)] {
        let error = load(&document(&with_secret(secret))).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert_eq!(error.line(), Some(line), "{error}");
    }
    let error = load(&document(&with_secret("\"hunter2"))).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[test]
fn what_check_config_shows_has_no_secret() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2").unwrap();
    let reference = format!("${{file:{}}}", file.path().display());
    let text = document(&format!(
        "kind: postgres\ndataDirectory: /d\nsocketDirectory: /s\nowner: o\ndatabase: d\npassword: hunter2\nport: 5432\n\
         start: [/bin/true]\nstop: [/bin/true]\nupstreams: {{ a: \"host=x password=hunter2 dbname=y\", b: \
         \"password={reference} dbname=y\" }}",
    ));
    let config = load(&text).unwrap();
    let shown = config.to_yaml_redacted().unwrap();
    assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"), "{shown}");
    assert!(shown.contains(&format!("{reference} dbname=y")) && shown.contains("5432"), "{shown}");
    let command = "kind: command\nenvironment: { TOKEN: hunter2 }\nactivate: [/bin/true, x]";
    let shown = parse(command).unwrap().to_yaml_redacted().unwrap();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("TOKEN: ") && shown.contains("timeout: 30s") && shown.contains("/bin/true"), "{shown}");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let shown = parse("kind: http\nurl: http://127.0.0.1/").unwrap().to_yaml_redacted().unwrap();
    let again = load(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(again.to_yaml_redacted().unwrap(), shown);
}
