//! What is promised to somebody: to an adapter's user, to a consumer, to the host.

mod store;
