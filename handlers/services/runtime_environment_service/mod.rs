//! RuntimeEnvironmentService: stands environments up on Azure.

pub mod resources;
