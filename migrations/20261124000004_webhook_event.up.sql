-- Why:   the payment provider's events, kept until they are applied. Only what is needed to ask for the present state: an event's
--        body holds personal data and is not stored.
-- Locks: a new table. Undo: the down file drops it.
CREATE TABLE webhook_event (
    -- The provider's id: the same event twice is one row.
    id          text        PRIMARY KEY CONSTRAINT webhook_event_id_length CHECK (length(id) BETWEEN 1 AND 255),
    kind        text        NOT NULL CONSTRAINT webhook_event_kind_length CHECK (length(kind) BETWEEN 1 AND 255),
    object_id   text        NOT NULL CONSTRAINT webhook_event_object_length CHECK (length(object_id) BETWEEN 1 AND 255),
    created_at  timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    applied_at  timestamptz,
    -- Null once it is applied, or given up because nobody here knows its object.
    next_try_at timestamptz,
    CONSTRAINT webhook_event_applied_is_not_due CHECK (applied_at IS NULL OR next_try_at IS NULL)
);
CREATE INDEX webhook_event_due ON webhook_event (next_try_at) WHERE next_try_at IS NOT NULL;
