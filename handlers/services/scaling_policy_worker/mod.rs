//! ScalingPolicyWorker: has policies evaluated when something was seen, and not only by the clock.
//!
//! It writes nothing: the sweep of RuntimeScalingService does the work, on a nudge as on its timer.

pub mod on_runtime_health;
