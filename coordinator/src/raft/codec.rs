//! CBOR behind a format number of two bytes, little endian: for the disk and for the wire.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Format of everything that this file writes. Raised when an older reader would misread it; then the reader of
/// the old form stays.
pub(crate) const FORMAT: u16 = 1;

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A newer release wrote it, or it is something else.
    #[error("its format is {found}, this release reads {FORMAT}")]
    Format {
        /// As it stands there.
        found: u16,
    },
    /// It ends before the format number.
    #[error("it is cut off")]
    Short,
    /// The format is right and the content is not.
    #[error("it cannot be decoded: {detail}")]
    Garbled {
        /// What the decoder says.
        detail: String,
    },
}

/// Encodes.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = FORMAT.to_le_bytes().to_vec();
    ciborium::into_writer(value, &mut bytes).map_err(|error| CodecError::Garbled { detail: error.to_string() })?;
    Ok(bytes)
}

/// Decodes what [`encode`] wrote, and nothing behind it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (format, mut content) = bytes.split_first_chunk::<2>().ok_or(CodecError::Short)?;
    let found = u16::from_le_bytes(*format);
    if found != FORMAT {
        return Err(CodecError::Format { found });
    }
    let value =
        ciborium::from_reader(&mut content).map_err(|error| CodecError::Garbled { detail: error.to_string() })?;
    if content.is_empty() { Ok(value) } else { Err(CodecError::Garbled { detail: "bytes are left over".to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let bytes = encode(&(7_u64, "text".to_owned())).unwrap();
        assert_eq!(decode::<(u64, String)>(&bytes).unwrap(), (7, "text".to_owned()));
    }

    #[test]
    fn what_was_not_is_refused() {
        let mut bytes = encode(&7_u64).unwrap();
        assert_eq!(decode::<u64>(&bytes[..1]), Err(CodecError::Short));
        assert!(matches!(decode::<String>(&bytes), Err(CodecError::Garbled { .. })));
        bytes.push(0);
        assert!(matches!(decode::<u64>(&bytes), Err(CodecError::Garbled { .. })));
        bytes[0] = 9;
        assert_eq!(decode::<u64>(&bytes), Err(CodecError::Format { found: 9 }));
    }
}
