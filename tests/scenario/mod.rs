//! Does the flow hold, end to end? Commands go in, and what comes of them is read as a transcript.

mod bad_input;
mod operators;
mod provisioning;
mod rollbacks;
mod story;
mod superseding;
mod weather;
