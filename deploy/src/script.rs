//! Small scripts that an agent can be told to run: they stand in the world's folder with every path spelled out.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Writes a shell script that can be run.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, body: &str) -> Result<PathBuf> {
    std::fs::write(path, format!("#!/bin/sh\nset -eu\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n{body}"))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_owned())
}

/// A word for the shell.
#[must_use]
pub fn quote(word: impl AsRef<str>) -> String {
    format!("'{}'", word.as_ref().replace('\'', r"'\''"))
}

/// A path for the shell.
#[must_use]
pub fn quote_path(path: &Path) -> String {
    quote(path.display().to_string())
}

/// What a database passes before it starts.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Files whose being there keeps it down: somebody switched it, or the machine under it, off.
    pub switches: Vec<PathBuf>,
    /// The agent's `gate` command, with arguments; it closes a database that must not open by itself.
    pub command: Vec<String>,
    /// What the gate reads. Who may not is the database's own user, as whom the agent starts what it has closed itself.
    pub file: PathBuf,
}

impl Gate {
    /// The lines at the head of a start script.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for switch in &self.switches {
            let path = quote_path(switch);
            lines.push_str(&format!(
                "if [ -e {path} ]; then echo 'switched off: remove '{path}' to switch on' >&2; exit 1; fi\n"
            ));
        }
        if !self.command.is_empty() {
            let words: Vec<String> = self.command.iter().map(quote).collect();
            lines.push_str(&format!("if [ -r {} ]; then {}; fi\n", quote_path(&self.file), words.join(" ")));
        }
        lines
    }
}
