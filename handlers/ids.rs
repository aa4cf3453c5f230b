//! Typed identifiers.
//!
//! Ids that arrive in a message are opaque: 1 to 128 characters of printable ASCII, nothing more is
//! asked of them. Ids that we mint have a prefix and are *derived*, never random: things that happen
//! come from the message that caused them, things that are come from their natural key. So saying a
//! thing twice makes one thing.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest id that is accepted, in characters. Service Bus allows 128 for a MessageId.
pub const ID_LENGTH_MAX: usize = 128;

/// Every derived id descends from this UUID.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c2f_7d0e_3b51_4b7e_9a44_5f0a_c1d8_e2b7);

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("is empty")]
    Empty,
    #[error("has {0} characters, the longest allowed is {ID_LENGTH_MAX}")]
    TooLong(usize),
    #[error("contains a character that is not printable ASCII")]
    NotPrintable,
    #[error("`{id}` should begin with `{prefix}`")]
    WrongKind { id: String, prefix: &'static str },
    #[error("`{0}` begins with `_`, which is reserved for the platform")]
    Reserved(String),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_LENGTH_MAX {
        return Err(IdError::TooLong(text.chars().count()));
    }
    if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(IdError::NotPrintable);
    }
    Ok(())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $(, minted as $prefix:literal)?;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            $(
                /// What every id of this kind that we mint begins with.
                pub const PREFIX: &'static str = $prefix;

                /// Reads an id that must be one of ours.
                ///
                /// # Errors
                /// When the text is no id, or an id of another kind.
                pub fn of_ours(text: &str) -> Result<Self, IdError> {
                    let id: Self = text.parse()?;
                    if id.0.starts_with($prefix) {
                        Ok(id)
                    } else {
                        Err(IdError::WrongKind { id: id.0, prefix: $prefix })
                    }
                }
            )?

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// The id of a message: a command's or an event's. Consumers deduplicate on it.
    EventId, minted as "evt-";
    /// The owner of everything: a bare slug, globally unique, immutable.
    TenantId;
    /// A project of a tenant.
    ProjectId;
    /// A generated component.
    ModuleId;
    /// One intent, end to end.
    TraceId;
    /// One workflow.
    CorrelationId;
    /// A provisioned slice of Azure, stage by region.
    EnvironmentId, minted as "env-";
    /// One rollout of one workload.
    DeploymentId, minted as "dep-";
    /// A long piece of work, done in steps.
    OperationId, minted as "op-";
    /// What provisioning would change.
    PlanId, minted as "plan-";
    /// A workload in the inventory.
    ServiceId, minted as "svc-";
    /// A tenant's place in an environment.
    TenantBindingId, minted as "tb-";
    /// One drift, from when it was first seen to its end.
    DriftFindingId, minted as "drift-";
}

impl TenantId {
    /// # Errors
    /// When the tenant begins with `_`: those partitions are the platform's own.
    pub fn checked(self) -> Result<Self, IdError> {
        if self.0.starts_with('_') {
            return Err(IdError::Reserved(self.0));
        }
        Ok(self)
    }
}

/// The UUID of a name, under our namespace. The parts are joined so that no two lists of parts
/// make the same name.
pub fn derive(parts: &[&str]) -> Uuid {
    let mut name = String::new();
    for part in parts {
        name.push_str(&part.len().to_string());
        name.push(':');
        name.push_str(part);
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// The first eight hex digits of a derived UUID, as our short ids use them.
fn eight(uuid: Uuid) -> String {
    uuid.simple().to_string()[..8].to_owned()
}

/// What made a thing happen: the scope from which ids of events, deployments and operations derive.
/// Two functions, or two tenants, may handle one eventId, so all of it is part of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause<'a> {
    pub tenant: &'a TenantId,
    /// The environment's id, or `_` where there is none.
    pub environment: &'a str,
    /// The function that handles the message.
    pub function: &'a str,
    /// The message that is handled.
    pub event_id: &'a str,
}

impl Cause<'_> {
    fn uuid(&self, kind: &str, ordinal: u32) -> Uuid {
        derive(&[
            self.tenant.as_str(),
            self.environment,
            self.function,
            self.event_id,
            kind,
            &ordinal.to_string(),
        ])
    }

    /// The `ordinal`-th event of `event_type` that this cause brings about.
    pub fn event(&self, event_type: &str, ordinal: u32) -> EventId {
        EventId(format!("evt-{}", self.uuid(event_type, ordinal)))
    }

    pub fn deployment(&self, ordinal: u32) -> DeploymentId {
        DeploymentId(format!("dep-{}", eight(self.uuid("deployment", ordinal))))
    }

    pub fn operation(&self, ordinal: u32) -> OperationId {
        OperationId(format!("op-{}", eight(self.uuid("operation", ordinal))))
    }
}

