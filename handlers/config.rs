//! Settings: read once at start, and all that is wrong with them said in one message.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::SignedDuration;
use tracing::level_filters::LevelFilter;

use crate::{azure::credential::CredentialKind, masstransit::WireFormat};

/// The longest that a workload may be left alone after a deployment.
const SETTLE_SECONDS_MAX: u32 = 3600;

/// One setting of the app.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// What it is for, its values and units.
    pub meaning: &'static str,
    /// What holds where it is not set; none where it must be.
    pub default: Option<&'static str>,
}

/// Every setting that the handler reads.
pub const SETTINGS: &[Setting] = &[
    Setting { name: "STORE", meaning: "Where state is kept: `sqlite:` and a file.", default: None },
    Setting {
        name: "SERVICE_BUS_ENDPOINT",
        meaning: "The namespace's REST endpoint, e.g. `https://ns.servicebus.windows.net`.",
        default: None,
    },
    Setting {
        name: "RESOURCE_MANAGER_ENDPOINT",
        meaning: "Azure Resource Manager.",
        default: Some("https://management.azure.com"),
    },
    Setting {
        name: "VAULT_DOMAIN",
        meaning: "What the hosts of Key Vaults lie under, without a port; tokens go to no other.",
        default: Some("vault.azure.net"),
    },
    Setting {
        name: "REGISTRY_ENDPOINT",
        meaning: "Host and port at which every registry of images is reached; empty: each at its own host.",
        default: Some(""),
    },
    Setting {
        name: "AZURE_SUBSCRIPTION_ID",
        meaning: "The subscription that environments are made in.",
        default: None,
    },
    Setting {
        name: "AZURE_DIRECTORY_ID",
        meaning: "The directory (Entra tenant) of that subscription.",
        default: None,
    },
    Setting {
        name: "AZURE_CREDENTIAL",
        meaning: "How to get tokens: `managed`, `workload` or `cli`.",
        default: Some("managed"),
    },
    Setting {
        name: "WIRE_FORMAT",
        meaning: "How events are published: `masstransit`, or `raw` for the canonical envelope alone.",
        default: Some("masstransit"),
    },
    Setting {
        name: "ADDITIONAL_ROOT_CERTIFICATE",
        meaning: "A PEM file with a root certificate to trust besides the system's; empty for none.",
        default: Some(""),
    },
    Setting {
        name: "RESOLVE_LOCALHOST",
        meaning: "`true`: names under `localhost` are this machine, whatever the resolver says.",
        default: Some("false"),
    },
    Setting {
        name: "PROBE_LOOPBACK",
        meaning: "`true`: health probes may ask loopback addresses, as they must on one machine.",
        default: Some("false"),
    },
    Setting {
        name: "PROBE_PRIVATE",
        meaning: "`true`: health probes may ask private addresses, as an internal Container Apps environment has; registries too.",
        default: Some("false"),
    },
    Setting {
        name: "OPERATOR_KEYS",
        meaning: "The names of the function keys whose holders operate the whole platform, not only a tenant's part of it; with commas.",
        default: Some("_master,master"),
    },
    Setting {
        name: "DRIFT_SETTLE_SECONDS",
        meaning: "How long after a deployment its workload is not looked at for drift, 0 to 3600 seconds.",
        default: Some("120"),
    },
    Setting {
        name: "LOG_LEVEL",
        meaning: "`error`, `warn`, `info`, `debug` or `trace`.",
        default: Some("info"),
    },
];

/// Where state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSetting {
    Sqlite(PathBuf),
}

/// The settings, read.
#[derive(Clone, Debug)]
pub struct Config {
    pub store: StoreSetting,
    pub service_bus_endpoint: String,
    pub resource_manager_endpoint: String,
    pub vault_domain: String,
    pub registry_endpoint: String,
    pub subscription_id: String,
    pub directory_id: String,
    pub credential: CredentialKind,
    pub wire_format: WireFormat,
    pub additional_root: Option<PathBuf>,
    pub resolve_localhost: bool,
    pub probe_loopback: bool,
    pub probe_private: bool,
    /// Names of function keys.
    pub operator_keys: Vec<String>,
    pub drift_settle: SignedDuration,
    pub log_level: LevelFilter,
}

