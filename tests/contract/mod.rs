//! Do we speak the others' language?

mod cli;
mod envelope;
mod functions;
mod host;
mod masstransit;
mod messaging;
mod resource_manager;
mod store;
