//! A document from an application: what is shown to a human, and what can be applied again.

use std::fmt::{self, Write};

use super::draft::{API_VERSION, KIND};
use super::{Action, Application, Line, Resource, default};
use crate::id::ResourceId;

/// Prints a document that [`super::parse`] reads as the same application. Settings are spelled out, the options of a
/// runbook's line only where they differ from the defaults.
#[must_use]
pub fn to_yaml(application: &Application) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = document(&mut text, application);
    text
}

fn document(out: &mut String, application: &Application) -> fmt::Result {
    let Application { name, objectives, clusters, resources, automation, runbooks, drills } = application;
    writeln!(out, "apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata:\n  name: {}\nspec:", word(name.as_str()))?;
    writeln!(out, "  objectives: {{ rto: {}, rpo: {} }}", objectives.rto, objectives.rpo)?;
    writeln!(out, "  clusters: [{}]", words(clusters.iter().map(|cluster| cluster.as_str())))?;
    writeln!(out, "  resources:")?;
    for (id, resource) in resources {
        writeln!(out, "    {}: {{ {} }}", word(id.as_str()), fields(resource))?;
    }
    writeln!(out, "  automation:")?;
    writeln!(out, "    mode: {}", automation.mode)?;
    writeln!(out, "    failoverAfter: {}", automation.bound.fail_over_after)?;
    writeln!(out, "    cooldown: {}", automation.cooldown)?;
    writeln!(out, "    maxDataLoss: {}", automation.max_data_loss)?;
    writeln!(out, "    beyondMaxDataLoss: {}", automation.beyond_max_data_loss)?;
    writeln!(out, "    maxWriteOutage: {}", automation.max_write_outage)?;
    if let Some(within) = automation.commit_within {
        writeln!(out, "    commitWithin: {within}")?;
    }
    writeln!(out, "    twoPerson: {}", automation.two_person)?;
    writeln!(out, "    approveWithin: {}", automation.approve_within)?;
    writeln!(out, "    onSilence: {}", automation.on_silence)?;
    writeln!(out, "    onCoordinatorLoss: {}", automation.on_coordinator_loss)?;
    writeln!(out, "    probeFailures: {}", automation.probe_failures)?;
    if let Some(drills) = drills {
        let cluster = drills.cluster.as_ref().map(|cluster| format!(", in: {}", word(cluster.as_str())));
        writeln!(out, "  drills: {{ every: {}{} }}", drills.every, cluster.unwrap_or_default())?;
    }
    writeln!(out, "  runbooks:")?;
    for (name, runbook) in runbooks {
        writeln!(out, "    {}:", word(name))?;
        for step in &runbook.lines {
            line(out, name, step)?;
        }
    }
    Ok(())
}

fn fields(resource: &Resource) -> String {
    let mut fields = vec![format!("kind: {}", resource.kind)];
    if !resource.after.is_empty() {
        fields.push(format!("after: [{}]", words(resource.after.iter().map(ResourceId::as_str))));
    }
    if let Some(dns) = &resource.dns {
        fields.push(format!("name: {}, ttl: {}, provider: {}", word(&dns.name), dns.ttl, dns.provider));
    }
    fields.join(", ")
}

fn line(out: &mut String, runbook: &str, line: &Line) -> fmt::Result {
    let mut resources = line.resources.iter().map(ResourceId::as_str);
    write!(out, "      - {}: ", line.action)?;
    match line.action {
        Action::Wait => writeln!(out, "{}", line.duration.unwrap_or_default())?,
        Action::Approve => writeln!(out, "{}", quoted(&line.question))?,
        Action::Run => {
            let resource = word(resources.next().unwrap_or_default());
            writeln!(out, "{{ resource: {resource}, command: {} }}", word(&line.command))?;
        }
        Action::Fence
        | Action::Quiesce
        | Action::CatchUp
        | Action::Promote
        | Action::Activate
        | Action::Deactivate
        | Action::Redirect
        | Action::Verify
        | Action::Rejoin
        | Action::Restore => writeln!(out, "[{}]", words(resources))?,
    }
    if line.timeout != default::timeout_in(runbook, line.action, line.duration) {
        writeln!(out, "        timeout: {}", line.timeout)?;
    }
    if line.retries != default::retries(line.action) {
        writeln!(out, "        retries: {}", line.retries)?;
    }
    if line.on_failure != default::ON_FAILURE {
        writeln!(out, "        onFailure: {}", line.on_failure)?;
    }
    if let Some(manner) = line.when {
        writeln!(out, "        when: {manner}")?;
    }
    if line.always {
        writeln!(out, "        always: true")?;
    }
    Ok(())
}

fn words<'w>(names: impl Iterator<Item = &'w str>) -> String {
    names.map(word).collect::<Vec<_>>().join(", ")
}

/// A name in quotes wherever some reader of YAML, old ones too, takes it for anything but text.
fn word(name: &str) -> String {
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&name);
    let letter = name.starts_with(|letter: char| letter.is_ascii_lowercase());
    if letter && !reserved { name.to_owned() } else { quoted(name) }
}

/// Text in double quotes, with everything escaped that is not plainly a character.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            _ if letter.is_alphanumeric() => quoted.push(letter),
            _ => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(letter));
            }
        }
    }
    quoted.push('"');
    quoted
}
