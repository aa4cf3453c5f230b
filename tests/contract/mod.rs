//! What this repository promises to others, and its parts to each other.

mod messaging;
