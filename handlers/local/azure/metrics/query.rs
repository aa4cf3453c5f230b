//! What a request asks of the metrics: which, of which time, in which steps, split and filtered how.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::{Aggregation, Metric};
use crate::local::azure::refusals::ArmError;

/// The namespace of the metrics, in Azure's spelling.
pub(super) const NAMESPACE: &str = "Microsoft.App/containerApps";
/// The steps of time that there are, in minutes.
const INTERVALS: [(&str, i64); 5] = [("PT1M", 1), ("PT5M", 5), ("PT15M", 15), ("PT30M", 30), ("PT1H", 60)];
/// The most steps of one answer: a day by the minute.
const STEPS_MAX: i64 = 24 * 60;
/// Series of one resource that are answered where nobody says how many.
const TOP: usize = 10;

/// The dimensions that a filter may name, in lower case.
pub(super) const RESOURCE: &str = "microsoft.resourceid";
pub(super) const REVISION: &str = "revisionname";

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// Minutes since 1970: the first, and the one after the last.
    pub from: i64,
    pub until: i64,
    /// As it was asked for, or made up.
    pub timespan: String,
    pub interval: (&'static str, i64),
    pub metrics: Vec<Metric>,
    pub aggregations: Vec<Aggregation>,
    /// Series of one resource.
    pub top: usize,
    pub filter: Filter,
}

/// Which values of a dimension are asked for; what is named is split by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter(Vec<(String, Vec<String>)>);

impl Filter {
    pub(super) fn splits(&self, dimension: &str) -> bool {
        self.0.iter().any(|(name, _)| name == dimension)
    }

    /// The values of a dimension that are asked for by name; none where all are.
    pub(super) fn names(&self, dimension: &str) -> Option<Vec<String>> {
        let (_, values) = self.0.iter().find(|(name, _)| name == dimension)?;
        (!values.iter().any(|value| value == "*")).then(|| values.clone())
    }

    pub(super) fn lets(&self, dimension: &str, value: &str) -> bool {
        let wanted = self.0.iter().find(|(name, _)| name == dimension);
        wanted.is_none_or(|(_, values)| {
            values.iter().any(|wanted| wanted == "*" || wanted.eq_ignore_ascii_case(value))
        })
    }
}

fn refused(message: impl Into<String>) -> ArmError {
    ArmError::bad_request("BadRequest", message)
}

impl Query {
    /// Reads the parameters of a request; their names are in lower case. `dimensions` are those that
    /// may be filtered by.
    pub(super) fn read(
        parameters: &HashMap<String, String>,
        dimensions: &[&str],
        now: Timestamp,
    ) -> Result<Self, ArmError> {
        let given = |name: &str| parameters.get(name).map(String::as_str).filter(|text| !text.is_empty());
        if let Some(namespace) = given("metricnamespace").filter(|name| !name.eq_ignore_ascii_case(NAMESPACE))
        {
            return Err(refused(format!(
                "There are no metrics of the namespace `{namespace}`: it is {NAMESPACE}."
            )));
        }
        let interval = match given("interval") {
            None => INTERVALS[0],
            Some(text) => {
                let known = INTERVALS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
                known.ok_or_else(|| {
                    let names = INTERVALS.map(|(name, _)| name).join(", ");
                    refused(format!("The interval `{text}` is not supported: the time grains are {names}."))
                })?
            }
        };
        let (start, end) = timespan(given("timespan"), now)?;
        let minute = |time: Timestamp| time.as_second().div_euclid(60);
        let from = minute(start).div_euclid(interval.1) * interval.1;
        let until = minute(end) + i64::from(end.as_second().rem_euclid(60) > 0);
        if until <= from {
            return Err(refused("The timespan ends before it begins."));
        }
        if (until - from) / interval.1 > STEPS_MAX {
            let message =
                format!("The timespan has more than {STEPS_MAX} steps of {}: ask for less.", interval.0);
            return Err(refused(message));
        }
        let metrics = metrics(given("metricnames"))?;
        let aggregations = match given("aggregation") {
            None => vec![metrics[0].aggregation()],
            Some(names) => names.split(',').map(|name| aggregation(name.trim())).collect::<Result<_, _>>()?,
        };
        let top = match given("top").or(given("$top")) {
            None => TOP,
            Some(text) => text
                .parse()
                .ok()
                .filter(|top| *top > 0)
                .ok_or_else(|| refused(format!("`top` takes a whole number above 0, it is `{text}`.")))?,
        };
        let filter = given("$filter").map(|text| filter(text, dimensions)).transpose()?.unwrap_or_default();
        let timespan = format!("{start}/{end}");
        Ok(Self { from, until, timespan, interval, metrics, aggregations, top, filter })
    }
}

fn timespan(given: Option<&str>, now: Timestamp) -> Result<(Timestamp, Timestamp), ArmError> {
    let wrong = |text: &str| {
        refused(format!(
            "The timespan `{text}` is neither `start/end`, both in ISO 8601, nor a duration, e.g. PT1H."
        ))
    };
    let Some(text) = given else { return Ok((now - SignedDuration::from_hours(1), now)) };
    match text.split_once('/') {
        Some((start, end)) => match (start.parse(), end.parse()) {
            (Ok(start), Ok(end)) => Ok((start, end)),
            _ => Err(wrong(text)),
        },
        None => {
            let duration: SignedDuration = text.parse().map_err(|_| wrong(text))?;
            Ok((now.checked_sub(duration).map_err(|_| wrong(text))?, now))
        }
    }
}

