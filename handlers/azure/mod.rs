//! Adapters to Azure.
//!
//! They speak Azure's own protocols and run unchanged against the stand-ins of one machine: what
//! differs is endpoints and credentials, never code. Nothing here decides anything about the domain,
//! and nothing waits for a long-running operation: one call is one look.

pub mod container_apps;
pub mod credential;
pub mod direct;
pub mod http_client;
pub mod key_vault;
pub mod metrics;
pub mod probe;
pub mod registry;
pub mod resource_manager;
pub mod service_bus;

#[cfg(all(test, feature = "local"))]
mod testing;
