//! Holds: an operator keeps the platform's own hands off a workload, an environment or everything.
//!
//! What people send is carried out; what the platform would do by itself (remediation, scaling,
//! rotation, refreshes) waits, says so where it would have acted, and goes on when the hold ends, since
//! every sweep comes again. A hold always ends: it has a time by which it is over.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::whole_seconds,
    ids::{self, ModuleId},
    ledger::{Ledger, State},
    outcome::Fault,
    ports::store::Partition,
    services::tenant_runtime_isolation_service,
};

/// How long a hold is kept once it is over.
const ENDED_SECONDS: u32 = 90 * 24 * 60 * 60;

/// What a hold is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HoldScope {
    Platform,
    Environment,
    Workload,
}

/// An operator's word that the platform acts on nothing by itself here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    pub hold_id: String,
    pub scope: HoldScope,
    /// None for a hold of the whole platform.
    pub environment_id: Option<String>,
    /// Only for a hold of one workload.
    pub module_id: Option<ModuleId>,
    pub reason: String,
    /// Who gave it.
    pub by: String,
    pub from: Timestamp,
    /// When it is over by itself.
    pub until: Timestamp,
    /// How it ended before that, where it did.
    pub released: Option<Released>,
}

/// The end of a hold before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    pub by: String,
    pub reason: String,
    pub at: Timestamp,
}

impl State for Hold {
    const KIND: &'static str = "hold";

    fn made_at(&self) -> Timestamp {
        self.from
    }

    fn ttl_seconds(&self) -> Option<u32> {
        let lasts = self.until.duration_since(self.from).as_secs();
        Some(u32::try_from(lasts).unwrap_or(u32::MAX).saturating_add(ENDED_SECONDS))
    }
}

impl Hold {
    /// Where the one hold of a scope is kept: of a workload, or of its partition as a whole.
    pub fn id(partition: &Partition, module: Option<&ModuleId>) -> String {
        let what = module.map_or("*", ModuleId::as_str);
        let name = ["hold", partition.tenant_id.as_str(), partition.environment_id.as_str(), what];
        format!("hold-{}", &ids::derive(&name).simple().to_string()[..8])
    }

    /// Where holds of the whole platform are kept.
    pub fn platform() -> Partition {
        Partition::platform("_")
    }

    pub fn in_force(&self, now: Timestamp) -> bool {
        self.released.is_none() && now < self.until
    }

    /// Who holds what, why, and until when.
    pub fn sentence(&self) -> String {
        let what = match (self.scope, &self.module_id, &self.environment_id) {
            (HoldScope::Workload, Some(module), _) => format!("`{module}`"),
            (HoldScope::Environment, _, Some(environment)) => format!("`{environment}`"),
            (HoldScope::Platform | HoldScope::Environment | HoldScope::Workload, _, _) => {
                "the whole platform".to_owned()
            }
        };
        format!(
            "`{}` holds {what} until {} ({}): {}",
            self.by,
            whole_seconds::text(self.until),
            self.hold_id,
            self.reason
        )
    }
}

/// The hold in force that keeps automation off a workload, or off an environment as a whole: the
/// platform's, the environment's (its owner's, where the partition is a bound tenant's), the workload's.
///
/// # Errors
/// When the store is away.
pub async fn held(
    ledger: &Ledger,
    partition: &Partition,
    module: Option<&ModuleId>,
    now: Timestamp,
) -> Result<Option<Hold>, Fault> {
    let owners = tenant_runtime_isolation_service::owners_partition(ledger, partition).await?;
    let mut places = vec![(Hold::platform(), None), (partition.clone(), None)];
    places.extend(owners.map(|owners| (owners, None)));
    places.extend(module.map(|module| (partition.clone(), Some(module))));
    for (partition, module) in places {
        let hold = ledger.load::<Hold>(&partition, &Hold::id(&partition, module)).await?.state;
        if let Some(hold) = hold.filter(|hold| hold.in_force(now)) {
            return Ok(Some(hold));
        }
    }
    Ok(None)
}
