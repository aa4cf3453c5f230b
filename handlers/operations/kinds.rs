//! Which service takes the steps of which kind of operation, and ends it where it cannot go on.

use super::{GiveUp, Kind, Operation, Step};
use crate::{
    outcome::Fault,
    platform::Platform,
    services::{
        deployment_service::rollout,
        runtime_configuration_service,
        runtime_environment_service::{decommissioning, provisioning},
        runtime_scaling_service,
        secret_binding_service::{bind_secret, rotation},
        tenant_runtime_isolation_service::making_part,
    },
};

pub(super) async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    match operation.kind {
        Kind::Provision | Kind::Remediate => provisioning::step(platform, operation).await,
        Kind::Deploy | Kind::Rollback => rollout::step(platform, operation).await,
        Kind::Configure => runtime_configuration_service::step(platform, operation).await,
        Kind::BindSecret => bind_secret::step(platform, operation).await,
        Kind::BindTenant => making_part::step(platform, operation).await,
        Kind::RotateSecret => rotation::step(platform, operation).await,
        Kind::Scale => runtime_scaling_service::step(platform, operation).await,
        Kind::Decommission => decommissioning::step(platform, operation).await,
    }
}

pub(super) async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    match operation.kind {
        Kind::Provision | Kind::Remediate => provisioning::give_up(platform, operation, why).await,
        Kind::Deploy | Kind::Rollback => rollout::give_up(platform, operation, why).await,
        Kind::Configure => runtime_configuration_service::give_up(platform, operation, why).await,
        Kind::BindSecret => bind_secret::give_up(platform, operation, why).await,
        Kind::BindTenant => making_part::give_up(platform, operation, why).await,
        Kind::RotateSecret => rotation::give_up(platform, operation, why).await,
        Kind::Scale => runtime_scaling_service::give_up(platform, operation, why).await,
        Kind::Decommission => decommissioning::give_up(platform, operation, why).await,
    }
}
