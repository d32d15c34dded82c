//! The key that signs witness nonces, and the text that is signed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use regent_proto::agent::v1::SignedLease;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be used.
    #[error("cannot use the witness key {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file holds no key.
    #[error("{path} holds no Ed25519 key; remove it, and the agent makes a new one")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// The key of this agent.
pub struct WitnessKey(Ed25519KeyPair);

impl WitnessKey {
    /// Reads it, or makes it at the first start, for the owner alone.
    ///
    /// # Errors
    /// If it cannot be read, made or understood.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join("witness-key.pk8");
        let io = |source| KeyError::Io { path: path.clone(), source };
        let damaged = || KeyError::Damaged { path: path.clone() };
        match std::fs::read(&path) {
            Ok(bytes) => Ed25519KeyPair::from_pkcs8(&bytes).map(Self).map_err(|_| damaged()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pair = Ed25519KeyPair::generate().map_err(|_| damaged())?;
                let document = pair.to_pkcs8().map_err(|_| damaged())?;
                let new = path.with_extension("new");
                let mut options = std::fs::OpenOptions::new();
                let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(io)?;
                file.write_all(document.as_ref()).and_then(|()| file.sync_all()).map_err(io)?;
                std::fs::rename(&new, &path).map_err(io)?;
                Ok(Self(pair))
            }
            Err(error) => Err(io(error)),
        }
    }

    /// The public half, 32 bytes.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, text: &str) -> Vec<u8> {
        self.0.sign(text.as_bytes()).as_ref().to_vec()
    }
}

/// True if the signature over the text is by this key.
#[must_use]
pub fn verify(key: &[u8], text: &str, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), signature).is_ok()
}

/// What is signed.
#[must_use]
pub fn canonical(nonce: &[u8], cluster: &str, installation: &str, leases: &[SignedLease]) -> String {
    let mut text = "regent-witness/1\n".to_owned();
    for byte in nonce {
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(text, "\n{cluster}\n{installation}\n");
    for lease in leases {
        let _ = writeln!(text, "{} {}", lease.application, lease.epoch);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_stays_and_its_signature_is_bound_to_the_text() {
        let directory = tempfile::tempdir().unwrap();
        let key = WitnessKey::open(directory.path()).unwrap();
        let again = WitnessKey::open(directory.path()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_eq!(key.public().len(), 32);
        let mode = std::fs::metadata(directory.path().join("witness-key.pk8")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let leases = [SignedLease { application: "shop".to_owned(), epoch: 3 }];
        let text = canonical(&[0xab, 1], "a", "i", &leases);
        assert_eq!(text, "regent-witness/1\nab01\na\ni\nshop 3\n");
        let signature = again.sign(&text);
        assert!(verify(&key.public(), &text, &signature));
        assert!(!verify(&key.public(), &canonical(&[0xab, 2], "a", "i", &leases), &signature));
        assert!(!verify(&key.public(), &canonical(&[0xab, 1], "a", "i", &[]), &signature));
    }
}
