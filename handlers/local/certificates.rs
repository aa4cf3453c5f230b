//! A certificate authority of our own, in the data directory, and certificates under it.
//!
//! With it the stand-ins serve HTTPS, so that the SDKs' token policy, which refuses plain HTTP, is
//! the one of production. Certificates name their hosts: a wildcard directly under `localhost` is
//! rejected by some clients.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read or write `{path}`")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot use a certificate")]
    Use(#[from] rustls::Error),
}

/// The authority. Its key stays in the data directory, readable by its owner alone.
pub struct Authority {
    root: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority of a directory, or makes one.
    ///
    /// # Errors
    /// When the files cannot be read, written or understood.
    pub fn open(directory: &Path) -> Result<Self, CertificateError> {
        let (root, key) = (directory.join("root.pem"), directory.join("root.key.pem"));
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| CertificateError::File { path, source }
        };
        if !root.exists() || !key.exists() {
            fs::create_dir_all(directory).map_err(file(directory))?;
            let pair = KeyPair::generate()?;
            write_private(&key, &pair.serialize_pem()).map_err(file(&key))?;
            let certificate = root_params()?.self_signed(&pair)?;
            fs::write(&root, certificate.pem()).map_err(file(&root))?;
        }
        let pair = KeyPair::from_pem(&fs::read_to_string(&key).map_err(file(&key))?)?;
        Ok(Self { root, issuer: Issuer::new(root_params()?, pair) })
    }

    /// The root certificate, for whoever is to trust the stand-ins.
    pub fn root_certificate(&self) -> &Path {
        &self.root
    }

    /// What a server needs to be any of `names`.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn server(&self, names: &[&str]) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
        let key = KeyPair::generate()?;
        let chain = vec![self.certificate(names, &key)?];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A certificate for `names` under this authority, for the holder of `key`.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn certificate(
        &self,
        names: &[&str],
        key: &KeyPair,
    ) -> Result<CertificateDer<'static>, CertificateError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names)?;
        // Clients that check strictly, as Python 3.13 does, want to be told who signed.
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

fn root_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Runtime Platform stand-ins, this machine only");
    Ok(params)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
