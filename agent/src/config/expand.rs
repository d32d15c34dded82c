//! `${file:PATH}` and `${env:NAME}` inside a secret.
//!
//! A message names the file or the variable, never what is in it.

use std::path::Path;

/// The largest secret file that is read.
const FILE_LIMIT: u64 = 64 * 1024;

/// Whether a text refers to a file or a variable.
pub(super) fn refers(text: &str) -> bool {
    text.match_indices("${").any(|(at, _)| !text[..at].ends_with('$'))
}

/// Replaces every reference. `$${` stands for a literal `${`. A relative path starts at `folder`.
pub(super) fn expand(text: &str, folder: &Path) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or("a `${` has no `}`; write `$${` for a literal one")?;
        out.push_str(&resolve(&inner[..end], folder)?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn resolve(reference: &str, folder: &Path) -> Result<String, String> {
    match reference.split_once(':') {
        Some(("file", path)) if !path.is_empty() => read(&folder.join(path)),
        Some(("env", name)) if !name.is_empty() => match std::env::var(name) {
            Ok(value) if !value.is_empty() => Ok(value),
            Ok(_) => Err(format!("the environment variable {name} is empty; set it for the agent")),
            Err(std::env::VarError::NotPresent) => {
                Err(format!("the environment variable {name} is not set; set it for the agent"))
            }
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8")),
        },
        _ => Err("a reference is `${file:PATH}` or `${env:NAME}`; write `$${` for a literal `${`".to_owned()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("the secret file {shown} cannot be read ({error}); create it");
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_LIMIT {
        return Err(format!("the secret file {shown} has {length} bytes; at most {FILE_LIMIT} are read"));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("the secret file {shown} is not UTF-8"))?;
    // Editors and `echo` end a file with a line feed that is no part of the secret.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("the secret file {shown} is empty; write the secret into it"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "s3cret\n").unwrap();
        let text = "host=a password=${file:password} dbname=postgres";
        assert!(refers(text));
        assert_eq!(expand(text, folder.path()).unwrap(), "host=a password=s3cret dbname=postgres");
    }

    #[test]
    fn a_doubled_dollar_is_literal() {
        assert!(!refers("a$${file:x}"));
        assert_eq!(expand("a$${file:x}b", Path::new("/")).unwrap(), "a${file:x}b");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = expand("${file:/nowhere/password}", Path::new("/")).unwrap_err();
        assert!(error.contains("/nowhere/password"), "{error}");
        let error = expand("${env:REGENT_TEST_UNSET}", Path::new("/")).unwrap_err();
        assert!(error.contains("REGENT_TEST_UNSET"), "{error}");
        assert!(expand("${file:/x", Path::new("/")).is_err());
        assert!(expand("${vault:x}", Path::new("/")).is_err());
    }

    #[test]
    fn an_empty_file_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        assert!(expand("${file:empty}", folder.path()).unwrap_err().contains("is empty"));
    }
}
