//! The words of the platform: every event it publishes, the topics that carry them, and the commands
//! that it takes.
//!
//! An event says what happened and carries what a consumer needs to act without asking back. The
//! commands' payloads are absent: each stands with the operation that handles it.

mod payloads;
mod vocabulary;

use serde::Deserialize;
use serde_json::Value;

pub use payloads::*;
pub use vocabulary::*;

/// What a change of meaning raises, together with a new name (`...V2`). It travels as the property
/// `cs-schema-version`.
const SCHEMA_VERSION: &str = "1";

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident, $promotion:ident, on $topic:expr;)*) => {
        /// Something that happened, with its payload.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Event {
            $($(#[$doc])* $name($name),)*
        }

        /// The names of all events.
        pub const EVENTS: &[&str] = &[$(stringify!($name)),*];

        impl Event {
            /// The event's name, as `eventType` and `cs-event-type` carry it.
            pub fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// Where the event is published.
            pub fn topic(&self) -> Topic {
                match self {
                    $(Self::$name(payload) => {
                        let topic: fn(&$name) -> Topic = $topic;
                        topic(payload)
                    })*
                }
            }

            /// Whether other platforms may build on it: an integration event, not only a domain event.
            pub fn promoted(&self) -> bool {
                match self {
                    $(Self::$name(_) => Promotion::$promotion == Promotion::Integration,)*
                }
            }

            /// The payload as the envelope carries it.
            /// Reads an event as it was received; none where its type is not one that we know.
            ///
            /// # Errors
            /// When the payload is not that of its type.
            pub fn read(event_type: &str, payload: &Value) -> Result<Option<Self>, serde_json::Error> {
                match event_type {
                    $(stringify!($name) => Ok(Some(Self::$name($name::deserialize(payload)?))),)*
                    _ => Ok(None),
                }
            }

            pub fn payload(&self) -> Value {
                match self {
                    $(Self::$name(payload) => serde_json::to_value(payload),)*
                }
                .expect("payloads have text keys and no serializer of their own that fails")
            }
        }

        $(impl From<$name> for Event {
            fn from(payload: $name) -> Self {
                Self::$name(payload)
            }
        })*
    };
}

#[derive(PartialEq)]
enum Promotion {
    Integration,
    Domain,
}

events! {
    /// An environment is in place and takes deployments.
    RuntimeEnvironmentProvisioned, Integration, on |_| Topic::Environment;
    /// A tenant may use an environment, or may use more or less of it than before.
    RuntimeTenantBound, Domain, on |_| Topic::Environment;
    /// An environment is gone.
    RuntimeEnvironmentDecommissioned, Domain, on |_| Topic::Environment;
    /// The inventory of running workloads changed.
    RuntimeInventoryUpdated, Domain, on |_| Topic::Environment;
    /// A Deploy was accepted.
    RuntimeDeploymentRequested, Domain, on |_| Topic::Deployment;
    /// A deployment passed its gate and serves all traffic.
    RuntimeDeploymentCompleted, Integration, on |_| Topic::Deployment;
    /// A deployment was taken back.
    RuntimeDeploymentRolledBack, Domain, on |_| Topic::Deployment;
    /// An environment wants another version of its configuration.
    ConfigurationPublished, Domain, on |_| Topic::Configuration;
    /// A version of the configuration is in place at one workload.
    ConfigurationSynced, Domain, on |_| Topic::Configuration;
    /// A workload may read a secret.
    SecretBound, Domain, on |_| Topic::Secrets;
    /// A binding moved to another version of its secret.
    SecretRotated, Integration, on |_| Topic::Secrets;
    /// The health of a workload was evaluated.
    HealthCheckCompleted, Integration, on |_| Topic::Health;
    /// A workload was scaled.
    ScalingPolicyApplied, Domain, on |_| Topic::Scaling;
    /// The world is not as desired.
    RuntimeDriftDetected, Integration, on |_| Topic::Drift;
    /// The world is as desired again.
    RuntimeDriftResolved, Domain, on |_| Topic::Drift;
    /// A command was refused, or failed for good.
    RuntimeCommandFailed, Domain, on |answer| topic_of_answer(&answer.command_type);
    /// A command found nothing to do.
    RuntimeCommandCompleted, Domain, on |answer| topic_of_answer(&answer.command_type);
}

impl Event {
    /// The version that the property `cs-schema-version` carries.
    pub fn schema_version(&self) -> &'static str {
        SCHEMA_VERSION
    }
}

/// A topic: one for each context of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    Environment,
    Deployment,
    Configuration,
    Secrets,
    Health,
    Scaling,
    Drift,
}

impl Topic {
    pub const ALL: [Self; 7] = [
        Self::Environment,
        Self::Deployment,
        Self::Configuration,
        Self::Secrets,
        Self::Health,
        Self::Scaling,
        Self::Drift,
    ];

