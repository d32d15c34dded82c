//! libpq's `key=value` connection strings: taken apart so that no secret ever stands on a command line.

use crate::secret::Secret;

/// Secrets beside the password, which libpq takes from no variable.
const SECRETS: [&str; 4] = ["sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"];

/// What may be seen of a connection string, and what may not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Apart {
    /// Without secrets.
    pub(super) target: String,
    pub(super) password: Option<Secret>,
    /// Other secrets, by their keys.
    pub(super) others: Vec<(String, Secret)>,
}

/// A connection string, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Conninfo {
    pairs: Vec<(String, Secret)>,
}

impl Conninfo {
    /// Takes a `key=value` string apart; none if it is malformed or a URI.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut pairs = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let key = key.trim();
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return None;
            }
            let (value, tail) = value(after.trim_start())?;
            pairs.push((key.to_owned(), Secret::new(value)));
            rest = tail.trim_start();
        }
        (!pairs.is_empty()).then_some(Self { pairs })
    }

    /// The last value of a key, as libpq takes it.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.expose())
    }

    /// Where the server is, as far as it is one: host or address, and port.
    pub(super) fn place(&self) -> Option<(String, u16)> {
        let host = self.get("host").or_else(|| self.get("hostaddr"))?;
        let port = self.get("port").map_or(Ok(5432), str::parse).ok()?;
        Some((host.to_owned(), port))
    }

    /// The string without its secrets, and those.
    pub(super) fn apart(&self) -> Apart {
        let password = self.get("password").map(Secret::new);
        let secret = |key: &str| key == "password" || SECRETS.contains(&key);
        let shown = self.pairs.iter().filter(|(key, _)| !secret(key));
        let target: Vec<String> = shown.map(|(key, value)| format!("{key}={}", quoted(value.expose()))).collect();
        let others = SECRETS.iter().filter_map(|key| Some(((*key).to_owned(), Secret::new(self.get(key)?))));
        Apart { target: target.join(" "), password, others: others.collect() }
    }
}

fn value(text: &str) -> Option<(String, &str)> {
    let quote = text.starts_with('\'');
    let body = if quote { &text[1..] } else { text };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quote => return Some((value, &body[at + 1..])),
            space if !quote && space.is_ascii_whitespace() => return Some((value, &body[at..])),
            other => value.push(other),
        }
    }
    (!quote).then_some((value, ""))
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart_and_hides_the_password() {
        let conninfo = Conninfo::parse("host=127.0.0.1 port = 5433 password='it\\'s a \\\\' user=regent").unwrap();
        assert_eq!(conninfo.get("password"), Some("it's a \\"));
        let Apart { target, password, others } = conninfo.apart();
        assert_eq!(target, "host='127.0.0.1' port='5433' user='regent'");
        assert_eq!((password, others), (Some(Secret::new("it's a \\")), vec![]));
        let conninfo = Conninfo::parse("host=a sslpassword=one sslkey=/k sslpassword=hunter2").unwrap();
        let Apart { target, password, others } = conninfo.apart();
        assert_eq!(target, "host='a' sslkey='/k'");
        assert_eq!((password, others), (None, vec![("sslpassword".to_owned(), Secret::new("hunter2"))]));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for text in ["", "postgresql://a:b@c/d?e=f", "host", "host='open", "=x"] {
            assert_eq!(Conninfo::parse(text), None, "{text}");
        }
    }
}
