//! Documents by key, and one atomic batch per partition.
//!
//! The port has what Cosmos DB can do and no more, so that an adapter for it needs no change above:
//! point reads, a batch on one partition, paged queries, a time to live. What it promises:
//!
//! - a commit happens wholly or not at all, and is durable when it is acknowledged;
//! - a write guarded by an etag happens only if the document still has it;
//! - a lost response is read back by the adapter, never reported as somebody else's write;
//! - a document whose time to live has passed is not found, and goes in time.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ids::TenantId, outcome::Source};

/// The most writes in one commit; Cosmos DB's limit.
pub const COMMIT_WRITES_MAX: usize = 100;
/// The most bytes in one commit, all documents together; Cosmos DB's limit is 2 MB.
pub const COMMIT_BYTES_MAX: usize = 2_000_000;
/// The most documents of one page.
pub const PAGE_ITEMS_MAX: usize = 100;
/// Members of bodies that a store keeps an index of, beside all whose name ends in `Id`.
pub const INDEXED: [&str; 6] = ["status", "kind", "reason", "function", "eventType", "severity"];

/// Whether a filter by this member of a body costs what it finds, and not what there is.
pub fn is_indexed(member: &str) -> bool {
    member.ends_with("Id") || INDEXED.contains(&member)
}

/// The hierarchical partition key: everything of one environment is written together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    pub tenant_id: String,
    pub environment_id: String,
}

impl Partition {
    /// The partition of an environment.
    pub fn environment(tenant: &TenantId, environment_id: &str) -> Self {
        Self { tenant_id: tenant.to_string(), environment_id: environment_id.to_owned() }
    }

    /// What has a tenant and no environment.
    pub fn tenant(tenant: &TenantId) -> Self {
        Self { tenant_id: tenant.to_string(), environment_id: "_".to_owned() }
    }

    /// What is the platform's own.
    pub fn platform(part: &str) -> Self {
        Self { tenant_id: "_platform".to_owned(), environment_id: part.to_owned() }
    }
}

/// The address of a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub partition: Partition,
    pub id: String,
}

/// A version of a document, opaque, passed back verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(pub String);

/// What is stored. `body` is the state; the rest is what queries and the store itself look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Unique in its partition.
    pub id: String,
    /// What it is: `environment`, `operation`, `outbox`, ...
    pub kind: String,
    /// The version of the body's form, for upcasters.
    pub v: u32,
    /// When it was made. Listings are in order of (at, id).
    pub at: Timestamp,
    /// When it wants to be looked at; what [`Store::due`] asks for.
    pub due: Option<Timestamp>,
    /// Seconds after its last write at which it may go; none for ever.
    pub ttl_seconds: Option<u32>,
    /// A JSON object.
    pub body: Value,
}

/// A document as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub partition: Partition,
    pub document: Document,
    pub etag: Etag,
}

/// One write of a commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Conflicts where the id is taken.
    Create(Document),
    /// Conflicts where the document is gone or has another etag.
    Replace(Document, Etag),
    /// Writes whatever is there.
    Upsert(Document),
    /// Deletes; nothing there is fine. With an etag, conflicts where the document has another one.
    Delete(String, Option<Etag>),
}

impl Write {
    pub fn id(&self) -> &str {
        match self {
            Self::Create(document) | Self::Replace(document, _) | Self::Upsert(document) => &document.id,
            Self::Delete(id, _) => id,
        }
    }
}

/// Which documents of a kind a listing is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Top-level members of the body, by name (camelCase), that must equal a text. The first that
    /// [`is_indexed`] leads the search, so what few documents have comes first.
    pub equal: Vec<(String, String)>,
    /// Only documents made at this time or later.
    pub since: Option<Timestamp>,
    /// Newest first.
    pub newest_first: bool,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// At most [`PAGE_ITEMS_MAX`].
    pub size: usize,
    /// Where the last page ended, as it said.
    pub after: Option<String>,
}

impl Page {
    pub fn first(size: usize) -> Self {
        Self { size: size.min(PAGE_ITEMS_MAX), after: None }
    }
}

/// A page of a listing; `next` is none on the last page.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    pub items: Vec<Stored>,
    pub next: Option<String>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The named document was taken, gone, or has another etag. Nothing was written.
    #[error("document `{0}` was written by somebody else")]
    Conflict(String),
    /// More than one commit may carry. Nothing was written.
    #[error(
        "a commit of {writes} documents and {bytes} bytes is over the limit of {COMMIT_WRITES_MAX} documents and {COMMIT_BYTES_MAX} bytes"
    )]
    TooLarge { writes: usize, bytes: usize },
    /// The store cannot be reached, or has no room. Whether it wrote is known: it did not.
    #[error("the store is not available while {doing}")]
    Unavailable { doing: String, source: Source },
    /// The page was to begin at a place that this store did not give.
    #[error("the mark of where the last page ended is not one that this store gave, while {doing}")]
    ForeignMark { doing: String },
    /// What is stored cannot be read.
    #[error("a stored document cannot be read while {doing}")]
    Corrupt { doing: String, source: Source },
}

#[async_trait]
pub trait Store: Send + Sync {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreFault>;

    /// Writes all or nothing, in order, and answers the new etags in the same order (a deleted
    /// document's is empty).
    async fn commit(&self, partition: &Partition, writes: Vec<Write>) -> Result<Vec<Etag>, StoreFault>;

    /// Documents of one kind in one partition.
    async fn query(
        &self,
        partition: &Partition,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault>;

    /// Documents of one kind, wherever they are, that are due at `until` or before, in order of
    /// (due, id). One that cannot be read is left out and told in the log: it must not keep the others,
    /// which are anybody's, from being looked at.
    async fn due(&self, kind: &str, until: Timestamp, page: &Page) -> Result<Listing, StoreFault>;

    /// Documents of one kind in all partitions of a tenant.
    async fn list(
        &self,
        tenant: &str,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault>;
}
