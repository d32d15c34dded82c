//! Certificates for development and small installations: one authority, and for each node a certificate whose SAN URI
//! says who it is. Files are readable by their owner only and never overwritten unasked.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use regent_proto::tls::{Identity, IdentityError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Validity of the authority, in days.
pub const CA_DAYS: u32 = 3650;
/// Validity of a node's certificate, in days.
pub const LEAF_DAYS: u32 = 397;
/// Certificates begin so long ago, for nodes whose clocks are behind.
const SKEW: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// It would have replaced another one.
    #[error("{} exists; give --force to replace it, and mind who uses it", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority's files cannot be read.
    #[error("cannot read {}; make the authority first, with `regentctl certs ca`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority's files are not what they should be.
    #[error("{} is no authority that `regentctl certs ca` made", path.display())]
    NoAuthority {
        /// Which file.
        path: PathBuf,
    },
    /// A name that cannot stand in a certificate.
    #[error("{name:?} is no usable name")]
    Name {
        /// As it was given.
        name: String,
        /// Why.
        source: IdentityError,
    },
    /// The certificate could not be made.
    #[error("the certificate cannot be made")]
    Make(#[from] rcgen::Error),
}

/// A folder of certificates.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Made if it is not there.
    pub dir: PathBuf,
    /// Replace files that exist.
    pub force: bool,
}

/// What was made: `STEM.pem` and `STEM-key.pem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Folder {
    /// Makes an authority for a group: `ca.pem` and `ca-key.pem`.
    ///
    /// # Errors
    /// If there is one, or it cannot be written.
    pub fn authority(&self, group: &str, days: u32) -> Result<Made, CertsError> {
        check(group, &Identity::Operator("x".to_owned()))?;
        let key = KeyPair::generate()?;
        let mut params = valid_for(days);
        params.distinguished_name = name(&format!("Regent authority of {group}"), group);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        self.write("ca", &certificate.pem(), &key.serialize_pem())
    }

    /// Makes a certificate for a node, signed by the authority in the same folder. `names` are DNS names and IP
    /// addresses under which it is dialled, beside localhost; an operator is never dialled and has none.
    ///
    /// # Errors
    /// If there is no authority, the files exist, or a name is not usable.
    pub fn issue(&self, stem: &str, identity: &Identity, names: &[String], days: u32) -> Result<Made, CertsError> {
        let (issuer, group) = self.issuer()?;
        check(&group, identity)?;
        let uri = identity.to_uri(&group);
        let key = KeyPair::generate()?;
        let mut params = valid_for(days);
        params.distinguished_name = name(&identity.to_string(), &group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !matches!(identity, Identity::Operator(_)) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            let own = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
            for name in own.iter().chain(names) {
                let san = match name.parse::<IpAddr>() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(name.as_str().try_into()?),
                };
                if !params.subject_alt_names.contains(&san) {
                    params.subject_alt_names.push(san);
                }
            }
        }
        let certificate = params.signed_by(&key, &issuer)?;
        self.write(stem, &certificate.pem(), &key.serialize_pem())
    }

    /// The authority in this folder, and the group that it names.
    fn issuer(&self) -> Result<(Issuer<'static, KeyPair>, String), CertsError> {
        let read = |name: &str| {
            let path = self.dir.join(name);
            let text = fs::read_to_string(&path);
            text.map_err(|source| CertsError::Read { path: path.clone(), source }).map(|text| (path, text))
        };
        let (ca, certificate) = read("ca.pem")?;
        let (ca_key, key) = read("ca-key.pem")?;
        let no_authority = |path: &Path| CertsError::NoAuthority { path: path.to_owned() };
        let group = group_of(&certificate).ok_or_else(|| no_authority(&ca))?;
        let key = KeyPair::from_pem(&key).map_err(|_| no_authority(&ca_key))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|_| no_authority(&ca))?;
        Ok((issuer, group))
    }

    fn write(&self, stem: &str, certificate: &str, key: &str) -> Result<Made, CertsError> {
        let made =
            Made { certificate: self.dir.join(format!("{stem}.pem")), key: self.dir.join(format!("{stem}-key.pem")) };
        fs::create_dir_all(&self.dir).map_err(|source| CertsError::Write { path: self.dir.clone(), source })?;
        // Both or none: a certificate beside another one's key is of no use.
        if let (false, Some(path)) = (self.force, [&made.certificate, &made.key].into_iter().find(|path| path.exists()))
        {
            return Err(CertsError::Exists { path: path.clone() });
        }
        put(&made.key, key)?;
        put(&made.certificate, certificate)?;
        Ok(made)
    }
}

