//! A world in memory, well behaved as the ports promise it: compute, infrastructure, probes, registries.
//!
//! Each keeps a log of its *effects*: what changed, in order, and not what was asked again. Two runs
//! with the same log and the same world did the same, whatever died in between.

pub mod compute;
pub mod infrastructure;
pub mod metrics;
pub mod probe;
pub mod registry;
pub mod vault;
