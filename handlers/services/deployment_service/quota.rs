//! How much of an environment a tenant uses, and whether one more workload is within its quota.
//!
//! Counted is what may run: the most replicas of each workload that serves, is in flight or waits for
//! its turn, and of these the most. So a quota holds whatever the autoscaler does within its bounds.

use super::{
    deploy::missing,
    state::{RuntimeDeployment, Slot, Workload},
};
use crate::{
    delivery::Refusal,
    events::{ReasonCode, TenantQuota},
    ids::ModuleId,
    ledger::Ledger,
    outcome::Fault,
    ports::store::{Filter, Page, Partition},
};

/// Pages of a tenant's workloads that are counted, of 100 each.
const PAGES_MAX: usize = 3;

/// What workloads use at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub services: u32,
    pub replicas: u32,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    pub memory_mib: u64,
    /// Whether there were more than are counted.
    pub is_more: bool,
}

/// What one replica of a workload uses: thousandths of a core, and MiB of memory.
pub fn of_one_replica(workload: &Workload) -> (u64, u64) {
    let one = Usage::of(workload, 1);
    (one.cpu_millis, one.memory_mib)
}

impl Usage {
    fn of(workload: &Workload, replicas: u32) -> Self {
        let replicas = replicas.max(1);
        // A request of cores is positive and small: it was looked at when the deployment was accepted.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let cpu_millis = (workload.cpu * 1000.0).round() as u64;
        Self {
            services: 1,
            replicas,
            cpu_millis: cpu_millis * u64::from(replicas),
            memory_mib: mebibytes(&workload.memory).unwrap_or(0) * u64::from(replicas),
            is_more: false,
        }
    }

    fn or_more(self, other: Self) -> Self {
        Self {
            services: self.services.max(other.services),
            replicas: self.replicas.max(other.replicas),
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_mib: self.memory_mib.max(other.memory_mib),
            is_more: self.is_more || other.is_more,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            services: self.services.saturating_add(other.services),
            replicas: self.replicas.saturating_add(other.replicas),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            is_more: self.is_more || other.is_more,
        }
    }
}

/// `0.5Gi`, `512Mi`, in whole mebibytes, rounded up.
fn mebibytes(memory: &str) -> Option<u64> {
    let (number, unit) = match (memory.strip_suffix("Gi"), memory.strip_suffix("Mi")) {
        (Some(number), _) => (number, 1024.0),
        (None, Some(number)) => (number, 1.0),
        (None, None) => return None,
    };
    let mebibytes = number.parse::<f64>().ok()? * unit;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (mebibytes > 0.0 && mebibytes <= 1e9).then(|| mebibytes.ceil() as u64)
}

/// What a partition's workloads use at most, one of them left out.
///
/// # Errors
/// When the store is away.
pub async fn usage(
    ledger: &Ledger,
    partition: &Partition,
    besides: Option<&ModuleId>,
) -> Result<Usage, Fault> {
    let mut usage = Usage::default();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<Slot>(partition, &Filter::default(), &page).await?;
        for (_, slot) in listing.items {
            if besides != Some(&slot.module_id) {
                usage = usage.and(of_slot(ledger, partition, &slot).await?);
            }
        }
        let Some(next) = listing.next else { return Ok(usage) };
        page.after = Some(next);
    }
    Ok(Usage { is_more: true, ..usage })
}

async fn of_slot(ledger: &Ledger, partition: &Partition, slot: &Slot) -> Result<Usage, Fault> {
    let serving = slot.serving.as_ref().map(|serving| &serving.deployment_id);
    let mut usage = Usage::default();
    let known = [slot.in_flight.as_ref(), slot.pending.as_ref(), serving].into_iter().flatten();
    for id in known.chain(&slot.arriving) {
        let deployment = ledger.load::<RuntimeDeployment>(partition, id.as_str()).await?.state;
        let deployment = deployment.ok_or_else(|| missing(id.as_str()))?;
        usage = usage.or_more(Usage::of(&deployment.workload, deployment.bounds().1));
    }
    Ok(usage)
}

