//! `GET health`: whether invocations reach the handler. It asks nothing of the store, so that it
//! answers while the store is away.

use serde_json::json;

use crate::{invocation::HttpAnswer, platform::Platform};

pub fn get(platform: &Platform) -> HttpAnswer {
    HttpAnswer::new(
        200,
        json!({ "status": "Healthy", "at": crate::envelope::whole_seconds::text(platform.clock.now()) }),
    )
}
