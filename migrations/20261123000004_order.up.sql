-- Why:   orders with lines and history, payment attempts, stock movements, and what background work leaves behind.
-- Locks: new tables only. Undo: the down file drops them.
-- "orders" is plural because ORDER is a word of SQL; every other table is singular.
CREATE TABLE orders (
    id                  uuid        PRIMARY KEY,
    number              text        NOT NULL CONSTRAINT orders_number_unique UNIQUE,
    customer_id         uuid        NOT NULL,
    status              text        NOT NULL CONSTRAINT orders_status_known CHECK (status IN (
                                        'AWAITING_PAYMENT', 'PAID', 'PREPARING', 'SHIPPED', 'DELIVERED',
                                        'PAYMENT_FAILED', 'CANCELLING', 'CANCELLED', 'EXPIRING', 'EXPIRED',
                                        'RETURN_REQUESTED', 'REFUNDING', 'REFUNDED', 'PARTLY_REFUNDED', 'IN_REVIEW')),
    version             integer     NOT NULL CONSTRAINT orders_version_positive CHECK (version > 0),
    total_minor         bigint      NOT NULL CONSTRAINT orders_total_positive CHECK (total_minor > 0),
    currency            text        NOT NULL CONSTRAINT orders_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    -- The customer's idempotency key, per mutation, and the hash of what was asked for under it.
    mutation            text        NOT NULL CONSTRAINT orders_mutation_known CHECK (mutation IN ('buyNow', 'checkOutCart')),
    idempotency_key     uuid        NOT NULL,
    request_hash        bytea       NOT NULL CONSTRAINT orders_request_hash_length CHECK (octet_length(request_hash) = 32),
    address_id          uuid,
    delivery_note_sealed bytea,
    -- The provider's token for the try that is due or under way; removed when that try has ended.
    payment_method      text        CONSTRAINT orders_payment_method_length CHECK (length(payment_method) BETWEEN 1 AND 255),
    hold_expires_at     timestamptz,
    tracking_number     text,
    review_reason       text,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    CONSTRAINT orders_idempotency_key_once UNIQUE (customer_id, mutation, idempotency_key),
    CONSTRAINT orders_unpaid_has_hold CHECK (status NOT IN ('AWAITING_PAYMENT', 'EXPIRING') OR hold_expires_at IS NOT NULL)
);
CREATE INDEX orders_customer ON orders (customer_id, created_at DESC, id DESC);
CREATE INDEX orders_hold ON orders (hold_expires_at) WHERE status IN ('AWAITING_PAYMENT', 'EXPIRING');

CREATE TABLE order_line (
    order_id         uuid     NOT NULL REFERENCES orders (id),
    position         smallint NOT NULL,
    product_id       uuid     NOT NULL,
    flash_sale_id    uuid,
    title            text     NOT NULL,
    quantity         integer  NOT NULL CONSTRAINT order_line_quantity_range CHECK (quantity BETWEEN 1 AND 999),
    unit_price_minor bigint   NOT NULL CONSTRAINT order_line_price_positive CHECK (unit_price_minor > 0),
    PRIMARY KEY (order_id, position)
);

-- The history, one row per version of the order.
CREATE TABLE order_event (
    order_id    uuid        NOT NULL REFERENCES orders (id),
    version     integer     NOT NULL,
    status      text        NOT NULL,
    reason_code text        CONSTRAINT order_event_reason_known CHECK (reason_code IN (
                                'CUSTOMER', 'STAFF', 'PAYMENT_DECLINED', 'HOLD_EXPIRED', 'SALE_CANCELLED',
                                'LATE_CAPTURE', 'MISMATCH', 'DEAD_LETTER', 'SCHEDULE')),
    reason      text,
    at          timestamptz NOT NULL,
    PRIMARY KEY (order_id, version)
);

