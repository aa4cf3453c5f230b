//! Test doubles: a clock that is set, ports that fail when told to, and a world in memory.
//!
//! All of them are deterministic: the same calls at the same times get the same answers.

pub mod asking;
pub mod broker;
pub mod builders;
pub mod counting;
pub mod fakes;
pub mod faulty;
pub mod fixed_clock;
pub mod large;
pub mod memory_bus;
pub mod memory_store;
pub mod refusing;
pub mod test_platform;
pub mod transcript;
