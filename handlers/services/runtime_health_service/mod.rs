//! RuntimeHealthService: judges whether what runs is well.

pub mod health_gate;
