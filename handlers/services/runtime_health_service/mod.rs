//! x
pub mod health_gate;
