//! Route templates of HTTP functions: `v1/things/{id:int?}`, `files/{*path}`.
//!
//! What ASP.NET offers beyond that (defaults, texts and parameters in one segment, ranges, regular
//! expressions) is refused when it is read.

use uuid::Uuid;

/// Segments that a route may have.
const SEGMENTS_MAX: usize = 32;

/// What a parameter's text must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Int,
    Long,
    Guid,
    Bool,
    Alpha,
}

const KINDS: &[(&str, Kind)] = &[
    ("int", Kind::Int),
    ("long", Kind::Long),
    ("guid", Kind::Guid),
    ("bool", Kind::Bool),
    ("alpha", Kind::Alpha),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter {
        name: String,
        kind: Kind,
        optional: bool,
    },
    /// The rest of the path, slashes included.
    Rest {
        name: String,
    },
}

/// A route template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route(Vec<Segment>);

impl Route {
    /// # Errors
    /// What is wrong with the template.
    pub fn parse(text: &str) -> Result<Self, String> {
        let texts: Vec<&str> = text.trim_matches('/').split('/').filter(|text| !text.is_empty()).collect();
        if texts.len() > SEGMENTS_MAX {
            return Err(format!("`{text}` has {} segments, {SEGMENTS_MAX} are the most", texts.len()));
        }
        let segments = texts.iter().map(|segment| parse_segment(segment)).collect::<Result<Vec<_>, _>>()?;
        for (index, segment) in segments.iter().enumerate() {
            let is_last = index + 1 == segments.len();
            match segment {
                Segment::Parameter { name, optional: true, .. } | Segment::Rest { name } if !is_last => {
                    return Err(format!(
                        "`{name}` may be missing, so it must be the last segment of `{text}`"
                    ));
                }
                Segment::Literal(_) | Segment::Parameter { .. } | Segment::Rest { .. } => {}
            }
            let name = segment.name();
            if name.is_some() && segments[..index].iter().any(|earlier| earlier.name() == name) {
                return Err(format!("`{}` is twice in `{text}`", name.unwrap_or_default()));
            }
        }
        Ok(Self(segments))
    }

    /// The parameters, where the path (decoded segments) is one of this route's.
    pub fn matches(&self, path: &[String]) -> Option<Vec<(String, String)>> {
        let mut parameters = Vec::new();
        let mut rest = path;
        for segment in &self.0 {
            let Some((first, after)) = rest.split_first() else {
                match segment {
                    Segment::Parameter { optional: true, .. } | Segment::Rest { .. } => continue,
                    Segment::Parameter { .. } | Segment::Literal(_) => return None,
                }
            };
            match segment {
                Segment::Literal(text) if !text.eq_ignore_ascii_case(first) => return None,
                Segment::Literal(_) => {}
                Segment::Parameter { kind, .. } if !kind.takes(first) => return None,
                Segment::Parameter { name, .. } => parameters.push((name.clone(), first.clone())),
                Segment::Rest { name } => {
                    parameters.push((name.clone(), rest.join("/")));
                    rest = &[];
                    continue;
                }
            }
            rest = after;
        }
        rest.is_empty().then_some(parameters)
    }

    /// Where two routes match one path, the one that sorts first is meant: texts before parameters
    /// of a kind, before any parameter, before the rest.
    pub fn rank(&self) -> Vec<u8> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 1,
            Segment::Parameter { kind: Kind::Any, .. } => 3,
            Segment::Parameter { .. } => 2,
            Segment::Rest { .. } => 4,
        };
        self.0.iter().map(rank).collect()
    }

    /// Whether no path could tell the two apart.
    pub fn same_shape(&self, other: &Self) -> bool {
        let same = |pair: (&Segment, &Segment)| match pair {
            (Segment::Literal(one), Segment::Literal(other)) => one.eq_ignore_ascii_case(other),
            (Segment::Parameter { kind: one, .. }, Segment::Parameter { kind: other, .. }) => one == other,
            (Segment::Rest { .. }, Segment::Rest { .. }) => true,
            (Segment::Literal(_) | Segment::Parameter { .. } | Segment::Rest { .. }, _) => false,
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter { name, .. } | Self::Rest { name } => Some(name),
        }
    }
}

