-- Why:   each day the provider's list of charges is compared with the captured payments, both ways. What does not fit is kept until a
--        later comparison finds it mended.
-- Locks: new tables only. Undo: the down file drops them.
CREATE TABLE reconciliation (
    id           uuid        PRIMARY KEY,
    -- What was compared: charges and payments made from here on,
    created_from timestamptz NOT NULL,
    -- and before this.
    created_to   timestamptz NOT NULL,
    charges      bigint      NOT NULL CONSTRAINT reconciliation_charges_count CHECK (charges >= 0),
    payments     bigint      NOT NULL CONSTRAINT reconciliation_payments_count CHECK (payments >= 0),
    breaks       bigint      NOT NULL CONSTRAINT reconciliation_breaks_count CHECK (breaks >= 0),
    finished_at  timestamptz NOT NULL,
    CONSTRAINT reconciliation_order CHECK (created_to > created_from)
);
CREATE INDEX reconciliation_finished ON reconciliation (finished_at);

CREATE TABLE reconciliation_break (
    id                 uuid        PRIMARY KEY,
    kind               text        NOT NULL CONSTRAINT reconciliation_break_kind_known CHECK (kind IN (
                           'CHARGE_WITHOUT_PAYMENT', 'PAYMENT_WITHOUT_CHARGE', 'AMOUNT_DIFFERS', 'REFUND_DIFFERS')),
    provider_reference text        NOT NULL,
    order_id           uuid,
    currency           text        NOT NULL CONSTRAINT reconciliation_break_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    -- In the currency's minor unit; of a refund, what has gone back.
    ours_minor         bigint      NOT NULL,
    theirs_minor       bigint      NOT NULL,
    -- When the charge, or the payment without one, was made.
    made_at            timestamptz NOT NULL,
    found_at           timestamptz NOT NULL,
    seen_at            timestamptz NOT NULL,
    resolved_at        timestamptz,
    CONSTRAINT reconciliation_break_once UNIQUE (provider_reference, kind)
);
CREATE INDEX reconciliation_break_open ON reconciliation_break (made_at) WHERE resolved_at IS NULL;
