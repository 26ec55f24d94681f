-- Why:   one rule for the end of a hold wherever an order is shown, charged, expired or audited: its hold's end, and while it is
--        unpaid the paused time with it. An order that is no longer unpaid keeps the end it had.
-- Locks: none. Undo: the down file drops the function.
CREATE FUNCTION hold_ends_at(o orders) RETURNS timestamptz
LANGUAGE sql STABLE
RETURN CASE WHEN o.status IN ('AWAITING_PAYMENT', 'EXPIRING') THEN hold_ends_at(o.created_at, o.hold_expires_at, now())
            ELSE o.hold_expires_at END;
