//! masstransit
