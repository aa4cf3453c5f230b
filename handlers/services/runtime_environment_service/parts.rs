//! Parts of a pool that bound tenants have for themselves, as the tenants' service asks for them.
//!
//! A part is wanted in the commit that records a binding, and made by that binding's operation, which
//! brings everything that the environment is made of into place: what is satisfied is not written.

use super::{
    EnvironmentView,
    provisioning::{self, Site, Standing},
    resources::TenantPart,
};
use crate::{
    events::ReasonCode,
    ids::OperationId,
    ledger::Commit,
    operations::{Operation, Step},
    outcome::Fault,
    platform::Platform,
};

pub use super::resources::PARTS_MAX;

/// Where the operation that makes a part begins.
pub const FIRST_STEP: &str = provisioning::PLANNING;

/// How far a part has come. Where it ended, the environment is in `commit` already.
pub enum Part {
    Goes(Step),
    /// It was read to be in place.
    Stands {
        commit: Commit,
        notes: Vec<String>,
    },
    /// It will not come into place.
    Fails {
        commit: Commit,
        notes: Vec<String>,
        code: ReasonCode,
        detail: String,
    },
}

impl EnvironmentView {
    /// Whether the tenant whose names begin with `prefix` has its part.
    pub fn has_part(&self, prefix: &str) -> bool {
        self.environment.parts.iter().any(|part| part.prefix == prefix && part.stands)
    }

    /// Adds to a commit that a tenant is to have a part, and which operation makes it.
    ///
    /// # Errors
    /// When the environment cannot be written.
    pub fn want_part(
        &self,
        commit: &mut Commit,
        part: TenantPart,
        operation: &OperationId,
    ) -> Result<(), Fault> {
        let mut environment = self.environment.clone();
        if !environment.parts.iter().any(|known| known.prefix == part.prefix) {
            environment.parts.push(part);
        }
        environment.operation_id = Some(operation.clone());
        commit.put(&self.loaded, &environment)
    }
}

/// Takes the next step of making the part of a tenant.
///
/// # Errors
/// What the store or Azure withheld.
pub async fn advance(platform: &Platform, operation: &Operation, prefix: &str) -> Result<Part, Fault> {
    match provisioning::advance(platform, operation).await? {
        Standing::Goes(step) => Ok(Part::Goes(step)),
        Standing::Stands { site, notes, untouched: _ } => {
            Ok(Part::Stands { commit: ended(site, operation, Some(prefix))?, notes })
        }
        Standing::Fails { site, notes, code, detail } => {
            Ok(Part::Fails { commit: ended(site, operation, None)?, notes, code, detail })
        }
    }
}

/// Leaves a part as it is, e.g. where its operation gives up: the next one takes it up.
///
/// # Errors
/// When the store is away.
pub async fn leave(platform: &Platform, operation: &Operation) -> Result<Commit, Fault> {
    ended(provisioning::site(platform, operation).await?, operation, None)
}

/// The environment without the operation, `stands` being the part that is in place.
fn ended(site: Site, operation: &Operation, stands: Option<&str>) -> Result<Commit, Fault> {
    let Site { mut environment, loaded, mut commit, .. } = site;
    if environment.operation_id.as_ref() == Some(&operation.operation_id) {
        environment.operation_id = None;
    }
    for part in environment.parts.iter_mut().filter(|part| Some(part.prefix.as_str()) == stands) {
        part.stands = true;
    }
    commit.put(&loaded, &environment)?;
    Ok(commit)
}
