//! What an environment renders to.

use std::collections::BTreeSet;

use super::*;

const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";
const DIRECTORY: &str = "99999999-8888-7777-6666-555555555555";

fn spec(tenant: &str, name: &str) -> EnvironmentSpec {
    let (tenant, project): (TenantId, ProjectId) = (tenant.parse().unwrap(), "proj".parse().unwrap());
    EnvironmentSpec {
        environment_id: EnvironmentId::derived(&tenant, &project, name, 0),
        tenant,
        project,
        name: name.to_owned(),
        stage: Stage::Dev,
        region: "West Europe".to_owned(),
        isolation_model: IsolationModel::Silo,
        compute_targets: vec![TargetKind::ContainerApps],
        parts: Vec::new(),
    }
}

fn rendered() -> Vec<Resource> {
    resources(&spec("connectsoft", "booking-dev"), SUBSCRIPTION, DIRECTORY)
}

fn named(key: &str) -> Resource {
    rendered().into_iter().find(|resource| resource.key == key).unwrap()
}

fn last(id: &str) -> &str {
    id.rsplit('/').next().unwrap()
}

#[test]
fn every_resource_comes_after_those_that_it_depends_on() {
    let mut seen = BTreeSet::new();
    for resource in rendered() {
        assert!(resource.depends_on.iter().all(|key| seen.contains(key)), "{}", resource.key);
        assert!(seen.insert(resource.key.clone()), "{} is there twice", resource.key);
    }
    let keys: Vec<_> = rendered().into_iter().map(|resource| resource.key).collect();
    assert_eq!(
        keys,
        [
            "group",
            "workspace",
            "network",
            "identity",
            "vault",
            "vault-secrets-user",
            "registry-pull",
            "subnet",
            "container-apps",
            "container-apps-logs",
        ]
    );
}

#[test]
fn every_resource_has_an_api_version_and_an_id_under_the_environments_group() {
    let group = named("group").id;
    for resource in rendered() {
        let (date, rest) = resource.api_version.split_at(10);
        assert!(date.parse::<jiff::civil::Date>().is_ok(), "{}", resource.api_version);
        assert!(rest.is_empty() || rest == "-preview", "{}", resource.api_version);
        assert!(resource.id.starts_with(&group), "{}", resource.id);
    }
}

#[test]
fn what_can_carry_tags_says_whose_it_is() {
    for resource in rendered().iter().filter(|resource| resource.body.get("location").is_some()) {
        assert_eq!(resource.body["location"], "westeurope");
        assert_eq!(
            resource.body["tags"],
            json!({
                "cs-environment-id": spec("connectsoft", "booking-dev").environment_id,
                "cs-isolation": "silo",
                "cs-managed-by": "runtime-platform",
                "cs-tenant-id": "connectsoft",
            })
        );
    }
}

#[test]
fn names_stay_within_azures_limits_whatever_the_ids_are() {
    let long = "x".repeat(128);
    for (tenant, name) in [("a", "b"), ("Tenant / 1", "_ _"), (&long, &long)] {
        let list = resources(&spec(tenant, name), SUBSCRIPTION, DIRECTORY);
        let name_of = |key: &str| {
            let resource = list.iter().find(|resource| resource.key == key).unwrap();
            last(&resource.id).to_owned()
        };
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        for (key, longest) in [
            ("group", 90),
            ("workspace", 63),
            ("network", 64),
            ("identity", 128),
            ("vault", 24),
            ("container-apps", 32),
        ] {
            let name = name_of(key);
            assert!(plain(&name) && name.len() <= longest && !name.contains("--"), "{key}: {name}");
            assert!(name.len() >= 4 && !name.ends_with('-'), "{key}: {name}");
        }
    }
}

#[test]
fn two_environments_share_no_name_even_where_their_ids_are_alike() {
    let one = spec("a", "dev");
    let other = EnvironmentSpec { tenant: "b".parse().unwrap(), ..one.clone() };
    let ids = |spec| resources(spec, SUBSCRIPTION, DIRECTORY).into_iter().map(|resource| resource.id);
    let (one, other): (BTreeSet<_>, BTreeSet<_>) = (ids(&one).collect(), ids(&other).collect());
    assert!(one.is_disjoint(&other));
    let vaults = |ids: BTreeSet<String>| {
        ids.into_iter().filter(|id| id.contains("/vaults/kv-")).map(|id| last(&id).to_owned()).min()
    };
    assert_ne!(vaults(one), vaults(other));
}

