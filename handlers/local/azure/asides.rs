//! What a developer can ask of the stand-in itself, and of Azure nobody can: faults for the next calls,
//! a replica killed, another behaviour staged for an image, what came through the ingress.
//!
//! Whatever changes something needs a token for Resource Manager: it can do harm.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Shared, address,
    api::unauthorised,
    faults::Fault,
    images,
    refusals::ArmError,
    registry::{self, Staged},
    types,
};

/// The longest that a killed replica stays down, in seconds.
const DOWN_SECONDS_MAX: u32 = 3600;

/// The routes, under `/local`.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/local/ingress-counts", get(counts))
        .route("/local/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/local/kill-replica", post(kill_replica))
        .route("/local/images", post(stage_image))
}

/// What came through the ingress: `?host=` names one host. Tells nothing that needs a token.
async fn counts(State(shared): State<Arc<Shared>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let host = query.get("host").map(|host| host.split(':').next().unwrap_or_default().to_ascii_lowercase());
    Json(shared.routes.counts(host.as_deref())).into_response()
}

async fn faults(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.faults.list()).into_response()
}

async fn add_faults(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(faults): Json<Vec<Fault>>,
) -> Response {
    // Faults can kill: only who may call Resource Manager may ask for them.
    if let Some(refusal) = unauthorised(&shared, &headers) {
        return refusal;
    }
    match shared.faults.add(faults) {
        Ok(()) => Json(shared.faults.list()).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn clear_faults(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = unauthorised(&shared, &headers) {
        return refusal;
    }
    shared.faults.clear();
    StatusCode::NO_CONTENT.into_response()
}

/// Which replica is to be killed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Victim {
    /// The id of the replica, as Resource Manager lists it.
    id: String,
    /// How long it stays down at least, in seconds.
    #[serde(default)]
    down_seconds: u32,
}

/// Kills a replica's container behind everybody's back: `{"id": "<id of the replica>",
/// "downSeconds": 0}`. It is started again as after any other exit, and not before `downSeconds`.
async fn kill_replica(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(victim): Json<Victim>,
) -> Response {
    if let Some(refusal) = unauthorised(&shared, &headers) {
        return refusal;
    }
    let killed =
        address::resource(&victim.id).filter(|id| id.spec.name == types::REPLICA).is_some_and(|id| {
            let Some(revision) = address::resource(&id.parent) else { return false };
            let down = Duration::from_secs(u64::from(victim.down_seconds.min(DOWN_SECONDS_MAX)));
            shared.fleet.kill(&revision.parent_key(), &revision.name.to_ascii_lowercase(), &id.name, down)
        });
    if killed {
        return StatusCode::NO_CONTENT.into_response();
    }
    ArmError::not_found("ReplicaNotFound", format!("`{}` is no replica that runs.", victim.id))
        .into_response()
}

/// Stages what stands in for containers of an image, an entry as the image catalogue has them: it comes
/// before all others. A tag that stood for something else is another digest from now on, and what
/// runs goes on as it is.
async fn stage_image(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(entry): Json<Value>,
) -> Response {
    if let Some(refusal) = unauthorised(&shared, &headers) {
        return refusal;
    }
    let (pattern, stand_in) = match images::entry(&entry, Path::new(".")) {
        Ok(read) => read,
        Err((path, problem)) => {
            let message = format!("The image cannot be staged: `{path}`: {problem}.");
            return ArmError::bad_request("InvalidImage", message).into_response();
        }
    };
    let staged = Staged { pattern, stand_in };
    let kept = staged.clone();
    match shared.database.write(move |connection| registry::stage(connection, &kept)).await {
        Ok(()) => {
            shared.fleet.stage(&staged.pattern, staged.stand_in);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => error.into_response(),
    }
}
