//! Does the flow hold, end to end? Commands go in, and what comes of them is read as a transcript.

mod bad_input;
mod command_posts;
mod configurations;
mod decommission;
mod digests;
mod drift;
mod drift_limits;
mod health;
mod hold_requests;
pub mod holds;
mod inventory;
mod large;
mod looking;
mod operators;
mod provisioning;
mod quarantine;
mod rollbacks;
mod rotations;
mod scaling;
mod secrets;
mod story;
mod superseding;
mod sweeps;
mod tenant_parts;
mod tenants;
mod weather;
mod year;
