//! What is ours of a document, and what counts as the same: a tree of nodes, one for each member that
//! differs from the plain case (owned, compared as it is written).
//!
//! Only paths that the desired document mentions are owned. A node that is `exclusive` owns its whole
//! content: what is there beside what is desired is drift too, even where nothing is desired.

use serde_json::Value;

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are written; numbers by their value.
    Exact,
    /// Texts in any case: ids of Azure, words of its vocabularies.
    AnyCase,
    /// Regions: in any case, with or without spaces.
    Location,
    /// Amounts: `500m` is `0.5`, `1Gi` is `1024Mi`.
    Quantity,
    /// `"true"` is `true`.
    Boolean,
    /// Lists of texts in any order and case.
    Set,
    /// Lists of objects in any order, which belong together by this member.
    Keyed(&'static str),
}

/// Whose a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Ours,
    /// Somebody else's: an autoscaler's count, a state, a time. Never compared.
    Foreign,
}

/// What a server sets where nothing is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServerDefault {
    None,
    Flag(bool),
    Number(f64),
    Text(&'static str),
}

impl ServerDefault {
    pub fn value(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Flag(flag) => Value::Bool(flag),
            Self::Number(number) => Value::from(number),
            Self::Text(text) => Value::from(text),
        }
    }
}

/// What is known of one member.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub form: Form,
    pub owner: Owner,
    pub exclusive: bool,
    /// Told by its digest: it may be something to keep.
    pub digest: bool,
    pub default: ServerDefault,
    pub members: &'static [(&'static str, Node)],
    /// What is known of members, or keyed items, that are not named.
    pub others: Option<&'static Node>,
}

/// A member that is ours and is compared as it is written.
pub const PLAIN: Node = Node {
    form: Form::Exact,
    owner: Owner::Ours,
    exclusive: false,
    digest: false,
    default: ServerDefault::None,
    members: &[],
    others: None,
};
const FOREIGN: Node = Node { owner: Owner::Foreign, ..PLAIN };
const ANY_CASE: Node = Node { form: Form::AnyCase, ..PLAIN };
const QUANTITY: Node = Node { form: Form::Quantity, ..PLAIN };
const DIGEST: Node = Node { digest: true, ..PLAIN };
const OFF: Node = Node { form: Form::Boolean, default: ServerDefault::Flag(false), ..PLAIN };

/// A workload as [`super::workload`] writes it down.
pub const WORKLOAD: Node = Node {
    members: &[
        ("image", PLAIN),
        // Values of variables may be anybody's business: findings tell their digests.
        ("env", Node { exclusive: true, others: Some(&DIGEST), ..PLAIN }),
        ("secrets", Node { exclusive: true, others: Some(&ANY_CASE), ..PLAIN }),
        ("configuration", Node { exclusive: true, ..PLAIN }),
        ("cpu", QUANTITY),
        ("memory", QUANTITY),
        ("minReplicas", Node { default: ServerDefault::Number(0.0), ..PLAIN }),
        ("maxReplicas", Node { default: ServerDefault::Number(10.0), ..PLAIN }),
        ("rules", Node { form: Form::Keyed("name"), exclusive: true, ..PLAIN }),
        // As many as the autoscaler, or the platform's restart of one, made it.
        ("replicas", FOREIGN),
        ("traffic", Node { form: Form::Keyed("revisionName"), exclusive: true, ..PLAIN }),
        ("ingress", Node { members: &[("allowInsecure", OFF), ("external", OFF), ("port", PLAIN)], ..PLAIN }),
        ("tags", PLAIN),
        ("identities", PLAIN),
    ],
    ..PLAIN
};

/// A resource of Azure in general, as Resource Manager writes it.
pub const RESOURCE: Node = Node {
    members: &[
        ("id", ANY_CASE),
        ("location", Node { form: Form::Location, ..PLAIN }),
        ("etag", FOREIGN),
        ("systemData", FOREIGN),
        (
            "properties",
            Node {
                members: &[
                    ("provisioningState", FOREIGN),
                    ("containers", Node { form: Form::Keyed("name"), exclusive: true, ..PLAIN }),
                    ("allowInsecure", OFF),
                    ("external", OFF),
                    ("identityId", ANY_CASE),
                    ("cpu", QUANTITY),
                    ("memory", QUANTITY),
                    ("zones", Node { form: Form::Set, ..PLAIN }),
                ],
                ..PLAIN
            },
        ),
    ],
    ..PLAIN
};

impl Node {
    /// What is known of a member.
    pub fn member(&self, name: &str) -> &Node {
        let named = self.members.iter().find(|(known, _)| *known == name).map(|(_, node)| node);
        named.or(self.others).unwrap_or(const { &PLAIN })
    }
}
