//! From what is declared to who can be sent to and received from. Entities keep their number in the
//! file for as long as they are declared, or hold a message.

use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{
    directory::{Directory, Holder, Inlet, Outlet, Waiting},
    topology::{Holding, Topology},
};

/// Brings the table of entities in line with what is declared.
pub(super) fn declare(connection: &mut Connection, topology: &Topology) -> rusqlite::Result<Directory> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut directory = Directory::default();
    let mut declared = Vec::new();
    let mut id = |path: &str, kind: &str, owner: Option<i64>| -> rusqlite::Result<i64> {
        transaction.execute(
            "INSERT INTO entity (path, kind) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET path = excluded.path",
            params![path, kind],
        )?;
        let query = "SELECT id FROM entity WHERE path = ?1 AND kind = ?2";
        let id = transaction.query_row(query, params![path, kind], |row| row.get(0))?;
        transaction
            .execute("UPDATE entity SET owner = ?2 WHERE id = ?1", params![id, owner.unwrap_or(id)])?;
        declared.push(id);
        Ok(id)
    };
    for queue in &topology.queues {
        let id = id(&queue.name, "queue", None)?;
        let holder = holder(id, &queue.name, id, queue.size_bytes_max, &queue.holding);
        directory.add_holder(holder.clone());
        directory.add_inlet(Inlet {
            id,
            name: queue.name.clone(),
            duplicate_detection_window: queue.duplicate_detection_window,
            outlets: vec![Outlet { holder, rules: None }],
        });
    }
    for topic in &topology.topics {
        let owner = id(&topic.name, "topic", None)?;
        let mut outlets = Vec::new();
        for subscription in &topic.subscriptions {
            let path = format!("{}/Subscriptions/{}", topic.name, subscription.name);
            let id = id(&path, "subscription", Some(owner))?;
            let holder = holder(id, &path, owner, topic.size_bytes_max, &subscription.holding);
            directory.add_holder(holder.clone());
            outlets.push(Outlet { holder, rules: Some(subscription.rules.clone()) });
        }
        directory.add_inlet(Inlet {
            id: owner,
            name: topic.name.clone(),
            duplicate_detection_window: topic.duplicate_detection_window,
            outlets,
        });
    }
    keep_or_drop_undeclared(&transaction, &mut directory, &declared)?;
    recount(&transaction)?;
    transaction.commit()?;
    Ok(directory)
}

fn holder(id: i64, path: &str, owner: i64, size_bytes_max: u64, holding: &Holding) -> Arc<Holder> {
    Arc::new(Holder {
        id,
        path: path.to_owned(),
        owner,
        size_bytes_max,
        holding: holding.clone(),
        live: Waiting::new(),
        dead: Waiting::new(),
    })
}

/// What is no longer declared goes when it is empty; otherwise it can be received from, not sent to.
fn keep_or_drop_undeclared(
    transaction: &Connection,
    directory: &mut Directory,
    declared: &[i64],
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(
        "SELECT id, path, owner, EXISTS (SELECT 1 FROM message WHERE entity = entity.id) FROM entity",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    for row in rows {
        let (id, path, owner, holds_messages): (i64, String, i64, bool) = row?;
        if declared.contains(&id) {
            continue;
        }
        if holds_messages {
            directory.add_holder(holder(id, &path, owner, 0, &Holding::default()));
        } else {
            transaction.execute("DELETE FROM entity WHERE id = ?1", [id])?;
            transaction.execute("DELETE FROM seen WHERE entity = ?1", [id])?;
        }
    }
    Ok(())
}

/// A subscription's topic may have been declared anew: count every size where it now belongs.
fn recount(transaction: &Connection) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "UPDATE message SET owner = (SELECT owner FROM entity WHERE id = message.entity)
         WHERE owner <> (SELECT owner FROM entity WHERE id = message.entity);
         UPDATE entity SET bytes = 0;
         UPDATE entity SET bytes = total.size
         FROM (SELECT owner, sum(size) AS size FROM message GROUP BY owner) AS total WHERE total.owner = entity.id;",
    )
}
