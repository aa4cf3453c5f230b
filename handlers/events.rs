//! The eight events.
