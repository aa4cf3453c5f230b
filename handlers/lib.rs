//! The Runtime & Cloud Platform: commands in, decisions committed, the world changed, events out.
//!
//! Start at `functions.rs`, the list of everything that can be called; `ARCHITECTURE.md` beside
//! this file tells the rest.

#![forbid(unsafe_code)]

pub mod envelope;
pub mod events;
pub mod ids;
pub mod masstransit;
pub mod outcome;
pub mod ports;
pub mod services;

pub mod azure;
#[cfg(feature = "local")]
pub mod local;
