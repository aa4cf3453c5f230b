//! The one HTTP client beneath every adapter: TLS by rustls, trust in the system's roots and, where
//! a setting names it, in one root more; names under `localhost` on loopback where a setting says so.
//!
//! Deliberately absent: redirects (no service of ours redirects, and a token must not follow one)
//! and retries of what may have been done (each adapter knows what may be said twice).

use std::{
    error::Error,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use azure_core::http::{ClientOptions, RetryOptions, Transport};
use jiff::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Idle connections kept per host.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long an idle connection is kept; less than Azure's front ends keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest pause that another side can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// What the client must know of its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// A PEM file with a root certificate that is trusted beside the system's.
    pub additional_root: Option<PathBuf>,
    /// Whether `localhost` and the names under it resolve to 127.0.0.1, without asking anybody. The
    /// environment's proxies are then not used: they could not reach this machine's loopback.
    pub resolve_localhost: bool,
    /// How long a connection may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a request may take from its first byte to the answer's last.
    pub request_timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            additional_root: None,
            resolve_localhost: false,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(8),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    #[error("no TLS provider is installed; call install_tls_provider first thing in main")]
    NoTlsProvider,
    #[error("cannot read the additional root certificate `{path}`; check the setting that names it")]
    ReadRoot { path: PathBuf, source: io::Error },
    #[error("`{path}` holds no certificate in PEM form; check the setting that names it")]
    NotACertificate { path: PathBuf },
    #[error("cannot make an HTTP client")]
    Build(#[from] reqwest::Error),
}

/// Installs the process's TLS provider. Each main calls it once, before anything makes a client;
/// calling it again changes nothing.
pub fn install_tls_provider() {
    // An error means that a provider is there already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Makes the client. It is cheap to clone, and its clones share connections.
///
/// # Errors
/// When no TLS provider is installed, or the additional root cannot be read.
pub fn client(settings: &HttpSettings) -> Result<reqwest::Client, HttpClientError> {
    let resolver = Names { localhost: settings.resolve_localhost };
    Ok(builder(settings)?
        .dns_resolver(Arc::new(resolver))
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!("runtime-platform/", env!("CARGO_PKG_VERSION")))
        .build()?)
}

/// What the client and the probes' client have in common.
pub(super) fn builder(settings: &HttpSettings) -> Result<reqwest::ClientBuilder, HttpClientError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(HttpClientError::NoTlsProvider);
    }
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.request_timeout);
    if settings.resolve_localhost {
        builder = builder.no_proxy();
    }
    if let Some(path) = &settings.additional_root {
        let pem =
            fs::read(path).map_err(|source| HttpClientError::ReadRoot { path: path.clone(), source })?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if roots.is_empty() {
            return Err(HttpClientError::NotACertificate { path: path.clone() });
        }
        builder = builder.tls_certs_merge(roots);
    }
    Ok(builder)
}

/// The client as Azure's SDK wants it.
pub fn transport(client: &reqwest::Client) -> Transport {
    Transport::new(Arc::new(client.clone()))
}

/// Options for the SDK's clients: this client, and no retries of the SDK's own, which wait as long as
/// the other side asks for and would outlast an invocation.
pub fn client_options(client: &reqwest::Client) -> ClientOptions {
    ClientOptions {
        transport: Some(transport(client)),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}

/// Whether a name is `localhost` or lies under it.
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Resolves names as the system does, except those under `localhost` where `localhost` is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub localhost: bool,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let here = self.localhost && is_localhost(name.as_str());
        Box::pin(async move {
            if here {
                let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                return Ok(Box::new(std::iter::once(loopback)) as Addrs);
            }
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The root of an error, in one line. What lies above it repeats the URL, which may carry a secret.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    match root.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => "nobody answered in time".to_owned(),
        Some(error) if error.is_connect() => "cannot connect".to_owned(),
        Some(_) => "the request could not be made".to_owned(),
        None => root.to_string(),
    }
}

/// How long the other side asks to be left alone, by whichever header says so: Azure's own in
/// milliseconds first, then the standard one in seconds or as a date.
pub(super) fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>, now: Timestamp) -> Option<Duration> {
    let number = |name: &str| header(name).and_then(|value| value.trim().parse::<u64>().ok());
    let milliseconds =
        number("x-ms-retry-after-ms").or_else(|| number("retry-after-ms")).map(Duration::from_millis);
    let seconds = || number("retry-after").map(Duration::from_secs);
    let date = || {
        let at =
            jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header("retry-after")?.trim()).ok()?;
        Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
    };
    milliseconds.or_else(seconds).or_else(date).map(|pause| pause.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_each_of_its_forms() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        let told = |headers: &'static [(&str, &str)]| {
            retry_after(|name| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| *value), now)
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(
            told(&[("retry-after", "7"), ("x-ms-retry-after-ms", "250")]),
            Some(Duration::from_millis(250))
        );
        assert_eq!(told(&[("retry-after", "Wed, 25 Nov 2026 10:00:30 GMT")]), Some(Duration::from_secs(30)));
        assert_eq!(told(&[("retry-after", "Wed, 25 Nov 2026 09:00:00 GMT")]), Some(Duration::ZERO));
        assert_eq!(told(&[("retry-after", "soon")]), None);
        assert_eq!(told(&[("retry-after", "999999999")]), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn only_localhost_and_what_lies_under_it_is_this_machine() {
        for (name, here) in [
            ("localhost", true),
            ("Arm.LOCALHOST", true),
            ("a.b.localhost.", true),
            ("notlocalhost", false),
            ("localhost.example.org", false),
        ] {
            assert_eq!(is_localhost(name), here, "{name}");
        }
    }

    #[test]
    fn a_root_that_is_none_is_named() {
        install_tls_provider();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.pem");
        let settings = HttpSettings { additional_root: Some(path.clone()), ..HttpSettings::default() };
        assert!(
            matches!(client(&settings), Err(HttpClientError::ReadRoot { path: found, .. }) if found == path)
        );
        fs::write(&path, "no certificate").unwrap();
        assert!(
            matches!(client(&settings), Err(HttpClientError::NotACertificate { path: found }) if found == path)
        );
    }
}
