//! The closed lists of words that payloads are made of. Each is written in a message as it is
//! written here.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$word_doc])* $word,)*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$word),*];

            /// The word as messages carry it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    )*};
}

words! {
    /// Why a command ended in a no.
    ReasonCode {
        /// There is none, or it is another tenant's: the two are not told apart.
        EnvironmentNotFound,
        /// It is being made or taken down, or making it failed.
        EnvironmentNotProvisioned,
        DeploymentNotFound,
        /// There is no earlier deployment that passed its gate and may be restored.
        NothingToRollBackTo,
        /// A field is missing, or has a value that is not allowed.
        InvalidPayload,
        /// A newer command took its place.
        Superseded,
        GateFailed,
        /// It was too old when it was to be handled.
        Expired,
        /// It contradicts what is there, or what is going on.
        Conflict,
        QuotaExceeded,
        /// What it names failed before, and is not tried again until a person lifts that.
        Quarantined,
        /// Its registry has no such image.
        ImageNotFound,
        /// Its registry does not let the platform pull it, or is none.
        ImageUnavailable,
        /// This version of the platform cannot do it.
        NotSupported,
        TimedOut,
        ProvisioningFailed,
        RollbackFailed,
        /// It could not be handled, and waits for an operator.
        DeadLettered,
        /// A production environment takes no deployment before a tenant is bound to it.
        TenantBindingMissing,
        /// The plan would replace or remove what must stay.
        PlanRefused,
        TooLarge,
        UnknownCommand,
        /// An operator ended it.
        Cancelled,
        /// There is none, or it is another tenant's: the two are not told apart.
        DriftFindingNotFound,
    }

    /// How a command that was not carried out ended.
    CommandOutcome {
        /// It was declined before anything was done.
        Rejected,
        /// It was begun, and could not be brought to its end.
        Failed,
    }

    /// How a command that was carried out without an event of its own ended.
    CompletionOutcome {
        /// Everything was as it asks already.
        NoChange,
    }

    /// Why a deployment was taken back.
    RolledBackReason {
        GateFailed,
        /// By `RollbackDeployment`.
        Operator,
        /// By a newer Deploy of the same workload.
        Superseded,
        Cancelled,
    }

    /// What the health gate said of a deployment.
    HealthGateResult {
        Passed,
        Failed,
        /// It was not asked.
        Skipped,
        /// It could not tell within its deadline, which counts as a no.
        TimedOut,
    }

    /// How a deployment takes over from the one before it.
    Strategy {
        RollingHealthGated,
        BlueGreen,
        Canary,
        Recreate,
    }

    /// What became of a tenant's binding.
    BindingChange {
        Created,
        Updated,
    }

    /// What became of a workload in the inventory.
    InventoryChange {
        Added,
        Changed,
        Retired,
    }

    /// The state of a workload in the inventory.
    RuntimeStatus {
        Pending,
        Running,
        Degraded,
        /// Scaled to zero.
        Stopped,
        Failed,
        Retired,
    }

    /// How well a workload is.
    HealthStatus {
        Healthy,
        Degraded,
        Unhealthy,
    }

    /// What a check asks.
    CheckKind {
        Liveness,
        Readiness,
        Dependency,
    }

    /// Why a secret was rotated.
    RotationReason {
        Scheduled,
        Manual,
        Compromised,
        NearExpiry,
    }

    ScalingDirection {
        Up,
        Down,
    }

    /// What is not as desired.
    DriftKind {
        ImageMismatch,
        ReplicaMismatch,
        ConfigurationMismatch,
        SecretVersionMismatch,
        MissingWorkload,
        UnexpectedWorkload,
        NetworkPolicyMismatch,
        /// A resource of the environment itself.
        ResourceMissing,
        IsolationMismatch,
    }

    /// How bad a drift is.
    DriftSeverity {
        Info,
        Low,
        Medium,
        High,
        Critical,
    }

    /// How a drift ended.
    DriftResolution {
        /// By the platform.
        Remediated,
        /// By itself, or by somebody else.
        Healed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_written_as_it_is_named() {
        for code in ReasonCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        assert_eq!(HealthGateResult::TimedOut.to_string(), "TimedOut");
        assert_eq!(
            serde_json::from_str::<Strategy>(r#""RollingHealthGated""#).unwrap(),
            Strategy::RollingHealthGated
        );
    }
}
