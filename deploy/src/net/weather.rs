//! How regions are connected, each direction by itself, and the rules of the filter that make it so.

use std::collections::BTreeMap;
use std::fmt::Write;

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
            Link::Lossy { .. } | Link::Cut => self.links.insert((from, to), link),
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
                Link::Lossy { percent } => format!(" numgen random mod 100 < {percent}"),
                Link::Cut => String::new(),
            };
            // Writing to a string does not fail.
            let _written = writeln!(text, "    iifname \"r{from}\" oifname \"r{to}\"{matched} drop");
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
                r#"iifname "r0" oifname "r1" drop"#,
                r#"iifname "r0" oifname "r2" drop"#,
                r#"iifname "r1" oifname "r2" numgen random mod 100 < 5 drop"#,
                r#"iifname "r2" oifname "r0" drop"#,
            ]
        );
        weather.clear();
        assert_eq!(weather, Weather::default());
        assert!(!weather.rules().contains("drop"));
    }
}
