//! Every code that an operator can see has a page in deploy/runbooks, every page has a code, and what a page tells to
//! type exists.
//!
//! The codes are read from the source by the few ways in which they are raised there. A way that is new must be added
//! here: the codes that `KNOWN` names show that the ways of today are still found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where codes are raised.
const SOURCES: [&str; 3] = ["coordinator/core/src", "coordinator/src", "agent/src"];

/// What stands right before a code.
const OPENERS: [&str; 22] = [
    "rule(",
    "warning(",
    "refused(",
    "Broken(",
    "unfit(",
    "code: ",
    "rule: ",
    "Refused::new(",
    "Refused::for_now(",
    "DriverError::retryable(",
    "DriverError::permanent(",
    "Self::permanent(",
    "succeed(",
    "bounded(",
    "info(",
    "Severity::Warning, ",
    "Severity::Info, ",
    "restored, ",
    "&here, at, ",
    "NO_QUORUM: &str = ",
    "NO_EFFECT: &str = ",
    "NO_REPORT: &str = ",
];

/// The drivers' codes begin so, and are also chosen by a match before the error is made.
const PREFIXES: [&str; 10] =
    ["postgres-", "redis-", "dns-", "command-", "kubernetes-", "argocd-", "http-", "rewind-", "reclone-", "rejoin-"];

/// One of each way.
const KNOWN: [&str; 20] = [
    "time-bound",
    "resource-missing",
    "name-taken",
    "newer-terms",
    "quarantined",
    "less-preferred",
    "no-report",
    "fence-by-word",
    "foreign-installation",
    "leader-not-transferred",
    "no-quorum",
    "internal",
    "stale-token",
    "journal-full",
    "unsupported",
    "postgres-refused",
    "reclone-failed",
    "redis-files",
    "command-still-running",
    "exit-5",
];

#[test]
fn codes_and_pages_agree() -> io::Result<()> {
    let codes = codes()?;
    let pages: BTreeSet<String> = pages()?.into_keys().collect();
    let raised: BTreeSet<String> = codes.keys().cloned().collect();
    let unseen: Vec<&str> = KNOWN.into_iter().filter(|code| !codes.contains_key(*code)).collect();
    assert!(unseen.is_empty(), "not found in the source any more, or no longer raised: {}", unseen.join(", "));
    let missing: Vec<String> =
        raised.difference(&pages).map(|code| format!("deploy/runbooks/{code}.md, raised in {}", codes[code])).collect();
    assert!(missing.is_empty(), "pages are missing:\n  {}", missing.join("\n  "));
    let idle: Vec<&String> = pages.difference(&raised).collect();
    assert!(idle.is_empty(), "pages whose code nobody raises: {idle:?}");
    Ok(())
}

#[test]
fn pages_are_short_and_listed_once() -> io::Result<()> {
    let index = fs::read_to_string(runbooks().join("README.md"))?;
    let mut mistakes = Vec::new();
    for (code, text) in pages()? {
        if text.lines().next() != Some(&format!("# `{code}`")) {
            mistakes.push(format!("{code}.md does not begin with its code"));
        }
        let lines = text.lines().count();
        if !(8..=25).contains(&lines) {
            mistakes.push(format!("{code}.md has {lines} lines; a page has 8 to 25"));
        }
        if index.matches(&format!("- [{code}]({code}.md): ")).count() != 1 {
            mistakes.push(format!("README.md does not list {code} once"));
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !runbooks().join(link).is_file() {
                mistakes.push(format!("{code}.md: {link} is not there"));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    Ok(())
}

#[test]
fn pages_name_commands_that_exist() -> io::Result<()> {
    let mut typed = String::new();
    let mut commands = BTreeSet::new();
    for file in files(&root().join("coordinator/ctl/src"))? {
        typed.push_str(&fs::read_to_string(&file)?.replace('_', "-"));
        if file.parent().is_some_and(|folder| folder.ends_with("command")) {
            commands.extend(file.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    let mut mistakes = Vec::new();
    for (code, text) in pages()? {
        let spoken = text.split('`').map(str::trim).flat_map(str::lines);
        for line in spoken.filter_map(|line| line.strip_prefix("regentctl ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let known = |word: &&str| word.starts_with("--") || *word == "COMMAND" || commands.contains(*word);
            if !words.first().is_some_and(known) {
                mistakes.push(format!("{code}.md: there is no `regentctl {line}`"));
            }
            let options = words.iter().filter_map(|word| word.strip_prefix("--")).filter(|name| *name != "help");
            // Each option is a field of its command.
            for name in options.filter(|name| !typed.contains(&format!("{name}: "))) {
                mistakes.push(format!("{code}.md: regentctl has no option --{name}"));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    Ok(())
}

/// Each code, and where it is raised.
fn codes() -> io::Result<BTreeMap<String, String>> {
    let mut codes = BTreeMap::new();
    for source in SOURCES {
        for file in files(&root().join(source))? {
            let text = fs::read_to_string(&file)?;
            let place = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            for code in raised_in(&text, source.starts_with("agent")) {
                codes.entry(code.to_owned()).or_insert_with(|| place.clone());
            }
        }
    }
    let ends = "coordinator/ctl/src/failure.rs";
    let text = fs::read_to_string(root().join(ends))?;
    for number in text.lines().filter_map(|line| line.split_once(": u8 = ")?.1.strip_suffix(';')) {
        codes.insert(format!("exit-{number}"), ends.to_owned());
    }
    Ok(codes)
}

/// The codes in one file; its own tests are left out.
fn raised_in(text: &str, drivers: bool) -> Vec<&str> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let quotes = text.match_indices('"').filter_map(|(at, _)| {
        let (literal, after) = text.get(at + 1..)?.split_once('"')?;
        is_code(literal).then_some((text.get(..at)?.trim_end(), literal, after))
    });
    let raised = quotes.filter(|(before, literal, after)| {
        // A code is followed by its message or made a String; the `refused("tcp")` of a socket is neither.
        let opened =
            OPENERS.iter().any(|opener| before.ends_with(opener.trim_end())) && after.starts_with([',', '.', ';']);
        // The name of a program that a driver runs, or looks for, is no code.
        let run = before.ends_with("tool(") || before.ends_with("= [");
        let begins = drivers && PREFIXES.iter().any(|prefix| literal.starts_with(prefix));
        let chosen = begins && !run && after.starts_with([',', '.', ')']);
        opened || chosen
    });
    raised.map(|(_, literal, _)| literal).collect()
}

fn is_code(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    text.starts_with(|letter: char| letter.is_ascii_lowercase()) && text.chars().all(plain)
}

/// Each page by its code, without the index.
fn pages() -> io::Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(runbooks())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name != "README" {
            pages.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(pages)
}

/// All sources below a folder, but those of tests.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default();
        if name == "tests" || name == "properties" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn runbooks() -> PathBuf {
    root().join("deploy/runbooks")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
