//! The same world on one machine, as real programs that speak Azure's protocols: told apart from
//! Azure by endpoints alone. Everything is durable in SQLite and listens on loopback only.

pub mod azure;
pub mod certificates;
pub mod database;
pub mod host;
pub mod https;
pub mod identity;
pub mod service_bus;
pub mod store;
