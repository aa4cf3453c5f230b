//! Does the flow hold, end to end? Commands go in, and what comes of them is read as a transcript.

mod bad_input;
mod command_posts;
mod configurations;
mod decommission;
mod digests;
mod health;
mod hold_requests;
pub mod holds;
mod inventory;
mod looking;
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