impl EnvironmentId {
    /// An environment is its tenant, project and name. Eight digits collide in time: where another
    /// environment sits already, the next ordinal is taken.
    pub fn derived(tenant: &TenantId, project: &ProjectId, name: &str, ordinal: u32) -> Self {
        let uuid = derive(&["environment", tenant.as_str(), project.as_str(), name, &ordinal.to_string()]);
        Self(format!("env-{}", eight(uuid)))
    }
}

impl ServiceId {
    /// A service is one module in one environment.
    pub fn derived(tenant: &TenantId, environment: &EnvironmentId, module: &ModuleId) -> Self {
        let uuid = derive(&["service", tenant.as_str(), environment.as_str(), module.as_str()]);
        Self(format!("svc-{}", eight(uuid)))
    }
}

impl TenantBindingId {
    /// A binding is one tenant in one environment. Where another tenant's binding of the environment
    /// sits already, the next ordinal is taken.
    pub fn derived(owner: &TenantId, environment: &EnvironmentId, bound: &TenantId, ordinal: u32) -> Self {
        let parts =
            ["tenant-binding", owner.as_str(), environment.as_str(), bound.as_str(), &ordinal.to_string()];
        Self(format!("tb-{}", eight(derive(&parts))))
    }
}

impl DriftFindingId {
    /// A finding is a fingerprint and when it was first seen. Where another finding of the environment
    /// sits already, the next ordinal is taken.
    pub fn derived(
        tenant: &TenantId,
        environment: &EnvironmentId,
        fingerprint: &str,
        first_seen: &str,
        ordinal: u32,
    ) -> Self {
        let parts = [
            "drift-finding",
            tenant.as_str(),
            environment.as_str(),
            fingerprint,
            first_seen,
            &ordinal.to_string(),
        ];
        Self(format!("drift-{}", eight(derive(&parts))))
    }
}

impl PlanId {
    /// A plan is made by an operation, and made anew when the world moved.
    pub fn derived(operation: &OperationId, generation: u32) -> Self {
        Self(format!("plan-{}", eight(derive(&["plan", operation.as_str(), &generation.to_string()]))))
    }
}

impl EventId {
    /// The UUID within `evt-<uuid>`; for an id of another form, a UUID derived from it. Either is
    /// the same on every resend, as the broker's duplicate detection needs.
    pub fn broker_message_id(&self) -> Uuid {
        self.0
            .strip_prefix(Self::PREFIX)
            .and_then(|rest| Uuid::try_parse(rest).ok())
            .unwrap_or_else(|| derive(&["message", &self.0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_printable_ascii_of_bounded_length() {
        assert_eq!("".parse::<TenantId>(), Err(IdError::Empty));
        assert_eq!("é".parse::<TenantId>(), Err(IdError::NotPrintable));
        assert_eq!("a\nb".parse::<TenantId>(), Err(IdError::NotPrintable));
        assert_eq!("x".repeat(129).parse::<TenantId>(), Err(IdError::TooLong(129)));
        assert!("x".repeat(128).parse::<TenantId>().is_ok());
    }

    #[test]
    fn only_ids_that_we_mint_are_asked_for_their_prefix() {
        assert!("cmd-4c7e".parse::<EventId>().is_ok());
        assert_eq!(
            EnvironmentId::of_ours("dep-1"),
            Err(IdError::WrongKind { id: "dep-1".into(), prefix: "env-" })
        );
    }

    #[test]
    fn the_parts_of_a_name_cannot_be_shifted() {
        assert_ne!(derive(&["ab", "c"]), derive(&["a", "bc"]));
    }

    #[test]
    fn two_tenants_that_send_one_event_id_make_two_things() {
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let cause = |tenant| Cause { tenant, environment: "env-1", function: "Deploy", event_id: "evt-1" };
        assert_ne!(cause(&a).deployment(0), cause(&b).deployment(0));
        assert_eq!(cause(&a).deployment(0), cause(&a).deployment(0));
    }

    #[test]
    fn the_broker_sees_the_uuid_of_an_event_id() {
        let id: EventId = "evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11".parse().unwrap();
        assert_eq!(id.broker_message_id().to_string(), "3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11");
        let other: EventId = "cmd-7".parse().unwrap();
        assert_eq!(other.broker_message_id(), other.broker_message_id());
    }
}
