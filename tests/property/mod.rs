//! What holds for every input, looked for with many.

mod cases;
mod crash_points;
mod interleavings;
mod quarantine;
mod redelivery;
mod store_model;
