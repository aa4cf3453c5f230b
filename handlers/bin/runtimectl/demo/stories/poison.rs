//! Messages that cannot be handled end among the dead letters, each with its reason.

use serde_json::Value;
use uuid::Uuid;

use super::Story;
use crate::{
    bus::Mail,
    demo::{
        checks::holds,
        orders::{self, Service, TENANT},
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// Whom a message claims to be from, against what its body says.
const PRETENDED: &str = "globex";

pub const STORY: Story = Story {
    name: "poison",
    title: "Messages that cannot be read, or contradict themselves, are filed with their reasons",
    needs: &["provisioning"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let place = |what: &str| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("runtimectl demo {what}").as_bytes());
    let letter = |what: &str, body: Vec<u8>| Mail {
        queue: "deploy".to_owned(),
        message_id: place(what).to_string(),
        correlation_id: None,
        content_type: "application/json",
        properties: std::collections::BTreeMap::new(),
        body,
    };
    let torn =
        letter("torn", b"{\"eventId\":\"evt-1\",\"eventType\":\"Deploy\",\"tenantId\":\"conn".to_vec());
    let args = orders::send_args("poison forged", "Deploy");
    let forged = serde_json::json!({
        "eventId": args.event_id, "eventType": "Deploy", "tenantId": TENANT, "projectId": null,
        "moduleId": null, "traceId": args.trace_id, "correlationId": args.correlation_id,
        "causationId": null, "occurredAt": jiff::Timestamp::now().to_string(),
        "payload": orders::deploy(&teller.environment, Service::Reservations, "6.6.6"),
    });
    let mut forged = letter("forged", forged.to_string().into_bytes());
    forged.properties.insert("cs-tenant-id".to_owned(), PRETENDED.to_owned());
    for (mail, what) in [
        (torn, "a message that breaks off in the middle"),
        (forged, "a Deploy of connectsoft whose property says that it is globex's"),
    ] {
        let id = mail.message_id.clone();
        teller.bus.send(mail).await?;
        teller.saw("a poison message", &id[..8], what, "you, over the queue deploy")?;
    }
    let filed = teller
        .until("waiting until the poison is filed", async |teller: &Teller| {
            let query = [("unreadable", "true")];
            let filed = teller.client.list("dead-letters", &query, 10).await?.items;
            Ok((filed.len() >= 2).then_some(filed))
        })
        .await?;
    for letter in &filed {
        let (reason, detail) = (text(letter, "reason"), text(letter, "detail"));
        holds(!reason.is_empty() && !detail.is_empty(), || {
            format!("a dead letter should say why it is one, and says {letter}")
        })?;
        let by = format!("the queue {}", text(letter, "function"));
        teller.saw("filed", &text(letter, "deadLetterId"), &format!("{reason}: {detail}"), &by)?;
    }
    let answered = teller.events.iter().any(|event: &Value| event.to_string().contains("6.6.6"));
    holds(!answered, || "nobody should hear of what somebody forged, and an event tells of it".to_owned())?;
    teller.narrator.verified(
        "both are filed with their reasons, nothing was deployed, and no tenant was told of the forged one",
    )
}
