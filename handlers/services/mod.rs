//! One folder per name in the design; one file per operation.

pub mod deployment_service;
pub mod drift_detection_worker;
pub mod runtime_configuration_service;
pub mod runtime_drift_detection_service;
pub mod runtime_environment_service;
pub mod runtime_health_service;
pub mod runtime_inventory_worker;
pub mod runtime_scaling_service;
pub mod scaling_policy_worker;
pub mod secret_binding_service;
pub mod service_catalog_runtime_service;
pub mod tenant_runtime_isolation_service;