    /// The name of the Service Bus entity.
    pub fn name(self) -> &'static str {
        match self {
            Self::Environment => "runtime.environment",
            Self::Deployment => "runtime.deployment",
            Self::Configuration => "runtime.configuration",
            Self::Secrets => "runtime.secrets",
            Self::Health => "runtime.health",
            Self::Scaling => "runtime.scaling",
            Self::Drift => "runtime.drift",
        }
    }
}

/// The commands that anybody may send, each to the queue of [`queue_name`].
pub const COMMANDS: [&str; 9] = [
    "ProvisionEnvironment",
    "Deploy",
    "RollbackDeployment",
    "PublishConfiguration",
    "BindSecret",
    "RotateSecret",
    "BindTenant",
    "ApplyScalingPolicy",
    "RemediateDrift",
];

/// The topic of a command's context, which carries the answers to it; none for an unknown command.
pub fn command_topic(command_type: &str) -> Option<Topic> {
    Some(match command_type {
        "ProvisionEnvironment" | "BindTenant" => Topic::Environment,
        // Drift is remedied by a deployment, so whoever waits for one waits there.
        "Deploy" | "RollbackDeployment" | "RemediateDrift" => Topic::Deployment,
        "PublishConfiguration" => Topic::Configuration,
        "BindSecret" | "RotateSecret" => Topic::Secrets,
        "ApplyScalingPolicy" => Topic::Scaling,
        _ => return None,
    })
}

/// An answer needs a topic even where the command has none: an unknown command, and internal ones,
/// which all concern environments.
fn topic_of_answer(command_type: &str) -> Topic {
    command_topic(command_type).unwrap_or(Topic::Environment)
}

/// The queue of a command: its name in kebab-case, as MassTransit names endpoints, which splits only
/// where a capital follows a small letter or a digit.
pub fn queue_name(command_type: &str) -> String {
    let mut name = String::with_capacity(command_type.len() + 4);
    let mut splits = false;
    for character in command_type.chars() {
        if splits && character.is_ascii_uppercase() {
            name.push('-');
        }
        splits = character.is_ascii_lowercase() || character.is_ascii_digit();
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(command_type: &str) -> Event {
        RuntimeCommandFailed {
            command_id: "cmd-1".into(),
            command_type: command_type.into(),
            outcome: CommandOutcome::Rejected,
            reason_code: ReasonCode::EnvironmentNotFound,
            detail: "There is no environment `env-1`.".into(),
            retryable: false,
        }
        .into()
    }

    #[test]
    fn every_command_has_a_topic_and_a_queue() {
        let told: Vec<_> = COMMANDS
            .iter()
            .map(|command| {
                (queue_name(command), command_topic(command).expect("every command has a topic").name())
            })
            .collect();
        let expected = [
            ("provision-environment", "runtime.environment"),
            ("deploy", "runtime.deployment"),
            ("rollback-deployment", "runtime.deployment"),
            ("publish-configuration", "runtime.configuration"),
            ("bind-secret", "runtime.secrets"),
            ("rotate-secret", "runtime.secrets"),
            ("bind-tenant", "runtime.environment"),
            ("apply-scaling-policy", "runtime.scaling"),
            ("remediate-drift", "runtime.deployment"),
        ];
        assert_eq!(told, expected.map(|(queue, topic)| (queue.to_owned(), topic)));
    }

    #[test]
    fn capitals_in_a_row_stay_together() {
        assert_eq!(queue_name("SyncACAApp2Now"), "sync-acaapp2-now");
        assert_eq!(queue_name(""), "");
    }

    #[test]
    fn a_no_is_told_where_the_yes_would_have_been() {
        for command in COMMANDS {
            assert_eq!(Some(failed(command).topic()), command_topic(command), "{command}");
        }
        assert_eq!(failed("MakeTea").topic(), Topic::Environment);
    }

    #[test]
    fn a_no_names_its_reason_and_is_never_promoted() {
        let event = failed("Deploy");
        assert_eq!(event.event_type(), "RuntimeCommandFailed");
        assert!(!event.promoted());
        assert_eq!(
            event.payload().to_string(),
            r#"{"commandId":"cmd-1","commandType":"Deploy","outcome":"Rejected","reasonCode":"EnvironmentNotFound","detail":"There is no environment `env-1`.","retryable":false}"#
        );
    }

    #[test]
    fn topics_are_named_after_their_contexts() {
        let names: std::collections::BTreeSet<_> = Topic::ALL.iter().map(|topic| topic.name()).collect();
        assert_eq!(names.len(), Topic::ALL.len());
        assert!(names.iter().all(|name| name.starts_with("runtime.")));
    }
}
