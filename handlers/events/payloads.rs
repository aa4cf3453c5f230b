//! The payloads of the events. The order of the fields is the order on the wire; what is absent is
//! written as `null`; times are in whole seconds. No payload carries the value of a secret or of a
//! setting.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::vocabulary::{
    BindingChange, CheckKind, CommandOutcome, CompletionOutcome, DriftKind, DriftResolution, DriftSeverity,
    HealthGateResult, HealthStatus, InventoryChange, ReasonCode, RolledBackReason, RotationReason,
    RuntimeStatus, ScalingDirection, Strategy,
};
use crate::{
    envelope::whole_seconds,
    ids::{DeploymentId, EnvironmentId, ServiceId},
};

macro_rules! payloads {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }
    )*};
}

payloads! {
    /// An environment is in place and takes deployments.
    RuntimeEnvironmentProvisioned {
        environment_id: EnvironmentId,
        name: String,
        /// `dev`, `test`, `staging` or `prod`.
        stage: String,
        /// An Azure region, e.g. `westeurope`.
        region: String,
        /// `silo`, `pool` or `shared`.
        isolation_model: String,
        /// None where another engine than Pulumi made the environment.
        pulumi_stack_ref: Option<String>,
        /// `container-apps`, `app-service`, `aks`.
        compute_targets: Vec<String>,
        #[serde(with = "whole_seconds")]
        provisioned_at: Timestamp,
    }

    /// A tenant may use an environment, or may use more or less of it than before.
    RuntimeTenantBound {
        tenant_binding_id: String,
        environment_id: EnvironmentId,
        /// `silo`, `pool` or `shared`.
        isolation_model: String,
        /// None where nothing but the environment limits the tenant.
        quota: Option<TenantQuota>,
        change: BindingChange,
    }

    /// How much of an environment a tenant may use; what is absent is not limited.
    TenantQuota {
        /// Replicas of all its workloads together.
        max_replicas: Option<u32>,
        max_services: Option<u32>,
        /// Thousandths of a core.
        cpu_millis: Option<u64>,
        #[serde(rename = "memoryMiB")]
        memory_mib: Option<u64>,
    }

    /// An environment is gone.
    RuntimeEnvironmentDecommissioned {
        environment_id: EnvironmentId,
        #[serde(with = "whole_seconds")]
        decommissioned_at: Timestamp,
    }

    /// The inventory of running workloads changed.
    RuntimeInventoryUpdated {
        environment_id: EnvironmentId,
        service_id: ServiceId,
        change: InventoryChange,
        status: RuntimeStatus,
        image: String,
        /// The image's tag or digest, as far as it is known.
        version: Option<String>,
        replicas: u32,
    }

    /// A Deploy was accepted.
    RuntimeDeploymentRequested {
        deployment_id: DeploymentId,
        environment_id: EnvironmentId,
        /// `container-apps`, `app-service` or `aks`.
        target: String,
        image: String,
        /// What serves as it is accepted; none for a first deployment.
        previous_image: Option<String>,
        strategy: Strategy,
        release_ref: Option<String>,
    }

    /// A deployment passed its gate and serves all traffic.
    RuntimeDeploymentCompleted {
        deployment_id: DeploymentId,
        environment_id: EnvironmentId,
        /// `container-apps`, `app-service` or `aks`.
        target: String,
        image: String,
        /// What served before; none for a first deployment.
        previous_image: Option<String>,
        health_gate: HealthGateResult,
        strategy: Strategy,
    }

    /// A deployment was taken back.
    RuntimeDeploymentRolledBack {
        /// The deployment that no longer serves, or never did.
        deployment_id: DeploymentId,
        environment_id: EnvironmentId,
        /// `container-apps`, `app-service` or `aks`.
        target: String,
        image: String,
        /// The deployment that serves again; none where there was nothing to restore.
        restored_deployment_id: Option<DeploymentId>,
        restored_image: Option<String>,
        reason: RolledBackReason,
        health_gate: HealthGateResult,
    }

    /// An environment wants another version of its configuration.
    ConfigurationPublished {
        configuration_id: String,
        environment_id: EnvironmentId,
        /// Counts up from 1 in each environment.
        version: u64,
        content_hash: String,
        /// The workloads that it will be applied to.
        service_ids: Vec<ServiceId>,
    }

    /// A version of the configuration is in place at one workload.
    ConfigurationSynced {
        configuration_id: String,
        environment_id: EnvironmentId,
        version: u64,
        service_id: ServiceId,
        content_hash: String,
    }

    /// A workload may read a secret.
    SecretBound {
        secret_binding_id: String,
        environment_id: EnvironmentId,
        service_id: ServiceId,
        secret_name: String,
        /// The vault's name of the version, never the value.
        version: String,
    }

    /// A binding moved to another version of its secret.
    SecretRotated {
        secret_binding_id: String,
        environment_id: EnvironmentId,
        secret_name: String,
        previous_version: Option<String>,
        new_version: String,
        #[serde(with = "whole_seconds")]
        rotated_at: Timestamp,
        reason: RotationReason,
    }

    /// The health of a workload was evaluated.
    HealthCheckCompleted {
        health_check_id: String,
        service_id: ServiceId,
        environment_id: EnvironmentId,
        deployment_id: Option<DeploymentId>,
        status: HealthStatus,
        /// None at the first evaluation.
        previous_status: Option<HealthStatus>,
        checks: Vec<CheckSummary>,
        #[serde(with = "whole_seconds")]
        window_start: Timestamp,
    }

    /// One check of a workload's health.
    CheckSummary {
        kind: CheckKind,
        name: String,
        status: HealthStatus,
    }

    /// A workload was scaled.
    ScalingPolicyApplied {
        scaling_policy_id: String,
        service_id: ServiceId,
        environment_id: EnvironmentId,
        from_replicas: u32,
        to_replicas: u32,
        direction: ScalingDirection,
        /// A sentence for a person.
        reason: String,
    }

    /// The world is not as desired.
    RuntimeDriftDetected {
        finding_id: String,
        environment_id: EnvironmentId,
        /// None where the environment itself has drifted.
        service_id: Option<ServiceId>,
        kind: DriftKind,
        severity: DriftSeverity,
        /// Null where nothing is desired.
        desired: Value,
        /// Null where nothing is there.
        actual: Value,
        /// The same for every sighting of one drift.
        finding_hash: String,
        /// Whether the platform may put it right by itself.
        auto_remediable: bool,
    }

    /// The world is as desired again.
    RuntimeDriftResolved {
        finding_id: String,
        environment_id: EnvironmentId,
        service_id: Option<ServiceId>,
        kind: DriftKind,
        finding_hash: String,
        resolution: DriftResolution,
        #[serde(with = "whole_seconds")]
        resolved_at: Timestamp,
    }

    /// A command was refused, or failed for good.
    RuntimeCommandFailed {
        /// The command's `eventId`.
        command_id: String,
        command_type: String,
        outcome: CommandOutcome,
        reason_code: ReasonCode,
        /// A sentence for a person: what was wrong, and what to do.
        detail: String,
        /// Whether the same command, sent anew under another id, may succeed.
        retryable: bool,
    }

    /// A command found nothing to do.
    RuntimeCommandCompleted {
        /// The command's `eventId`.
        command_id: String,
        command_type: String,
        outcome: CompletionOutcome,
        /// A sentence for a person: what was found.
        detail: String,
    }
}
