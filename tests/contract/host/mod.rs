//! The Functions host, driving a real process: what Azure's host would do, on this machine.

mod crashes;
mod handler;
mod triggers;
mod world;
