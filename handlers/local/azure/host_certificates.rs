//! Certificates for hosts that come and go, as those of the ingress, `{app}.{environment}.{domain}`, and
//! of the vaults. A wildcard covers one label only: so a certificate is made for each name when a
//! client first asks for it.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
};

use rcgen::KeyPair;
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};

use crate::local::certificates::{Authority, CertificateError};

/// Certificates that are kept; the oldest goes first and is made again when it is asked for.
const CERTIFICATES_MAX: usize = 512;

/// What an HTTPS server needs to be any host under `domain`.
///
/// # Errors
/// When no key can be made.
pub fn hosts_server(
    authority: Arc<Authority>,
    domain: &str,
) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
    let resolver = HostCertificates::new(authority, domain)?;
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

struct HostCertificates {
    authority: Arc<Authority>,
    /// `.apps.localhost`
    ending: String,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    order: VecDeque<String>,
}

impl fmt::Debug for HostCertificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HostCertificates").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl HostCertificates {
    fn new(authority: Arc<Authority>, domain: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let signing =
            any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))?;
        Ok(Self { authority, ending: format!(".{domain}"), key, signing, made: Mutex::default() })
    }

    fn for_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        if !name.ends_with(&self.ending) {
            return None;
        }
        let mut made = self.made.lock().expect("nobody panics while holding certificates");
        if let Some(known) = made.by_name.get(&name) {
            return Some(known.clone());
        }
        let certificate = self.authority.certificate(&[&name], &self.key).ok()?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate], self.signing.clone()));
        if made.order.len() == CERTIFICATES_MAX
            && let Some(oldest) = made.order.pop_front()
        {
            made.by_name.remove(&oldest);
        }
        made.order.push_back(name.clone());
        made.by_name.insert(name, certified.clone());
        Some(certified)
    }
}

impl ResolvesServerCert for HostCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.for_name(hello.server_name()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_the_domain_get_a_certificate_each_and_others_none() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path()).unwrap());
        let certificates = HostCertificates::new(authority, "apps.localhost").unwrap();
        let first = certificates.for_name("a.e1.apps.localhost").unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.for_name("A.e1.apps.localhost").unwrap()));
        assert_ne!(first.cert, certificates.for_name("b.e1.apps.localhost").unwrap().cert);
        assert!(certificates.for_name("management.localhost").is_none());
        for number in 0..=CERTIFICATES_MAX {
            certificates.for_name(&format!("n{number}.e1.apps.localhost")).unwrap();
        }
        assert_eq!(certificates.made.lock().unwrap().by_name.len(), CERTIFICATES_MAX);
    }
}