fn metrics(names: Option<&str>) -> Result<Vec<Metric>, ArmError> {
    let Some(names) = names else { return Ok(vec![Metric::ALL[0]]) };
    let known =
        |name: &str| Metric::ALL.into_iter().find(|metric| metric.words().0.eq_ignore_ascii_case(name));
    let found = |name: &str| {
        known(name).ok_or_else(|| {
            let valid = Metric::ALL.map(|metric| metric.words().0).join(",");
            refused(format!(
                "Failed to find metric configuration for provider: Microsoft.App, resource Type: containerApps, \
                 metric: {name}, Valid metrics: {valid}"
            ))
        })
    };
    names.split(',').map(|name| found(name.trim())).collect()
}

fn aggregation(name: &str) -> Result<Aggregation, ArmError> {
    match name.to_ascii_lowercase().as_str() {
        "average" => Ok(Aggregation::Average),
        "minimum" => Ok(Aggregation::Minimum),
        "maximum" => Ok(Aggregation::Maximum),
        "total" => Ok(Aggregation::Total),
        "count" => Ok(Aggregation::Count),
        _ => Err(refused(format!(
            "The aggregation `{name}` is not supported: it is Average, Minimum, Maximum, Total or Count."
        ))),
    }
}

/// Reads `Dimension eq 'value'`, joined by `and` and `or`. Values of one dimension are alternatives,
/// and all dimensions must fit; which is all that Azure Monitor takes, too.
fn filter(text: &str, dimensions: &[&str]) -> Result<Filter, ArmError> {
    let wrong =
        || refused(format!("The filter `{text}` cannot be read: it takes e.g. `revisionName eq '*'`."));
    let mut filter = Filter::default();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '(']);
        let (name, tail) = rest.split_once(' ').ok_or_else(wrong)?;
        let quoted = tail.trim_start().strip_prefix("eq").ok_or_else(wrong)?.trim_start();
        let (value, tail) =
            quoted.strip_prefix('\'').and_then(|text| text.split_once('\'')).ok_or_else(wrong)?;
        let name = name.to_ascii_lowercase();
        if !dimensions.contains(&name.as_str()) {
            let known = dimensions.join(", ");
            return Err(refused(format!("The metrics have no dimension `{name}` here: they have {known}.")));
        }
        match filter.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value.to_owned()),
            None => filter.0.push((name, vec![value.to_owned()])),
        }
        let tail = tail.trim_start_matches([' ', ')']);
        if tail.is_empty() {
            return Ok(filter);
        }
        let joined = ["and ", "or "]
            .into_iter()
            .find(|word| tail.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)));
        rest = &tail[joined.ok_or_else(wrong)?.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Query, String> {
        let parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let now = Timestamp::from_second(3_600).unwrap();
        Query::read(&parameters, &[RESOURCE, REVISION], now).map_err(|error| error.message)
    }

    #[test]
    fn what_is_not_said_is_the_last_hour_by_the_minute() {
        let query = read(&[]).unwrap();
        assert_eq!((query.from, query.until, query.interval.0), (0, 60, "PT1M"));
        assert_eq!((query.metrics, query.aggregations), (vec![Metric::Requests], vec![Aggregation::Total]));
    }

    #[test]
    fn a_filter_has_alternatives_within_a_dimension() {
        let text = "(Microsoft.ResourceId eq '/A' or Microsoft.ResourceId eq '/b') and revisionName eq '*'";
        let filter = read(&[("$filter", text)]).unwrap().filter;
        let lets = ["/a", "/b", "/c"].map(|id| filter.lets(RESOURCE, id));
        assert_eq!(
            (lets, filter.lets(REVISION, "x"), filter.splits(REVISION)),
            ([true, true, false], true, true)
        );
        assert_eq!(filter.names(RESOURCE), Some(vec!["/A".to_owned(), "/b".to_owned()]));
        assert_eq!(filter.names(REVISION), None);
    }

    #[test]
    fn what_cannot_be_read_is_said_so() {
        for (name, value, says) in [
            ("timespan", "yesterday", "neither `start/end`"),
            ("timespan", "1970-01-01T01:00:00Z/1970-01-01T00:00:00Z", "ends before it begins"),
            ("timespan", "PT48H", "more than 1440 steps"),
            ("interval", "PT2M", "PT1M, PT5M"),
            ("metricnames", "Requests,Nope", "metric: Nope, Valid metrics: Requests,"),
            ("aggregation", "median", "Average, Minimum"),
            ("metricnamespace", "Microsoft.Web/sites", "no metrics of the namespace"),
            ("$filter", "podName eq '*'", "no dimension `podname`"),
            ("$filter", "revisionName ne '*'", "cannot be read"),
            ("top", "0", "above 0"),
        ] {
            let message = read(&[(name, value)]).unwrap_err();
            assert!(message.contains(says), "{name}={value}: {message}");
        }
    }
}
