//! The health sweep of one environment.

use jiff::Timestamp;

use crate::{outcome::Fault, platform::Platform, ports::store::Partition};

pub async fn run(_: &Platform, _: &Partition, _: Timestamp) -> Result<(), Fault> {
    Ok(())
}
