//! What holds for every input, looked for with many.

mod any_order;
mod cases;
mod closed_loop;
mod crash_points;
mod holding;
mod interleavings;
mod quarantine;
mod redelivery;
mod rotation;
mod store_model;
