//! The resource types that the stand-in knows, and how Azure behaves for each: which API versions
//! it takes, whether a write ends at once, and what only the server may write.
//!
//! A type that is not listed is refused as an unregistered one is.

/// How a PUT ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// 201 or 200, done.
    Immediate,
    /// 201 or 200 with `Azure-AsyncOperation`.
    AsyncOperation,
    /// 201 or 200; the caller reads the resource until its `provisioningState` is final.
    ProvisioningState,
    /// Not written by callers.
    ReadOnly,
}

/// How a DELETE ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// 200, or 204 where there was nothing.
    Immediate,
    /// 202 with `Location`.
    Location,
}

/// One resource type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypeSpec {
    /// As Azure spells it.
    pub name: &'static str,
    pub versions: &'static [&'static str],
    pub write: Write,
    pub removal: Removal,
    /// How long a write takes at pace 1, in milliseconds.
    pub write_ms: u32,
    /// Whether it has a `location`.
    pub located: bool,
    /// Members of `properties` that callers cannot write.
    pub read_only: &'static [&'static str],
}

/// How long a removal takes at pace 1, in milliseconds.
pub(super) const REMOVAL_MS: u32 = 500;

pub(super) const GROUP: &str = "Microsoft.Resources/resourceGroups";
pub(super) const ENVIRONMENT: &str = "Microsoft.App/managedEnvironments";
pub(super) const APP: &str = "Microsoft.App/containerApps";
pub(super) const REVISION: &str = "Microsoft.App/containerApps/revisions";
pub(super) const REPLICA: &str = "Microsoft.App/containerApps/revisions/replicas";
pub(super) const VAULT: &str = "Microsoft.KeyVault/vaults";
pub(super) const IDENTITY: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";
pub(super) const WORKSPACE: &str = "Microsoft.OperationalInsights/workspaces";
pub(super) const NETWORK: &str = "Microsoft.Network/virtualNetworks";
pub(super) const SUBNET: &str = "Microsoft.Network/virtualNetworks/subnets";
pub(super) const ROLE_ASSIGNMENT: &str = "Microsoft.Authorization/roleAssignments";
pub(super) const DIAGNOSTIC_SETTING: &str = "Microsoft.Insights/diagnosticSettings";
/// Queues are not made here: those of this machine's Service Bus are shown, under any namespace.
pub(super) const QUEUE: &str = "Microsoft.ServiceBus/namespaces/queues";
pub(super) const REGISTRY: &str = "Microsoft.ContainerRegistry/registries";

const APP_VERSIONS: &[&str] =
    &["2024-03-01", "2025-01-01", "2025-02-02-preview", "2025-07-01", "2026-01-01", "2026-07-01"];

const QUEUE_VERSIONS: &[&str] = &["2021-11-01", "2022-10-01-preview", "2024-01-01"];

