-- Why:   the breakers before the payment provider live in the memory of each worker; staff ask a server, and the leader decides about
--        pauses for all. So each worker tells here, each second, how its breakers are.
-- Locks: a new table only. Undo: the down file drops it.
CREATE TABLE circuit_breaker (
    process      uuid             NOT NULL,
    operation    text             NOT NULL,
    state        text             NOT NULL CONSTRAINT circuit_breaker_state_known CHECK (state IN ('CLOSED', 'OPEN', 'HALF_OPEN')),
    failure_rate double precision NOT NULL CONSTRAINT circuit_breaker_failure_rate_share CHECK (failure_rate BETWEEN 0 AND 1),
    since        timestamptz      NOT NULL,
    -- A worker that is gone tells nothing any more.
    seen_at      timestamptz      NOT NULL,
    PRIMARY KEY (process, operation)
);
