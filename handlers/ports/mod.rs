//! What the platform needs of the world, in its own words. Each port says what it promises; the
//! adapters are in `azure/` and `local/`.

pub mod bus;
pub mod clock;
pub mod compute;
pub mod infrastructure;
pub mod metrics;
pub mod probe;
pub mod registry;
pub mod store;
pub mod vault;
