-- Why:   one leader for what must run once, known by a term; and the time during which payments were paused, which does
--        not count against a customer's hold.
-- Locks: new tables only. Undo: the down file drops them.
CREATE TABLE lease (
    name       text        PRIMARY KEY,
    holder     uuid        NOT NULL,
    -- Rises when the holder changes; every write of a leader checks it.
    term       bigint      NOT NULL CONSTRAINT lease_term_positive CHECK (term > 0),
    expires_at timestamptz NOT NULL
);

-- When payments could not be taken: from a breaker's opening, or a queue too old, to its end.
CREATE TABLE payment_pause (
    id         uuid        PRIMARY KEY,
    began_at   timestamptz NOT NULL,
    ended_at   timestamptz,
    CONSTRAINT payment_pause_order CHECK (ended_at >= began_at)
);
CREATE UNIQUE INDEX payment_pause_one_open ON payment_pause ((ended_at IS NULL)) WHERE ended_at IS NULL;
CREATE INDEX payment_pause_ended ON payment_pause (ended_at);

-- When a hold ends: at hold_expires_at, plus the paused time since the order was made, at most 30 minutes of it. Overlapping
-- pauses count once, because only one can be open at a time.
CREATE FUNCTION hold_ends_at(created_at timestamptz, hold_expires_at timestamptz, now timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE
RETURN hold_expires_at + least(
    interval '30 minutes',
    (SELECT coalesce(sum(least(coalesce(p.ended_at, now), now) - greatest(p.began_at, created_at)), interval '0')
       FROM payment_pause p
      WHERE coalesce(p.ended_at, now) > created_at AND p.began_at < now));
