//! `regentctl schema`.

use clap::Args;

use crate::failure::Failure;

/// Prints the JSON schema of Application documents, for editors. Needs no coordinator.
#[derive(Args)]
#[command(after_help = "\
Examples:
  regentctl schema > application.schema.json
  # then, in the first line of a document:
  # yaml-language-server: $schema=application.schema.json")]
pub(crate) struct Schema {}

impl Schema {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Self {} = self;
        let text = serde_json::to_string_pretty(&regent_core::application::json_schema())
            .map_err(|error| Failure::failed(format!("the schema cannot be printed: {error}")))?;
        crate::output::say(&text);
        Ok(())
    }
}