/// All that is wrong with the settings, one sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} of the settings cannot be used", self.0.len())?;
        for problem in &self.0 {
            write!(formatter, "; {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads settings and collects what is wrong with them.
struct Reader<'a> {
    given: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn text(&mut self, name: &'static str) -> String {
        let setting =
            SETTINGS.iter().find(|setting| setting.name == name).expect("every setting is in the list");
        match (self.given.get(name), setting.default) {
            (Some(value), _) if !value.trim().is_empty() => value.trim().to_owned(),
            (_, Some(default)) => default.to_owned(),
            (_, None) => {
                self.problems.push(format!("`{name}` is not set. {}", setting.meaning));
                String::new()
            }
        }
    }

    /// A setting with few values. Where the value is none of them, the first stands in until the
    /// problems are reported.
    fn choice<T: Clone>(&mut self, name: &'static str, choices: &[(&str, T)]) -> T {
        let value = self.text(name);
        if let Some((_, choice)) = choices.iter().find(|(text, _)| *text == value) {
            return choice.clone();
        }
        let known = choices.iter().map(|(text, _)| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        self.problems.push(format!("`{name}` is `{value}`; it is one of {known}"));
        choices[0].1.clone()
    }

    /// A number of seconds, up to `most`. One that cannot be used is 0 until the problems are reported.
    fn seconds(&mut self, name: &'static str, most: u32) -> SignedDuration {
        let value = self.text(name);
        let seconds = value.parse::<u32>().ok().filter(|seconds| *seconds <= most);
        if seconds.is_none() {
            self.problems.push(format!("`{name}` is `{value}`; it is a whole number from 0 to {most}"));
        }
        SignedDuration::from_secs(seconds.unwrap_or_default().into())
    }

    fn endpoint(&mut self, name: &'static str) -> String {
        let value = self.text(name);
        let is_https = url::Url::parse(&value).is_ok_and(|url| url.scheme() == "https" && url.has_host());
        if !value.is_empty() && !is_https {
            self.problems
                .push(format!("`{name}` is `{value}`; it must be an https address: tokens are sent to it"));
        }
        value.trim_end_matches('/').to_owned()
    }
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// All that is wrong with them, at once.
    pub fn read(given: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut reader = Reader { given, problems: Vec::new() };
        let flag = [("false", false), ("true", true)];
        let store = reader.text("STORE");
        let path = store.strip_prefix("sqlite:").unwrap_or_default().to_owned();
        if !store.is_empty() && path.is_empty() {
            reader.problems.push(format!("`STORE` is `{store}`; it is `sqlite:` and a file"));
        }
        let registry = reader.text("REGISTRY_ENDPOINT");
        let is_host = url::Url::parse(&format!("https://{registry}"))
            .is_ok_and(|url| url.path() == "/" && url.username().is_empty() && url.query().is_none());
        if !registry.is_empty() && (!is_host || registry.contains('/')) {
            reader.problems.push(format!("`REGISTRY_ENDPOINT` is `{registry}`; it is a host and a port"));
        }
        let root = reader.text("ADDITIONAL_ROOT_CERTIFICATE");
        let config = Self {
            store: StoreSetting::Sqlite(path.into()),
            service_bus_endpoint: reader.endpoint("SERVICE_BUS_ENDPOINT"),
            resource_manager_endpoint: reader.endpoint("RESOURCE_MANAGER_ENDPOINT"),
            vault_domain: reader.text("VAULT_DOMAIN"),
            registry_endpoint: registry,
            subscription_id: reader.text("AZURE_SUBSCRIPTION_ID"),
            directory_id: reader.text("AZURE_DIRECTORY_ID"),
            credential: reader.choice(
                "AZURE_CREDENTIAL",
                &[
                    ("managed", CredentialKind::Managed),
                    ("workload", CredentialKind::Workload),
                    ("cli", CredentialKind::Cli),
                ],
            ),
            wire_format: reader
                .choice("WIRE_FORMAT", &[("masstransit", WireFormat::MassTransit), ("raw", WireFormat::Raw)]),
            additional_root: (!root.is_empty()).then(|| root.into()),
            resolve_localhost: reader.choice("RESOLVE_LOCALHOST", &flag),
            probe_loopback: reader.choice("PROBE_LOOPBACK", &flag),
            probe_private: reader.choice("PROBE_PRIVATE", &flag),
            operator_keys: reader
                .text("OPERATOR_KEYS")
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
            drift_settle: reader.seconds("DRIFT_SETTLE_SECONDS", SETTLE_SECONDS_MAX),
            log_level: reader.choice(
                "LOG_LEVEL",
                &[
                    ("info", LevelFilter::INFO),
                    ("error", LevelFilter::ERROR),
                    ("warn", LevelFilter::WARN),
                    ("debug", LevelFilter::DEBUG),
                    ("trace", LevelFilter::TRACE),
                ],
            ),
        };
        if reader.problems.is_empty() { Ok(config) } else { Err(ConfigError(reader.problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let error = Config::read(&settings(&[
            ("STORE", "mysql:x"),
            ("SERVICE_BUS_ENDPOINT", "http://plain"),
            ("AZURE_SUBSCRIPTION_ID", "s"),
            ("WIRE_FORMAT", "xml"),
            ("DRIFT_SETTLE_SECONDS", "two minutes"),
            ("REGISTRY_ENDPOINT", "https://acr.localhost"),
        ]))
        .unwrap_err();
        assert_eq!(
            error.0,
            [
                "`STORE` is `mysql:x`; it is `sqlite:` and a file",
                "`REGISTRY_ENDPOINT` is `https://acr.localhost`; it is a host and a port",
                "`SERVICE_BUS_ENDPOINT` is `http://plain`; it must be an https address: tokens are sent to it",
                "`AZURE_DIRECTORY_ID` is not set. The directory (Entra tenant) of that subscription.",
                "`WIRE_FORMAT` is `xml`; it is one of `masstransit`, `raw`",
                "`DRIFT_SETTLE_SECONDS` is `two minutes`; it is a whole number from 0 to 3600",
            ]
        );
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let config = Config::read(&settings(&[
            ("STORE", "sqlite:/data/store.db"),
            ("SERVICE_BUS_ENDPOINT", "https://ns.servicebus.windows.net/"),
            ("AZURE_SUBSCRIPTION_ID", "s"),
            ("AZURE_DIRECTORY_ID", "d"),
        ]))
        .unwrap();
        assert_eq!(config.store, StoreSetting::Sqlite("/data/store.db".into()));
        assert_eq!(config.service_bus_endpoint, "https://ns.servicebus.windows.net");
        assert_eq!(config.resource_manager_endpoint, "https://management.azure.com");
        assert!(!config.probe_loopback);
        assert_eq!(config.drift_settle, SignedDuration::from_secs(120));
    }
}
