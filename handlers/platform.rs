//! Everything that a handler may touch.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use crate::{
    ledger::Ledger,
    masstransit::WireFormat,
    ports::{
        bus::Bus, clock::Clock, compute::Compute, infrastructure::Infrastructure, metrics::Metrics,
        probe::Probe, registry::Registry, vault::Vault,
    },
};

/// The ports, and what the settings say. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    pub ledger: Ledger,
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub infrastructure: Arc<dyn Infrastructure>,
    pub compute: Arc<dyn Compute>,
    pub probe: Arc<dyn Probe>,
    pub vault: Arc<dyn Vault>,
    pub metrics: Arc<dyn Metrics>,
    pub registry: Arc<dyn Registry>,
    pub wire_format: WireFormat,
    /// The Service Bus namespace's host, for addresses in MassTransit's envelope.
    pub namespace: Arc<str>,
    /// The subscription that environments are made in.
    pub subscription_id: Arc<str>,
    /// The directory (Entra tenant) of that subscription.
    pub directory_id: Arc<str>,
    /// The names of the function keys whose holders operate the whole platform.
    pub operator_keys: Arc<[String]>,
    /// How long after a deployment the world may still be moving, and is not looked at for drift.
    pub drift_settle: SignedDuration,
    /// Between two looks at a store that is away.
    pub hold_pause: Duration,
}
