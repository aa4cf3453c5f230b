//! Do we speak the others' language?

mod cli;
mod envelope;
mod evolution;
mod functions;
mod host;
mod invocation;
mod masstransit;
mod messaging;
mod readme;
mod resource_manager;
mod settings;
mod store;
mod stored_documents;
mod subscriptions;
mod tenants;
mod tidy;
