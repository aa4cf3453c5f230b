//! What holds for every input, looked for with many.

mod cases;
mod closed_loop;
mod crash_points;
mod interleavings;
mod quarantine;
mod redelivery;
mod rotation;
mod store_model;
