//! Does the flow hold, end to end? Commands go in, and what comes of them is read as a transcript.

mod operators;
mod story;
