//! What operators look at, and what the platform does without being told.

pub mod cancel_operation;
pub mod commands;
pub mod dead_letters;
pub mod deployments;
pub mod filed;
pub mod environments;
pub mod events;
pub mod health;
pub mod http;
pub mod operations;
pub mod plans;
pub mod quarantine;
pub mod resume_operations;
pub mod writes;
