//! libpq's `key=value` connection strings: taken apart so that a password never stands on a command line.

use crate::secret::Secret;

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

    /// The string without its password, and the password.
    pub(super) fn without_password(&self) -> (String, Option<Secret>) {
        let password = self.get("password").map(Secret::new);
        let text: Vec<String> = self
            .pairs
            .iter()
            .filter(|(key, _)| key != "password")
            .map(|(key, value)| format!("{key}={}", quoted(value.expose())))
            .collect();
        (text.join(" "), password)
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
        let (text, password) = conninfo.without_password();
        assert_eq!(text, "host='127.0.0.1' port='5433' user='regent'");
        assert_eq!(password, Some(Secret::new("it's a \\")));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for text in ["", "postgresql://a:b@c/d?e=f", "host", "host='open", "=x"] {
            assert_eq!(Conninfo::parse(text), None, "{text}");
        }
    }
}
