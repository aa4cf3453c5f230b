//! Reads the secrets that apps refer to, each with the identity that its reference names, as Container
//! Apps does: when a write brings a new reference, and when a revision is to be started. A value goes
//! to the container's variables, and is nowhere else.
//!
//! Absent on purpose: reading a reference without a version again every half an hour, and starting
//! what refers to it anew.

use serde_json::Value;
use url::Url;

use super::{
    Shared,
    address::ResourceId,
    container_apps::{self, EnvValue, Plan, Reference, SecretValue},
    records,
    refusals::ArmError,
    types,
};

impl Shared {
    /// Puts values in the place of references. A revision with one that cannot be read is not to be
    /// started, and says why.
    pub(super) async fn resolve(&self, plan: &mut Plan) -> Result<(), ArmError> {
        let (app, identities) = (plan.app.clone(), plan.identities.clone());
        for revision in &mut plan.revisions {
            let variables =
                revision.spec.containers.iter_mut().flat_map(|container| container.env.values_mut());
            for variable in variables {
                let EnvValue::Reference(reference) = variable else { continue };
                match self.read_secret(&app, &identities, reference).await {
                    Ok(value) => *variable = EnvValue::Secret(value),
                    Err(error) if error.status.is_client_error() => {
                        revision.spec.broken = Some(error.message);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Refuses a write of an app that refers to a secret which cannot be read. References that are
    /// there already were looked at when they came.
    pub(super) async fn new_secrets_are_readable(
        &self,
        app: &ResourceId,
        given: &Value,
        whole: bool,
    ) -> Result<(), ArmError> {
        let key = app.key();
        let there =
            self.database.read(move |connection| records::load(connection, &key)).await?.map(|app| app.body);
        let mut identities = container_apps::identities(given);
        if let Some(there) = there.as_ref().filter(|_| !whole) {
            identities.extend(container_apps::identities(there));
        }
        for reference in container_apps::unseen(given, there.as_ref()) {
            self.read_secret(app, &identities, &reference).await?;
        }
        Ok(())
    }

    /// Reads one secret.
    ///
    /// # Errors
    /// Azure's words where it cannot be read: identity, role, vault, name, version.
    pub(super) async fn read_secret(
        &self,
        app: &ResourceId,
        identities: &[String],
        reference: &Reference,
    ) -> Result<SecretValue, ArmError> {
        let Some((vault, name, version)) = self.place_of(&reference.url) else {
            return Err(ArmError::bad_request(
                "ContainerAppSecretKeyVaultUrlInvalid",
                format!(
                    "The keyVaultUrl of the secret `{}` is no address of a secret in a vault of this cloud: \
                     https://{{vault}}.{}/secrets/{{name}}/{{version}}.",
                    reference.name, self.naming.vault_domain
                ),
            ));
        };
        let (app, identities, wanted) = (app.clone(), identities.to_vec(), reference.clone());
        let host = vault.clone();
        let look = move |connection: &rusqlite::Connection| {
            let Some(vault) = records::named(connection, types::VAULT, &host)? else {
                return Ok::<_, ArmError>(Err(format!("there is no vault `{host}`")));
            };
            container_apps::may_read(connection, &app, &identities, &wanted, &vault)
        };
        self.database.read(look).await?.map_err(|why| reference.unreadable(&why))?;
        let vaults = self.vaults.lock().expect("nobody panics while holding the vaults").upgrade();
        let Some(vaults) = vaults else { return Err(reference.unreadable("the vault does not answer")) };
        let revealed = vaults.reveal(&vault, &name, version.as_deref()).await;
        let (value, version) = revealed.map_err(|why| reference.unreadable(&why))?;
        Ok(SecretValue { value, version: Some(version) })
    }

    /// The vault's name in lower case, the secret's name and its version, of a reference's address.
    fn place_of(&self, address: &str) -> Option<(String, String, Option<String>)> {
        let address = Url::parse(address).ok().filter(|address| address.scheme() == "https")?;
        let domain = self.naming.vault_domain.split(':').next()?;
        let vault = address.host_str()?.strip_suffix(domain)?.strip_suffix('.')?.to_ascii_lowercase();
        let mut path = address.path_segments()?;
        if path.next() != Some("secrets") {
            return None;
        }
        let name = path.next().filter(|name| !name.is_empty())?.to_owned();
        let version = path.next().filter(|version| !version.is_empty()).map(str::to_owned);
        path.next().is_none().then_some((vault, name, version))
    }
}