#[test]
fn the_vault_cannot_be_purged_and_knows_roles_only() {
    assert_eq!(
        named("vault").body["properties"],
        json!({
            "tenantId": DIRECTORY,
            "sku": { "family": "A", "name": "standard" },
            "enableRbacAuthorization": true,
            "enableSoftDelete": true,
            "softDeleteRetentionInDays": 90,
            "enablePurgeProtection": true,
        })
    );
}

#[test]
fn a_role_assignment_is_named_by_scope_role_and_identity() {
    let (vault, group) = (named("vault-secrets-user"), named("registry-pull"));
    assert_ne!(last(&vault.id), last(&group.id));
    assert!(uuid::Uuid::try_parse(last(&vault.id)).is_ok());
    assert!(vault.id.starts_with(&named("vault").id));
    assert_eq!(vault.depends_on, ["vault", "identity"]);
    assert_eq!(vault.body["properties"]["principalId"], "${identity.properties.principalId}");
    assert_eq!(named("vault-secrets-user"), vault);
}

#[test]
fn no_resource_asks_for_a_key() {
    for resource in rendered() {
        assert!(!resource.body.to_string().to_ascii_lowercase().contains("sharedkey"), "{}", resource.key);
    }
}

#[test]
fn without_container_apps_there_is_nothing_of_it() {
    let spec = EnvironmentSpec { compute_targets: vec![TargetKind::Aks], ..spec("a", "dev") };
    assert!(
        resources(&spec, SUBSCRIPTION, DIRECTORY)
            .iter()
            .all(|resource| !resource.id.contains("Microsoft.App/"))
    );
}

#[test]
fn workloads_find_what_was_provisioned() {
    let target = compute_target(&spec("connectsoft", "booking-dev"), TargetKind::ContainerApps, SUBSCRIPTION);
    assert_eq!(
        (target.target.as_str(), &target.resource_group_id, &target.host_id, &target.identity_id),
        ("container-apps", &named("group").id, &named("container-apps").id, &named("identity").id)
    );
    assert_eq!(target.region, "westeurope");
    assert_eq!(target.tags["cs-tenant-id"], "connectsoft");
}

#[test]
fn dedicated_is_another_word_for_silo() {
    let read = |text: &str| serde_json::from_str::<IsolationModel>(text);
    assert_eq!(read("\"dedicated\"").unwrap(), IsolationModel::Silo);
    assert_eq!(serde_json::to_string(&IsolationModel::Silo).unwrap(), "\"silo\"");
    assert!(read("\"Silo\"").is_err());
    assert_eq!(serde_json::to_string(&TargetKind::AppService).unwrap(), "\"app-service\"");
}

#[test]
fn a_part_is_a_tenants_own_and_changes_nothing_of_anothers() {
    let part = |tenant: &str, prefix: &str| TenantPart {
        tenant_id: tenant.parse().unwrap(),
        prefix: prefix.to_owned(),
        stands: false,
    };
    let with = |parts: Vec<TenantPart>| {
        let spec = EnvironmentSpec { parts, ..spec("connectsoft", "booking-dev") };
        (resources(&spec, SUBSCRIPTION, DIRECTORY), spec)
    };
    let (acme, zenith) = (part("acme", "t00000001"), part("zenith", "t00000002"));
    let (one, spec) = with(vec![acme.clone()]);
    let (two, _) = with(vec![acme, zenith]);
    let differ: Vec<_> =
        one.iter().filter(|resource| !two.contains(resource)).map(|resource| resource.key.as_str()).collect();
    assert_eq!(differ, ["container-apps"], "only the list of workload profiles grows");
    let ids: BTreeSet<_> = two.iter().map(|resource| resource.id.to_ascii_lowercase()).collect();
    assert_eq!(ids.len(), two.len(), "no two resources have one id");
    let found = |key: &str| two.iter().find(|resource| resource.key == key).unwrap();
    let vault = found("t00000002-vault");
    assert_eq!(vault.body["tags"]["cs-tenant-id"], "zenith");
    let role = found("t00000002-vault-secrets-user");
    assert!(role.id.starts_with(&vault.id), "{}", role.id);
    assert_eq!(role.body["properties"]["principalId"], "${t00000002-identity.properties.principalId}");
    let target = part_target(&spec, "t00000001", TargetKind::ContainerApps, SUBSCRIPTION);
    let identity = one.iter().find(|resource| resource.key == "t00000001-identity").unwrap();
    assert_eq!(
        (target.identity_id, target.workload_profile),
        (identity.id.clone(), Some("t00000001".into()))
    );
    assert_eq!(last(&found("t00000001-vault").id), part_vault(&spec, "t00000001", SUBSCRIPTION));
}