/// Whether a workload is within a quota, beside what the tenant uses already.
///
/// # Errors
/// A refusal that names the limit.
pub fn within(quota: &TenantQuota, used: Usage, workload: &Workload) -> Result<(), Refusal> {
    if used.is_more {
        return Err(Refusal::new(
            ReasonCode::QuotaExceeded,
            format!(
                "The tenant has more than {} services here, more than can be counted against its quota; ask the environment's owner to lift it.",
                used.services
            ),
        ));
    }
    if quota.memory_mib.is_some() && mebibytes(&workload.memory).is_none() {
        return Err(Refusal::new(
            ReasonCode::InvalidPayload,
            "payload.workloads[0].memory: the tenant's quota limits memory, so it must be given in `Gi` or `Mi`, e.g. `0.5Gi`.",
        ));
    }
    let asked = Usage::of(workload, workload.max_replicas);
    let all = used.and(asked);
    let limits = [
        (
            "maxServices",
            "services",
            quota.max_services.map(u64::from),
            used.services.into(),
            all.services.into(),
        ),
        (
            "maxReplicas",
            "replicas",
            quota.max_replicas.map(u64::from),
            used.replicas.into(),
            all.replicas.into(),
        ),
        ("cpuMillis", "thousandths of a core", quota.cpu_millis, used.cpu_millis, all.cpu_millis),
        ("memoryMiB", "MiB of memory", quota.memory_mib, used.memory_mib, all.memory_mib),
    ];
    let over = limits.into_iter().find(|(_, _, most, _, all)| most.is_some_and(|most| *all > most));
    let Some((name, unit, most, before, all)): Option<(&str, &str, Option<u64>, u64, u64)> = over else {
        return Ok(());
    };
    Err(Refusal::new(
        ReasonCode::QuotaExceeded,
        format!(
            "The tenant's quota of {unit} here is {} ({name}); its other workloads may use {before}, and with `{}` it would be {all}. Ask for less, or have the environment's owner raise it by BindTenant.",
            most.unwrap_or_default(),
            workload.module_id
        ),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(max_replicas: u32, cpu: f64, memory: &str) -> Workload {
        serde_json::from_value(json!({
            "moduleId": "api", "componentType": "microservice", "image": "x:1", "target": "container-apps",
            "maxReplicas": max_replicas, "cpu": cpu, "memory": memory,
        }))
        .unwrap()
    }

    const NO_LIMIT: TenantQuota =
        TenantQuota { max_replicas: None, max_services: None, cpu_millis: None, memory_mib: None };

    #[test]
    fn memory_is_read_in_gibibytes_and_mebibytes() {
        assert_eq!(["0.5Gi", "512Mi", "1.3Mi"].map(mebibytes), [Some(512), Some(512), Some(2)]);
        assert_eq!(["", "1G", "-1Gi", "xGi", "NaNGi"].map(mebibytes), [None; 5]);
    }

    #[test]
    fn each_limit_counts_what_is_there_and_what_comes() {
        let used = Usage { services: 1, replicas: 3, cpu_millis: 750, memory_mib: 1536, is_more: false };
        let comes = workload(2, 0.25, "0.5Gi");
        let exact = TenantQuota {
            max_replicas: Some(5),
            max_services: Some(2),
            cpu_millis: Some(1250),
            memory_mib: Some(2560),
        };
        assert_eq!(within(&exact, used, &comes), Ok(()));
        for (name, quota) in [
            ("maxServices", TenantQuota { max_services: Some(1), ..NO_LIMIT }),
            ("maxReplicas", TenantQuota { max_replicas: Some(4), ..NO_LIMIT }),
            ("cpuMillis", TenantQuota { cpu_millis: Some(1249), ..NO_LIMIT }),
            ("memoryMiB", TenantQuota { memory_mib: Some(2559), ..NO_LIMIT }),
        ] {
            let refusal = within(&quota, used, &comes).unwrap_err();
            assert_eq!(refusal.code, ReasonCode::QuotaExceeded);
            assert!(refusal.detail.contains(name), "{}", refusal.detail);
        }
    }

    #[test]
    fn what_cannot_be_counted_is_not_let_through() {
        let much = Usage { services: 300, is_more: true, ..Usage::default() };
        assert_eq!(
            within(&NO_LIMIT, much, &workload(1, 0.25, "1Gi")).unwrap_err().code,
            ReasonCode::QuotaExceeded
        );
        let quota = TenantQuota { memory_mib: Some(10_000), ..NO_LIMIT };
        let refusal = within(&quota, Usage::default(), &workload(1, 0.25, "lots")).unwrap_err();
        assert_eq!(refusal.code, ReasonCode::InvalidPayload);
    }
}
