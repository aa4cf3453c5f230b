//! The services of the platform, one folder each, named as the design names them.

pub mod runtime_environment_service;
pub mod runtime_health_service;
