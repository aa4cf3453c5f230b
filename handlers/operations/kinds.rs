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
        Kind::Provision | Kind::Remediate => Box::pin(provisioning::step(platform, operation)).await,
        Kind::Deploy | Kind::Rollback => Box::pin(rollout::step(platform, operation)).await,
        Kind::Configure => Box::pin(runtime_configuration_service::step(platform, operation)).await,
        Kind::BindSecret => Box::pin(bind_secret::step(platform, operation)).await,
        Kind::BindTenant => Box::pin(making_part::step(platform, operation)).await,
        Kind::RotateSecret => Box::pin(rotation::step(platform, operation)).await,
        Kind::Scale => Box::pin(runtime_scaling_service::step(platform, operation)).await,
        Kind::Decommission => Box::pin(decommissioning::step(platform, operation)).await,
    }
}

pub(super) async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    match operation.kind {
        Kind::Provision | Kind::Remediate => Box::pin(provisioning::give_up(platform, operation, why)).await,
        Kind::Deploy | Kind::Rollback => Box::pin(rollout::give_up(platform, operation, why)).await,
        Kind::Configure => Box::pin(runtime_configuration_service::give_up(platform, operation, why)).await,
        Kind::BindSecret => Box::pin(bind_secret::give_up(platform, operation, why)).await,
        Kind::BindTenant => Box::pin(making_part::give_up(platform, operation, why)).await,
        Kind::RotateSecret => Box::pin(rotation::give_up(platform, operation, why)).await,
        Kind::Scale => Box::pin(runtime_scaling_service::give_up(platform, operation, why)).await,
        Kind::Decommission => Box::pin(decommissioning::give_up(platform, operation, why)).await,
    }
}
