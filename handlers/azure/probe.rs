//! Probes over HTTPS, to a workload's own host and nowhere else.
//!
//! A probe's target comes out of what tenants deploy, so it must not become a way to ask this
//! machine's neighbours: addresses are judged as they are connected to, after the name was resolved,
//! so that a name cannot resolve to one address for the check and to another for the connection.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;
use url::{Host, Url};

use super::http_client::{HttpClientError, HttpSettings, Names, builder, is_localhost, reason};
use crate::ports::{
    clock::Clock,
    probe::{Answer, Probe, ProbeTarget, Sample},
};

/// The longest that one probe waits, whatever its target says.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// The most characters of a reason that are told.
const REASON_CHARACTERS_MAX: usize = 200;

/// Which addresses may be asked beside public ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Loopback, for names under `localhost` alone: where workloads run on this machine.
    pub loopback: bool,
    /// Private networks: where a Container Apps environment is internal to a virtual network.
    pub private: bool,
}

/// Probes over HTTPS.
pub struct HttpProbe {
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
}

impl HttpProbe {
    /// Makes a client of its own: probes share no connection, so that each finds out whether the
    /// workload still takes one, and use no proxy, which would connect on their behalf.
    ///
    /// # Errors
    /// As [`super::http_client::client`].
    pub fn new(
        settings: &HttpSettings,
        reach: Reach,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HttpClientError> {
        let names = Names { localhost: settings.resolve_localhost };
        let client = builder(settings)?
            .no_proxy()
            .dns_resolver(Arc::new(Judged { names, reach }))
            .pool_max_idle_per_host(0)
            .user_agent(concat!("runtime-platform-probe/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, clock })
    }

    async fn ask(&self, url: Url, timeout: Duration) -> Answer {
        let response = match self.client.get(url).timeout(timeout.min(TIMEOUT_MAX)).send().await {
            Ok(response) => response,
            Err(error) => return unanswered(&error),
        };
        let status = response.status().as_u16();
        let asked = response.headers().contains_key(http::header::RETRY_AFTER);
        // The body is dropped unread: only the status counts, and a body may have no end.
        Answer::Status { status, retry_after: asked && matches!(status, 429 | 503) }
    }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn probe(&self, target: &ProbeTarget) -> Sample {
        let at = self.clock.now();
        let started = Instant::now();
        let answer = match url_of(target) {
            Ok(url) => self.ask(url, target.timeout).await,
            Err(reason) => Answer::Forbidden { reason },
        };
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Sample { at, latency_ms, answer }
    }
}

/// The URL of a target, if its host is a name and its path a path.
fn url_of(target: &ProbeTarget) -> Result<Url, String> {
    let (host, path) = (&target.host, &target.path);
    // With these alone a host cannot smuggle a user, a path or a query into the URL.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':');
    if !host.bytes().all(plain) {
        return Err(format!("`{host}` is not the name of a host"));
    }
    if !path.starts_with('/') {
        return Err(format!("`{path}` is not a path, which begins with `/`"));
    }
    let url = Url::parse(&format!("https://{host}{path}"))
        .map_err(|_| format!("`{host}` is not the name of a host"))?;
    match url.host() {
        Some(Host::Domain(_)) => Ok(url),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => {
            Err(format!("`{host}` is an address; a workload is asked by its name"))
        }
    }
}

fn unanswered(error: &reqwest::Error) -> Answer {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(forbidden) = current.downcast_ref::<ForbiddenAddress>() {
            return Answer::Forbidden { reason: forbidden.to_string() };
        }
        cause = current.source();
    }
    if error.is_timeout() {
        return Answer::TimedOut;
    }
    Answer::Unreachable { reason: reason(error).chars().take(REASON_CHARACTERS_MAX).collect() }
}

/// A name that resolves to where nobody is asked on a tenant's behalf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is at {address}, which is {what}: nobody is asked there")]
pub(super) struct ForbiddenAddress {
    name: String,
    address: IpAddr,
    what: &'static str,
}

/// Resolves names and lets no forbidden address through.
pub(super) struct Judged {
    pub names: Names,
    pub reach: Reach,
}

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let (text, reach) = (name.as_str().to_owned(), self.reach);
        let resolving = self.names.resolve(name);
        Box::pin(async move {
            let found = resolving.await?.collect::<Vec<_>>();
            for address in found.iter().map(|found| found.ip()) {
                if let Some(what) = forbidden(&text, address, reach) {
                    return Err(ForbiddenAddress { name: text, address, what }.into());
                }
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What is wrong with asking `name` at `address`; none where nothing is.
fn forbidden(name: &str, address: IpAddr, reach: Reach) -> Option<&'static str> {
    let address = match address {
        IpAddr::V6(address) => embedded(address).map_or(IpAddr::V6(address), IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    if address.is_loopback() {
        return (!(reach.loopback && is_localhost(name))).then_some("this machine");
    }
    match address {
        IpAddr::V4(address) => forbidden_v4(address, reach),
        IpAddr::V6(address) => forbidden_v6(address, reach),
    }
}

/// The IPv4 address within an IPv6 one that leads to it: mapped, or through the NAT64 prefix.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let nat64 = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let [.., a, b, c, d] = address.octets();
    address.to_ipv4_mapped().or_else(|| nat64.then_some(Ipv4Addr::new(a, b, c, d)))
}

fn forbidden_v4(address: Ipv4Addr, reach: Reach) -> Option<&'static str> {
    let [first, second, ..] = address.octets();
    // 168.63.129.16 is Azure's own: its agents' wire server and name server.
    if address.is_link_local() || address == Ipv4Addr::new(168, 63, 129, 16) {
        return Some("an address of the platform's metadata");
    }
    if first == 0 || first >= 224 {
        return Some("no address of one host");
    }
    // 100.64.0.0/10 is shared by carriers, and private in effect.
    let private = address.is_private() || (first == 100 && second & 0xc0 == 64);
    (private && !reach.private).then_some("in a private network")
}

fn forbidden_v6(address: Ipv6Addr, reach: Reach) -> Option<&'static str> {
    let metadata = address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    if address.is_unicast_link_local() || metadata {
        return Some("an address of the platform's metadata");
    }
    if address.is_unspecified() || address.is_multicast() {
        return Some("no address of one host");
    }
    (address.is_unique_local() && !reach.private).then_some("in a private network")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_go_to_public_addresses_and_where_a_setting_allows() {
        let nothing = Reach::default();
        let loopback = Reach { loopback: true, private: false };
        let private = Reach { loopback: false, private: true };
        let (machine, metadata) = (Some("this machine"), Some("an address of the platform's metadata"));
        let (inside, nobody) = (Some("in a private network"), Some("no address of one host"));
        for (name, address, reach, expected) in [
            ("app.example.org", "20.50.2.1", nothing, None),
            ("app.example.org", "2603:1020::1", nothing, None),
            ("app.localhost", "127.0.0.1", nothing, machine),
            ("app.localhost", "127.0.0.1", loopback, None),
            ("app.localhost", "::1", loopback, None),
            ("app.example.org", "127.0.0.1", loopback, machine),
            ("app.example.org", "::ffff:127.0.0.1", loopback, machine),
            ("app.localhost", "10.0.0.4", loopback, inside),
            ("app.example.org", "169.254.169.254", private, metadata),
            ("app.example.org", "168.63.129.16", private, metadata),
            ("app.example.org", "::ffff:169.254.169.254", private, metadata),
            ("app.example.org", "64:ff9b::a9fe:a9fe", private, metadata),
            ("app.example.org", "fd00:ec2::254", private, metadata),
            ("app.example.org", "fe80::1", private, metadata),
            ("app.example.org", "10.1.2.3", nothing, inside),
            ("app.example.org", "172.20.0.1", nothing, inside),
            ("app.example.org", "192.168.1.1", nothing, inside),
            ("app.example.org", "100.64.0.1", nothing, inside),
            ("app.example.org", "fd12::1", nothing, inside),
            ("app.example.org", "10.1.2.3", private, None),
            ("app.example.org", "0.0.0.0", private, nobody),
            ("app.example.org", "255.255.255.255", private, nobody),
            ("app.example.org", "::", private, nobody),
        ] {
            assert_eq!(
                forbidden(name, address.parse().unwrap(), reach),
                expected,
                "{name} {address} {reach:?}"
            );
        }
    }

    #[test]
    fn a_host_is_a_name_and_smuggles_nothing() {
        let url = |host: &str, path: &str| {
            let target =
                ProbeTarget { host: host.into(), path: path.into(), timeout: Duration::from_secs(1) };
            url_of(&target).map(|url| url.to_string())
        };
        assert_eq!(
            url("app--d1.example.org:8443", "/health?deep=1"),
            Ok("https://app--d1.example.org:8443/health?deep=1".into())
        );
        assert_eq!(
            url("app.example.org", "//other.org/x"),
            Ok("https://app.example.org//other.org/x".into())
        );
        for host in [
            "user@app.org",
            "app.org/x",
            "app.org?x",
            "app.org#x",
            "a\\b",
            "",
            "[::1]",
            "10.0.0.1",
            "0x7f.1",
            "2130706433",
        ] {
            assert!(url(host, "/").is_err(), "{host}");
        }
        assert!(url("app.example.org", "health").is_err());
    }
}

#[cfg(all(test, feature = "local"))]
mod over_the_wire {
    use super::*;
    use crate::{
        azure::testing::{Server, reply},
        ports::clock::SystemClock,
    };
    use serde_json::{Value, json};

    fn prober(server: &Server, loopback: bool) -> HttpProbe {
        let reach = Reach { loopback, private: false };
        HttpProbe::new(&server.settings, reach, Arc::new(SystemClock)).unwrap()
    }

    fn target(host: &str, path: &str) -> ProbeTarget {
        ProbeTarget { host: host.to_owned(), path: path.to_owned(), timeout: Duration::from_secs(5) }
    }

    #[tokio::test]
    async fn the_status_is_the_answer_and_redirects_are_not_followed() {
        let server = Server::start("", |seen| match seen.path_and_query.as_str() {
            "/ok" => reply(200, &[], &json!({ "up": true })),
            "/moved" => reply(302, &[("location", "/ok".to_owned())], &Value::Null),
            "/busy" => reply(503, &[("retry-after", "5".to_owned())], &Value::Null),
            "/odd" => reply(500, &[("retry-after", "5".to_owned())], &Value::Null),
            _ => reply(404, &[], &Value::Null),
        })
        .await;
        let probe = prober(&server, true);
        for (path, status, retry_after) in [
            ("/ok", 200, false),
            ("/moved", 302, false),
            ("/busy", 503, true),
            ("/odd", 500, false),
            ("/no", 404, false),
        ] {
            let sample = probe.probe(&target(&server.host(), path)).await;
            assert_eq!(sample.answer, Answer::Status { status, retry_after }, "{path}");
        }
        assert_eq!(server.lines().len(), 5);
    }

    #[tokio::test]
    async fn loopback_is_asked_only_where_a_setting_allows_it() {
        let server = Server::start("", |_| reply(200, &[], &Value::Null)).await;
        let sample = prober(&server, false).probe(&target(&server.host(), "/")).await;
        assert_eq!(
            sample.answer,
            Answer::Forbidden {
                reason: "`server.localhost` is at 127.0.0.1, which is this machine: nobody is asked there"
                    .to_owned()
            }
        );
        assert_eq!(server.lines(), [""; 0]);
    }

    #[tokio::test]
    async fn not_to_be_reached_is_an_answer_with_its_reason() {
        let server = Server::start("", |_| reply(200, &[], &Value::Null)).await;
        let probe = prober(&server, true);
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let refused = probe.probe(&target(&format!("server.localhost:{free}"), "/")).await.answer;
        assert!(
            matches!(&refused, Answer::Unreachable { reason } if reason.contains("refused")),
            "{refused:?}"
        );
        let other_name = server.host().replace("server.", "other.");
        let untrusted = probe.probe(&target(&other_name, "/")).await.answer;
        assert!(
            matches!(&untrusted, Answer::Unreachable { reason } if reason.contains("certificate")),
            "{untrusted:?}"
        );
    }

    #[tokio::test]
    async fn who_accepts_and_says_nothing_is_timed_out() {
        let server = Server::start("", |_| reply(200, &[], &Value::Null)).await;
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("server.localhost:{}", silent.local_addr().unwrap().port());
        let target = ProbeTarget { timeout: Duration::from_millis(200), ..target(&host, "/") };
        assert_eq!(prober(&server, true).probe(&target).await.answer, Answer::TimedOut);
    }
}
