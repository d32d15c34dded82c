//! How regions are connected, each direction by itself, and the rules of the filter that make it so.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// One direction between two regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Everything passes.
    Clear,
    /// One packet in so many hundred is lost, at random.
    Lossy {
        /// Per cent.
        percent: u8,
    },
    /// Everything arrives so much later, except for what is lost on the way.
    Slow {
        /// Milliseconds, this direction alone.
        millis: u16,
        /// Per cent that are lost, at random.
        percent: u8,
    },
    /// Nothing passes, and nobody is told.
    Cut,
}

/// Directions that are not clear; see the module. Regions go by their place in the world.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weather {
    links: BTreeMap<(usize, usize), Link>,
}

impl Weather {
    /// From `from` to `to`, and not the other way.
    pub fn one_way(&mut self, from: usize, to: usize, link: Link) {
        match link {
            Link::Clear => self.links.remove(&(from, to)),
            Link::Lossy { .. } | Link::Slow { .. } | Link::Cut => self.links.insert((from, to), link),
        };
    }

    /// Both ways.
    pub fn between(&mut self, one: usize, other: usize, link: Link) {
        self.one_way(one, other, link);
        self.one_way(other, one, link);
    }

    /// Between `region` and each of the others.
    pub fn around(&mut self, region: usize, others: &[usize], link: Link) {
        for other in others.iter().filter(|other| **other != region) {
            self.between(region, *other, link);
        }
    }

    /// Everything passes everywhere.
    pub fn clear(&mut self) {
        self.links.clear();
    }

    /// How long packets take, where they do not pass at once.
    #[must_use]
    pub fn delays(&self) -> BTreeMap<(usize, usize), Duration> {
        let slow = self.links.iter().filter_map(|(way, link)| match link {
            Link::Slow { millis, .. } => Some((*way, Duration::from_millis((*millis).into()))),
            Link::Clear | Link::Lossy { .. } | Link::Cut => None,
        });
        slow.collect()
    }

    /// The whole table of the filter, which takes the place of the one before in one transaction.
    #[must_use]
    pub fn rules(&self) -> String {
        let mut text = String::from(
            "table inet world\ndelete table inet world\ntable inet world {\n  chain forward {\n    \
             type filter hook forward priority 0; policy accept;\n",
        );
        for ((from, to), link) in &self.links {
            let matched = match link {
                Link::Clear => continue,
                Link::Lossy { percent: 0 } | Link::Slow { percent: 0, .. } => continue,
                Link::Lossy { percent } | Link::Slow { percent, .. } => format!(" numgen random mod 100 < {percent}"),
                Link::Cut => String::new(),
            };
            // By the address and not by the next link: what is slow goes by way of the relay. Writing to a string does not
            // fail.
            let _written = writeln!(text, "    iifname \"r{from}\" ip daddr 10.77.{to}.0/24{matched} drop");
        }
        text.push_str("  }\n}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_its_own_rule() {
        let mut weather = Weather::default();
        weather.around(0, &[0, 1, 2], Link::Cut);
        weather.one_way(1, 0, Link::Clear);
        weather.one_way(1, 2, Link::Lossy { percent: 5 });
        let rules = weather.rules();
        let rules: Vec<&str> = rules.lines().map(str::trim).filter(|line| line.ends_with("drop")).collect();
        assert_eq!(
            rules,
            [
                r#"iifname "r0" ip daddr 10.77.1.0/24 drop"#,
                r#"iifname "r0" ip daddr 10.77.2.0/24 drop"#,
                r#"iifname "r1" ip daddr 10.77.2.0/24 numgen random mod 100 < 5 drop"#,
                r#"iifname "r2" ip daddr 10.77.0.0/24 drop"#,
            ]
        );
        weather.between(0, 1, Link::Slow { millis: 200, percent: 0 });
        let delay = Duration::from_millis(200);
        assert_eq!(weather.delays(), BTreeMap::from([((0, 1), delay), ((1, 0), delay)]));
        assert!(!weather.rules().contains("10.77.1.0/24 drop"), "what is slow arrives");
        weather.clear();
        assert_eq!(weather, Weather::default());
        assert!(!weather.rules().contains("drop"));
    }
}
