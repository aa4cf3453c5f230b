//! Workloads are bound to a secret that nobody has ever seen.

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{self, SECRET, Service},
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// The type of vaults, as ids of resources write it.
const VAULT: &str = "/providers/Microsoft.KeyVault/vaults/";

pub const STORY: Story = Story {
    name: "secrets",
    title: "BindSecret: two workloads will read a password that is made in the vault, and is nowhere else",
    needs: &["provisioning"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let vault = teller.vault_uri().await?;
    let bind = |service| orders::bind_secret(&teller.environment, service, &vault);
    let (reservations, billing) = (bind(Service::Reservations), bind(Service::Billing));
    let mut first =
        teller.send("BindSecret", &format!("{SECRET} for reservations-api"), &reservations).await?;
    let moment = teller.follow(&mut first).await?;
    let made = teller.outcome(&moment, "SecretBound")?;
    let mut second = teller.send("BindSecret", &format!("{SECRET} for billing-api"), &billing).await?;
    let moment = teller.follow(&mut second).await?;
    let shared = teller.outcome(&moment, "SecretBound")?;
    let version = |bound: &serde_json::Value| text(&bound["payload"], "version");
    verify("the version that the second workload shares", version(&shared), version(&made))?;
    let binding = teller.binding(Service::Reservations).await?;
    verify("the binding's status", text(&binding, "status"), "Active".to_owned())?;
    teller.narrator.verified(&format!(
        "version {} was made in {vault}; both workloads get a reference to it, and nobody its value",
        version(&made)
    ))
}

impl Teller {
    /// The address of the environment's vault on this machine.
    async fn vault_uri(&self) -> Result<String, Failure> {
        let changes = self.planned().await?;
        let name = changes.iter().find_map(|change| {
            let (_, name) = change["id"].as_str()?.split_once(VAULT)?;
            (!name.contains('/')).then(|| name.to_owned())
        });
        let name =
            name.ok_or_else(|| Failure::failed("the plan should have made a vault, and names none"))?;
        Ok(self.vault_endpoint.replacen("://", &format!("://{name}."), 1))
    }

    /// A workload's binding to the secret.
    pub async fn binding(&self, service: Service) -> Result<serde_json::Value, Failure> {
        let module = service.module();
        let query = [("environmentId", self.environment.as_str()), ("moduleId", module.as_str())];
        let found = self.client.list("secret-bindings", &query, 10).await?.items;
        let binding = found.into_iter().find(|binding| text(binding, "secretName") == SECRET);
        let none = || format!("{} should be bound to {SECRET}, and is not", service.name());
        holds(binding.is_some(), none)?;
        Ok(binding.unwrap_or_default())
    }
}
