//! Do we speak the others' language?

mod cli;
mod envelope;
mod masstransit;
mod resource_manager;
