//! The index of what documents are asked for by: texts among the top-level members of their bodies,
//! as [`is_indexed`](crate::ports::store::is_indexed) chooses them.
//!
//! A row for each of them, in the order of listings, once for a tenant and once for a partition. The
//! tables keep themselves: triggers follow every write of a document, its purge included.

/// What an update leaves as it was is not touched. A body that is no JSON has no members here; whoever
/// reads it hears of it.
pub const FORM: &str = "
    CREATE TABLE members (
        tenant_id TEXT NOT NULL,
        document_kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        made_at TEXT NOT NULL,
        document_id TEXT NOT NULL,
        environment_id TEXT NOT NULL,
        PRIMARY KEY (tenant_id, document_kind, name, value, made_at, document_id, environment_id)
    ) WITHOUT ROWID;
    CREATE INDEX members_of_partition ON members
        (tenant_id, environment_id, document_kind, name, value, made_at, document_id);
    CREATE VIEW indexed_members AS
        SELECT documents.rowid AS row, tenant, kind, member.key AS name, member.value AS value,
            documents.at AS at, documents.id AS id, environment
        FROM documents, json_each(CASE WHEN json_valid(body) THEN body ELSE '{}' END) AS member
        WHERE member.type = 'text' AND (member.key GLOB '*Id'
            OR member.key IN ('status', 'kind', 'reason', 'function', 'eventType', 'severity'));
    INSERT INTO members
        SELECT tenant, kind, name, value, at, id, environment FROM indexed_members;
    CREATE TRIGGER documents_come AFTER INSERT ON documents BEGIN
        INSERT INTO members
            SELECT tenant, kind, name, value, at, id, environment FROM indexed_members WHERE row = NEW.rowid
            ON CONFLICT DO NOTHING;
    END;
    CREATE TRIGGER documents_change BEFORE UPDATE ON documents BEGIN
        DELETE FROM members
        WHERE (tenant_id, document_kind, name, value, made_at, document_id, environment_id) IN (
            SELECT OLD.tenant, OLD.kind, member.key, member.value, OLD.at, OLD.id, OLD.environment
            FROM json_each(CASE WHEN json_valid(OLD.body) THEN OLD.body ELSE '{}' END) AS member
            WHERE member.type = 'text' AND (member.key GLOB '*Id'
                OR member.key IN ('status', 'kind', 'reason', 'function', 'eventType', 'severity'))
            EXCEPT
            SELECT NEW.tenant, NEW.kind, member.key, member.value, NEW.at, NEW.id, NEW.environment
            FROM json_each(CASE WHEN json_valid(NEW.body) THEN NEW.body ELSE '{}' END) AS member);
    END;
    CREATE TRIGGER documents_changed AFTER UPDATE ON documents BEGIN
        INSERT INTO members
            SELECT tenant, kind, name, value, at, id, environment FROM indexed_members WHERE row = NEW.rowid
            ON CONFLICT DO NOTHING;
    END;
    CREATE TRIGGER documents_go BEFORE DELETE ON documents BEGIN
        DELETE FROM members
        WHERE (tenant_id, document_kind, name, value, made_at, document_id, environment_id) IN (
            SELECT tenant, kind, name, value, at, id, environment FROM indexed_members WHERE row = OLD.rowid);
    END;
";
