//! `regentctl completion`.

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;

/// Prints completions for a shell.
#[derive(Args)]
#[command(after_help = "\
Examples:
  regentctl completion bash > /etc/bash_completion.d/regentctl
  regentctl completion zsh > ~/.zfunc/_regentctl
  regentctl completion fish > ~/.config/fish/completions/regentctl.fish")]
pub(crate) struct Completion {
    /// Which shell.
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut crate::cli::definition(), "regentctl", &mut text);
        crate::output::say(&String::from_utf8_lossy(&text));
        Ok(())
    }
}
