//! Do we speak the others' language?

mod envelope;
mod masstransit;
