//! What operators look at, and what the platform does without being told.

pub mod cancel_operation;
pub mod commands;
pub mod configurations;
pub mod dead_letters;
pub mod decommission;
pub mod deployments;
pub mod drift;
pub mod drift_suppressions;
pub mod environments;
pub mod events;
pub mod filed;
pub mod health;
pub mod http;
pub mod operations;
pub mod plans;
pub mod quarantine;
pub mod resume_operations;
pub mod secret_bindings;
pub mod services;
pub mod sweep_now;
pub mod tenant_bindings;
pub mod writes;
