//! Does the flow hold, end to end? Commands go in, and what comes of them is read as a transcript.

mod bad_input;
mod configurations;
mod health;
mod decommission;
mod digests;
pub mod holds;
mod inventory;
mod large;
mod operators;
mod provisioning;
mod quarantine;
mod rollbacks;
mod secrets;
mod story;
mod superseding;
mod sweeps;
mod tenants;
mod weather;
mod year;
