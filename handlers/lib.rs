//! The Runtime & Cloud Platform: commands in, decisions committed, the world changed, events out.
//!
//! Start at `functions.rs`, the list of everything that can be called; `ARCHITECTURE.md` beside
//! this file tells the rest.

#![forbid(unsafe_code)]

pub mod admin;
pub mod azure;
pub mod config;
pub mod delivery;
pub mod envelope;
pub mod events;
pub mod functions;
pub mod holds;
pub mod ids;
pub mod invocation;
pub mod ledger;
#[cfg(feature = "local")]
pub mod local;
pub mod masstransit;
pub mod operations;
pub mod outbox_relay;
pub mod outcome;
pub mod platform;
pub mod ports;
pub mod server;
pub mod services;
pub mod sweeps;
pub mod telemetry;