-- One try to pay with one payment method. It is committed before the provider is called (rule 1 of payments).
CREATE TABLE payment (
    id                 uuid        PRIMARY KEY,
    order_id           uuid        NOT NULL REFERENCES orders (id),
    try_number         integer     NOT NULL CONSTRAINT payment_try_positive CHECK (try_number > 0),
    status             text        NOT NULL CONSTRAINT payment_status_known CHECK (status IN (
                                       'PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'CAPTURED', 'DECLINED', 'FAILED',
                                       'UNKNOWN', 'PARTLY_REFUNDED', 'REFUNDED')),
    amount_minor       bigint      NOT NULL CONSTRAINT payment_amount_positive CHECK (amount_minor > 0),
    currency           text        NOT NULL CONSTRAINT payment_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    refunded_minor     bigint      NOT NULL DEFAULT 0,
    provider           text        NOT NULL,
    provider_reference text        CONSTRAINT payment_provider_reference_unique UNIQUE,
    payment_method     text        NOT NULL,
    method_label       text,
    next_action_url    text,
    failure_code       text,
    -- Calls to the provider within this try.
    calls              integer     NOT NULL DEFAULT 0,
    -- How often it was taken up again after its worker was gone.
    resumes            integer     NOT NULL DEFAULT 0,
    -- Until then the worker that began the try may still be at it; afterwards anybody may ask the provider.
    deadline           timestamptz NOT NULL,
    next_query_at      timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CONSTRAINT payment_try_once UNIQUE (order_id, try_number),
    CONSTRAINT payment_refunds_within_capture CHECK (refunded_minor BETWEEN 0 AND amount_minor)
);
CREATE UNIQUE INDEX payment_captured_once ON payment (order_id) WHERE status IN ('CAPTURED', 'PARTLY_REFUNDED', 'REFUNDED');
CREATE UNIQUE INDEX payment_open_once ON payment (order_id) WHERE status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN');
CREATE INDEX payment_due ON payment (next_query_at) WHERE status IN ('PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN');

-- `quantity` is the signed change of what can be bought: ordinary stock, or the sale's free units.
CREATE TABLE stock_movement (
    id            uuid        PRIMARY KEY,
    kind          text        NOT NULL CONSTRAINT stock_movement_kind_known CHECK (kind IN (
                                  'RECEIVED', 'ADJUSTED', 'ALLOCATED', 'DEALLOCATED', 'RESERVED', 'RELEASED', 'SOLD', 'RETURNED')),
    quantity      integer     NOT NULL,
    product_id    uuid        NOT NULL,
    flash_sale_id uuid,
    order_id      uuid,
    reason        text,
    at            timestamptz NOT NULL,
    -- ALLOCATED and DEALLOCATED name the sale but change the product's ordinary stock.
    CONSTRAINT stock_movement_sign CHECK (CASE
        WHEN kind IN ('ALLOCATED', 'RESERVED') THEN quantity < 0
        WHEN kind = 'SOLD'                     THEN quantity = 0
        WHEN kind = 'ADJUSTED'                 THEN quantity <> 0
        ELSE quantity > 0
    END)
);
CREATE INDEX stock_movement_product ON stock_movement (product_id, at DESC, id DESC);
CREATE INDEX stock_movement_sale ON stock_movement (flash_sale_id, at DESC, id DESC) WHERE flash_sale_id IS NOT NULL;
CREATE INDEX stock_movement_order ON stock_movement (order_id) WHERE order_id IS NOT NULL;

-- Messages that no worker could use, kept for people to look at.
CREATE TABLE dead_letter (
    id          uuid        PRIMARY KEY,
    queue       text        NOT NULL,
    message_id  bigint      NOT NULL,
    kind        text        NOT NULL,
    payload     jsonb       NOT NULL,
    reason      text        NOT NULL,
    last_error  text,
    attempts    integer     NOT NULL,
    trace_id    text,
    enqueued_at timestamptz NOT NULL,
    dead_at     timestamptz NOT NULL,
    CONSTRAINT dead_letter_once UNIQUE (queue, message_id)
);