/// Every type, in Azure's spelling.
pub(super) const TYPES: &[TypeSpec] = &[
    TypeSpec {
        name: GROUP,
        versions: &["2021-04-01", "2022-09-01", "2024-03-01", "2025-04-01"],
        write: Write::Immediate,
        removal: Removal::Location,
        write_ms: 0,
        located: true,
        read_only: &[],
    },
    TypeSpec {
        name: WORKSPACE,
        versions: &["2022-10-01", "2023-09-01", "2025-02-01"],
        write: Write::ProvisioningState,
        removal: Removal::Immediate,
        write_ms: 600,
        located: true,
        read_only: &["customerId", "createdDate", "modifiedDate"],
    },
    TypeSpec {
        name: NETWORK,
        versions: &["2023-11-01", "2024-05-01", "2025-01-01"],
        write: Write::AsyncOperation,
        removal: Removal::Location,
        write_ms: 400,
        located: true,
        read_only: &["resourceGuid"],
    },
    TypeSpec {
        name: SUBNET,
        versions: &["2023-11-01", "2024-05-01", "2025-01-01"],
        write: Write::AsyncOperation,
        removal: Removal::Location,
        write_ms: 300,
        located: false,
        read_only: &[],
    },
    TypeSpec {
        name: IDENTITY,
        versions: &["2023-01-31", "2024-11-30"],
        write: Write::Immediate,
        removal: Removal::Immediate,
        write_ms: 0,
        located: true,
        read_only: &["principalId", "clientId", "tenantId"],
    },
    TypeSpec {
        name: "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
        versions: &["2023-01-31", "2024-11-30"],
        write: Write::Immediate,
        removal: Removal::Immediate,
        write_ms: 0,
        located: false,
        read_only: &[],
    },
    TypeSpec {
        name: VAULT,
        versions: &["2023-07-01", "2024-11-01", "2025-05-01"],
        write: Write::ProvisioningState,
        removal: Removal::Immediate,
        write_ms: 800,
        located: true,
        read_only: &["vaultUri", "hsmPoolResourceId"],
    },
    TypeSpec {
        name: ROLE_ASSIGNMENT,
        versions: &["2022-04-01"],
        write: Write::Immediate,
        removal: Removal::Immediate,
        write_ms: 0,
        located: false,
        read_only: &["scope", "createdOn", "updatedOn", "createdBy", "updatedBy"],
    },
    TypeSpec {
        name: "Microsoft.Authorization/locks",
        versions: &["2016-09-01", "2020-05-01"],
        write: Write::Immediate,
        removal: Removal::Immediate,
        write_ms: 0,
        located: false,
        read_only: &[],
    },
    TypeSpec {
        name: DIAGNOSTIC_SETTING,
        versions: &["2021-05-01-preview"],
        write: Write::Immediate,
        removal: Removal::Immediate,
        write_ms: 0,
        located: false,
        read_only: &[],
    },
    TypeSpec {
        name: "Microsoft.Insights/components",
        versions: &["2020-02-02"],
        write: Write::Immediate,
        removal: Removal::Immediate,
        write_ms: 0,
        located: true,
        read_only: &["AppId", "InstrumentationKey", "ConnectionString"],
    },
    TypeSpec {
        name: REGISTRY,
        versions: &["2023-01-01-preview", "2023-07-01", "2025-04-01"],
        write: Write::AsyncOperation,
        removal: Removal::Location,
        write_ms: 700,
        located: true,
        read_only: &["loginServer", "creationDate"],
    },
    TypeSpec {
        name: ENVIRONMENT,
        versions: APP_VERSIONS,
        write: Write::AsyncOperation,
        removal: Removal::Location,
        write_ms: 1500,
        located: true,
        read_only: &["defaultDomain", "staticIp", "eventStreamEndpoint", "deploymentErrors"],
    },
    TypeSpec {
        name: APP,
        versions: APP_VERSIONS,
        write: Write::AsyncOperation,
        removal: Removal::Location,
        write_ms: 700,
        located: true,
        read_only: &[
            "runningStatus",
            "latestRevisionName",
            "latestReadyRevisionName",
            "latestRevisionFqdn",
            "customDomainVerificationId",
            "outboundIpAddresses",
            "eventStreamEndpoint",
        ],
    },
    TypeSpec {
        name: "Microsoft.ServiceBus/namespaces",
        versions: QUEUE_VERSIONS,
        write: Write::ReadOnly,
        removal: Removal::Immediate,
        write_ms: 0,
        located: true,
        read_only: &[],
    },
    TypeSpec {
        name: QUEUE,
        versions: QUEUE_VERSIONS,
        write: Write::ReadOnly,
        removal: Removal::Immediate,
        write_ms: 0,
        located: false,
        read_only: &[],
    },
    TypeSpec {
        name: REVISION,
        versions: APP_VERSIONS,
        write: Write::ReadOnly,
        removal: Removal::Immediate,
        write_ms: 0,
        located: false,
        read_only: &[],
    },
    TypeSpec {
        name: REPLICA,
        versions: APP_VERSIONS,
        write: Write::ReadOnly,
        removal: Removal::Immediate,
        write_ms: 0,
        located: false,
        read_only: &[],
    },
];

/// The type of this name, whatever its case.
pub(super) fn find(name: &str) -> Option<&'static TypeSpec> {
    TYPES.iter().find(|spec| spec.name.eq_ignore_ascii_case(name))
}

impl TypeSpec {
    /// `Microsoft.App` of `Microsoft.App/containerApps`.
    pub(super) fn namespace(&self) -> &'static str {
        self.name.split('/').next().unwrap_or_default()
    }
}
