//! Adapters to Azure.

pub mod direct;