/// Written beside its place and moved there: never half a file, never readable by others.
fn put(path: &Path, text: &str) -> Result<(), CertsError> {
    let failed = |source| CertsError::Write { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&beside, path)).map_err(|error| {
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}

/// A group or a name that the other side could not read back is refused here.
fn check(group: &str, identity: &Identity) -> Result<(), CertsError> {
    let failed = |source| CertsError::Name { name: format!("{group}/{identity}"), source };
    Identity::parse(&identity.to_uri(group)).map(|_| ()).map_err(failed)
}

fn valid_for(days: u32) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + DAY * days).into();
    params
}

fn name(common: &str, group: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, group);
    name.push(DnType::CommonName, common);
    name
}

fn group_of(pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    let group = certificate.subject().iter_organization().next()?.as_str().ok()?;
    Some(group.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use regent_proto::tls::TlsFiles;

    use super::*;

    fn folder(dir: &tempfile::TempDir) -> Folder {
        Folder { dir: dir.path().join("certs"), force: false }
    }

    #[test]
    fn a_made_certificate_loads_and_says_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        let ca = folder.authority("dev", CA_DAYS).unwrap();
        for identity in
            [Identity::Coordinator(1), Identity::Agent("eu-west-1".into()), Identity::Operator("ann".into())]
        {
            let stem = identity.to_string().replace('/', "-");
            let made = folder.issue(&stem, &identity, &["10.0.0.1".into(), "db.example".into()], LEAF_DAYS).unwrap();
            let files =
                TlsFiles { ca: ca.certificate.clone(), certificate: made.certificate.clone(), key: made.key.clone() };
            let tls = files.load().unwrap();
            assert_eq!((tls.group(), tls.identity()), ("dev", &identity));
            for path in [&made.certificate, &made.key, &ca.key] {
                assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
            }
        }
    }

    #[test]
    fn validity_is_as_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        folder.authority("dev", CA_DAYS).unwrap();
        let made = folder.issue("a", &Identity::Coordinator(1), &[], 7).unwrap();
        let text = fs::read(&made.certificate).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
        let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
        let validity = certificate.validity();
        let span = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(span, 7 * 86_400 + 3_600);
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = folder(&dir);
        let made = folder.authority("dev", CA_DAYS).unwrap();
        let before = fs::read_to_string(&made.certificate).unwrap();
        let error = folder.authority("dev", CA_DAYS).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&made.certificate).unwrap(), before);
        folder.force = true;
        folder.authority("dev", CA_DAYS).unwrap();
        assert_ne!(fs::read_to_string(&made.certificate).unwrap(), before);
    }

    #[test]
    fn bad_names_and_a_missing_authority_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        let missing = folder.issue("a", &Identity::Coordinator(1), &[], 1).unwrap_err();
        assert!(missing.to_string().contains("regentctl certs ca"), "{missing}");
        assert!(matches!(folder.authority("a/b", 1), Err(CertsError::Name { .. })));
        folder.authority("dev", 1).unwrap();
        assert!(matches!(folder.issue("a", &Identity::Operator("a/b".into()), &[], 1), Err(CertsError::Name { .. })));
        fs::write(folder.dir.join("ca.pem"), "garbage").unwrap();
        assert!(matches!(folder.issue("a", &Identity::Coordinator(1), &[], 1), Err(CertsError::NoAuthority { .. })));
    }
}