impl Kind {
    fn takes(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Int => text.parse::<i32>().is_ok(),
            Self::Long => text.parse::<i64>().is_ok(),
            Self::Guid => Uuid::try_parse(text).is_ok(),
            Self::Bool => text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"),
            Self::Alpha => text.chars().all(|character| character.is_ascii_alphabetic()),
        }
    }
}

fn parse_segment(text: &str) -> Result<Segment, String> {
    if !text.contains(['{', '}']) {
        return Ok(Segment::Literal(text.to_owned()));
    }
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let Some(inside) = inside.filter(|inside| !inside.contains(['{', '}'])) else {
        return Err(format!(
            "`{text}` is not supported: a segment is a text or one parameter, such as `{{id}}`"
        ));
    };
    if let Some(name) = inside.strip_prefix('*') {
        return Ok(Segment::Rest { name: parameter_name(name.trim_start_matches('*'), text)? });
    }
    let (inside, optional) = match inside.strip_suffix('?') {
        Some(inside) => (inside, true),
        None => (inside, false),
    };
    let (name, kind) = match inside.split_once(':') {
        None => (inside, Kind::Any),
        Some((name, kind)) => {
            let known = KINDS.iter().find(|(word, _)| *word == kind).map(|(_, kind)| *kind);
            let words: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
            (
                name,
                known.ok_or_else(|| {
                    format!("`{kind}` in `{text}` is not supported: use {}", words.join(", "))
                })?,
            )
        }
    };
    Ok(Segment::Parameter { name: parameter_name(name, text)?, kind, optional })
}

fn parameter_name(name: &str, segment: &str) -> Result<String, String> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name
        .then(|| name.to_owned())
        .ok_or_else(|| format!("`{segment}` has no name made of letters, digits and `_`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(route: &str, path: &str) -> Option<Vec<(String, String)>> {
        let path: Vec<String> = path.split('/').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        Route::parse(route).unwrap().matches(&path)
    }

    fn pairs(of: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_path_is_matched_segment_by_segment() {
        let cases = [
            ("v1/things", "V1/Things", pairs(&[])),
            ("v1/things", "v1", None),
            ("v1/things", "v1/things/a", None),
            ("v1/things/{id}", "v1/things/a b", pairs(&[("id", "a b")])),
            ("v1/things/{id}", "v1/things", None),
            ("v1/things/{id?}", "v1/things", pairs(&[])),
            ("v1/things/{id?}", "v1/things/7", pairs(&[("id", "7")])),
            ("things/{id:int}", "things/7", pairs(&[("id", "7")])),
            ("things/{id:int}", "things/x", None),
            ("things/{id:int?}", "things", pairs(&[])),
            (
                "{tenant:alpha}/x/{id:guid}",
                "abc/x/0c0ff33f-0000-4000-8000-000000000000",
                pairs(&[("tenant", "abc"), ("id", "0c0ff33f-0000-4000-8000-000000000000")]),
            ),
            ("files/{*path}", "files/a/b", pairs(&[("path", "a/b")])),
            ("files/{*path}", "files", pairs(&[])),
            ("", "", pairs(&[])),
        ];
        for (route, path, expected) in cases {
            assert_eq!(matched(route, path), expected, "{route} {path}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let said = |route: &str| Route::parse(route).unwrap_err();
        assert_eq!(
            said("a/{id:range(1,2)}"),
            "`range(1,2)` in `{id:range(1,2)}` is not supported: use int, long, guid, bool, alpha"
        );
        assert_eq!(
            said("a-{id}"),
            "`a-{id}` is not supported: a segment is a text or one parameter, such as `{id}`"
        );
        assert_eq!(said("{id?}/a"), "`id` may be missing, so it must be the last segment of `{id?}/a`");
        assert_eq!(said("{a}/{a}"), "`a` is twice in `{a}/{a}`");
        assert_eq!(said("{}"), "`{}` has no name made of letters, digits and `_`");
    }

    #[test]
    fn texts_come_before_parameters() {
        let mut routes =
            ["{*rest}", "{a}", "{a:int}", "x"].map(|text| (Route::parse(text).unwrap().rank(), text));
        routes.sort();
        assert_eq!(routes.map(|(_, text)| text), ["x", "{a:int}", "{a}", "{*rest}"]);
        let same =
            |one: &str, other: &str| Route::parse(one).unwrap().same_shape(&Route::parse(other).unwrap());
        assert!(same("a/{x}", "A/{y?}"));
        assert!(!same("a/{x}", "a/{y:int}"));
    }
}
