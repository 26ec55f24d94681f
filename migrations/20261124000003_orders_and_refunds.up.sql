-- Why:   orders that are cancelled, returned, refunded, reviewed, paid by a second card: refunds with their own rows, the state
--        before a review, work that is to be tried again later, and one claim for every way to an order: `claim_units` is called
--        by `buy_now` (unchanged otherwise) and by `claim_order`, which takes the units of all lines of an order.
-- Locks: ALTER TABLE on payment, for as long as it takes to read it once, and on orders, for an instant; the two indexes on
--        orders keep writers out while they are made. The rest is new.
-- Undo:  the down file drops what is new and puts the former `buy_now` back.
ALTER TABLE orders ADD COLUMN status_before_review text;
COMMENT ON COLUMN orders.status_before_review IS 'Where an order in review was before: it may go on as from there.';

-- `refunded_minor` is what has gone back; `refunding_minor` is what has been asked for and is not settled.
ALTER TABLE payment ADD COLUMN refunding_minor bigint NOT NULL DEFAULT 0;
ALTER TABLE payment ADD CONSTRAINT payment_refunds_asked_within_capture
    CHECK (refunding_minor >= 0 AND refunded_minor + refunding_minor <= amount_minor);

CREATE TABLE refund (
    id                 uuid        PRIMARY KEY,
    payment_id         uuid        NOT NULL REFERENCES payment (id),
    order_id           uuid        NOT NULL REFERENCES orders (id),
    status             text        NOT NULL CONSTRAINT refund_status_known
                                   CHECK (status IN ('REQUESTED', 'SUCCEEDED', 'FAILED', 'UNKNOWN')),
    amount_minor       bigint      NOT NULL CONSTRAINT refund_amount_positive CHECK (amount_minor > 0),
    currency           text        NOT NULL CONSTRAINT refund_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    -- For people; never personal data.
    reason             text        CONSTRAINT refund_reason_length CHECK (length(reason) BETWEEN 1 AND 500),
    -- The goods are back: they can be sold again once the money has gone.
    restock            boolean     NOT NULL DEFAULT false,
    provider_reference text        CONSTRAINT refund_provider_reference_unique UNIQUE,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL
);
CREATE INDEX refund_order ON refund (order_id, created_at);
CREATE INDEX refund_payment ON refund (payment_id);
CREATE INDEX refund_open ON refund (created_at) WHERE status IN ('REQUESTED', 'UNKNOWN');

-- Work of a queue that failed: how often, and when it is due again. While it waits it is not in the queue; the leader puts it back.
CREATE TABLE retry (
    queue           text        NOT NULL,
    kind            text        NOT NULL,
    target_id       uuid        NOT NULL,
    trace           text,
    attempts        integer     NOT NULL CONSTRAINT retry_attempts_positive CHECK (attempts > 0),
    last_error      text        NOT NULL,
    first_failed_at timestamptz NOT NULL,
    -- Null while its message is in the queue.
    due_at          timestamptz,
    PRIMARY KEY (queue, kind, target_id)
);
CREATE INDEX retry_due ON retry (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX dead_letter_newest ON dead_letter (dead_at DESC, id DESC);

-- For staff's lists. Of the states that most orders end in there is no index: whoever lists them goes by time.
CREATE INDEX orders_newest ON orders (created_at DESC, id DESC);
CREATE INDEX orders_status ON orders (status, created_at DESC, id DESC)
    WHERE status IN ('PREPARING', 'SHIPPED', 'CANCELLING', 'RETURN_REQUESTED', 'REFUNDING', 'IN_REVIEW');

-- Free units of a sale above the mark, locked until the transaction ends, lowest first; from the first one when too few lie above
-- it, because released units lie below. Fewer than wanted when no more are free or others hold locks on them.
CREATE FUNCTION claim_units(p_sale uuid, p_wanted integer, p_mark integer) RETURNS integer[]
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    v_found integer[];
    v_mark  integer := p_mark;
BEGIN
    LOOP
        SELECT coalesce(array_agg(u.seq ORDER BY u.seq), '{}') INTO v_found
          FROM (SELECT seq
                  FROM stock_unit
                 WHERE sale_id = p_sale AND order_id IS NULL AND seq > v_mark
                 ORDER BY seq
                 LIMIT p_wanted
                   FOR UPDATE SKIP LOCKED) u;
        EXIT WHEN cardinality(v_found) = p_wanted OR v_mark = 0;
        v_mark := 0;
    END LOOP;
    RETURN v_found;
END
$$;

-- Takes everything that an order's lines ask for, or nothing: the caller rolls back when the answer is not CLAIMED.
--   CLAIMED, OUT_OF_STOCK, LIMIT_REACHED, NOT_OPEN, CONTENDED
-- p_is_new counts the order with its sales; one that claims anew is counted already. p_needs_open is false for money that came late:
-- then only units decide.
-- Locks: the order's row is the caller's; then quotas by sale, units by SKIP LOCKED, products by id, the counter slot.
CREATE FUNCTION claim_order(p_order uuid, p_slot smallint, p_is_new boolean, p_needs_open boolean, p_at timestamptz) RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
SET lock_timeout = '500ms'
AS $$
DECLARE
    v_customer uuid := (SELECT customer_id FROM orders WHERE id = p_order);
    v_found    integer[];
    r          record;
    s          flash_sale;
    q          purchase_quota;
BEGIN
    FOR r IN
        SELECT flash_sale_id, sum(quantity)::integer AS quantity
          FROM order_line WHERE order_id = p_order AND flash_sale_id IS NOT NULL GROUP BY 1 ORDER BY 1
    LOOP
        SELECT * INTO s FROM flash_sale WHERE id = r.flash_sale_id;
        IF s.cancelled_at IS NOT NULL OR s.units_ready_at IS NULL
           OR (p_needs_open AND (clock_timestamp() < s.opens_at OR clock_timestamp() >= s.closes_at)) THEN
            RETURN 'NOT_OPEN';
        END IF;
        INSERT INTO purchase_quota (sale_id, customer_id, held, purchase_limit)
        VALUES (s.id, v_customer, 0, s.per_customer_limit) ON CONFLICT DO NOTHING;
        SELECT * INTO q FROM purchase_quota WHERE sale_id = s.id AND customer_id = v_customer FOR UPDATE;
        IF q.held + r.quantity > q.purchase_limit THEN
            RETURN 'LIMIT_REACHED';
        END IF;
        v_found := claim_units(s.id, r.quantity, 0);
        IF cardinality(v_found) < r.quantity THEN
            -- Fewer than asked may mean "locked just now": only a look without locks tells.
            RETURN CASE WHEN (SELECT count(*) FROM (SELECT 1 FROM stock_unit WHERE sale_id = s.id AND order_id IS NULL
                                                     LIMIT r.quantity) u) < r.quantity
                        THEN 'OUT_OF_STOCK' ELSE 'CONTENDED' END;
        END IF;
        UPDATE stock_unit SET order_id = p_order WHERE sale_id = s.id AND seq = ANY (v_found);
        UPDATE purchase_quota SET held = held + r.quantity, orders = orders + p_is_new::integer
         WHERE sale_id = s.id AND customer_id = v_customer;
        INSERT INTO sale_counter (sale_id, slot, claimed, orders) VALUES (s.id, p_slot, r.quantity, p_is_new::integer)
            ON CONFLICT (sale_id, slot) DO UPDATE
               SET claimed = sale_counter.claimed + excluded.claimed, orders = sale_counter.orders + excluded.orders;
    END LOOP;

    FOR r IN
        SELECT product_id, sum(quantity)::integer AS quantity
          FROM order_line WHERE order_id = p_order AND flash_sale_id IS NULL GROUP BY 1 ORDER BY 1
    LOOP
        UPDATE product SET available = available - r.quantity, updated_at = p_at
         WHERE id = r.product_id AND available >= r.quantity AND archived_at IS NULL;
        IF NOT FOUND THEN
            RETURN 'OUT_OF_STOCK';
        END IF;
    END LOOP;

    INSERT INTO stock_movement (id, kind, quantity, product_id, flash_sale_id, order_id, at)
    SELECT gen_random_uuid(), 'RESERVED', -quantity, product_id, flash_sale_id, order_id, p_at
      FROM order_line WHERE order_id = p_order;
    RETURN 'CLAIMED';
END
$$;

CREATE OR REPLACE FUNCTION buy_now(
    p_slot         smallint,
    p_orders       uuid[],
    p_numbers      text[],
    p_movements    uuid[],
    p_customers    uuid[],
    p_sales        uuid[],
    p_quantities   integer[],
    p_keys         uuid[],
    p_hashes       bytea[],
    p_methods      text[],
    p_addresses    uuid[],
    p_notes        bytea[],
    p_traces       text[],
    p_marks        integer[]
) RETURNS SETOF buy_now_outcome
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
SET lock_timeout = '500ms'
AS $$
DECLARE
    v_size      CONSTANT integer := cardinality(p_orders);
    v_now       timestamptz;
    v_outcomes  text[]    := array_fill(NULL::text, ARRAY[v_size]);
    v_answers   uuid[]    := array_fill(NULL::uuid, ARRAY[v_size]);
    v_held      integer[] := array_fill(NULL::integer, ARRAY[v_size]);
    v_remaining integer[] := array_fill(NULL::integer, ARRAY[v_size]);
    v_ship_to   uuid[]    := array_fill(NULL::uuid, ARRAY[v_size]);
    v_accepted  integer[] := '{}';
    v_found     integer[];
    v_used      integer;
    v_last      integer;
    v_marks     integer[] := array_fill(NULL::integer, ARRAY[v_size]);
    v_free      integer;
    v_changed   integer;
    v_unit_sales uuid[]    := '{}';
    v_units      integer[] := '{}';
    v_owners     uuid[]    := '{}';
    v_messages  jsonb[];
    r           record;
    w           record;
BEGIN
    -- (a) The quota rows, made when missing and locked in order: here calls for one customer wait for each other.
    INSERT INTO purchase_quota (sale_id, customer_id, held, purchase_limit)
    SELECT s.id, c.id, 0, s.per_customer_limit
      FROM unnest(p_sales, p_customers) AS x (sale_id, customer_id)
     CROSS JOIN LATERAL (SELECT * FROM flash_sale WHERE id = x.sale_id LIMIT 1) s
     CROSS JOIN LATERAL (SELECT id FROM customer WHERE id = x.customer_id LIMIT 1) c
     WHERE s.units_ready_at IS NOT NULL AND s.cancelled_at IS NULL
       AND clock_timestamp() >= s.opens_at AND clock_timestamp() < s.closes_at
     ORDER BY s.id, c.id
        ON CONFLICT DO NOTHING;

    PERFORM q.held
       FROM (SELECT * FROM unnest(p_sales, p_customers) AS u (sale_id, customer_id) ORDER BY 1, 2) x
      CROSS JOIN LATERAL (SELECT held FROM purchase_quota
                           WHERE sale_id = x.sale_id AND customer_id = x.customer_id LIMIT 1 FOR UPDATE) q;

    -- (b) Keys, window, limits: a statement of its own, so that its snapshot is younger than the locks. The key comes
    --     first: an earlier success is answered whatever stock, limit or window say now.
    v_now := clock_timestamp();
    FOR r IN
        SELECT x.n::integer AS n, x.quantity, x.request_hash, x.address_id,
               prior.id AS prior_id, prior.request_hash AS prior_hash,
               s.id AS sale_id, c.email_verified_at, a.id AS ship_to, q.held, q.purchase_limit,
               s.cancelled_at IS NULL AND s.units_ready_at IS NOT NULL
                   AND v_now >= s.opens_at AND v_now < s.closes_at AND q.held IS NOT NULL AS is_open
          FROM unnest(p_customers, p_sales, p_quantities, p_keys, p_hashes, p_addresses) WITH ORDINALITY
               AS x (customer_id, sale_id, quantity, key, request_hash, address_id, n)
          LEFT JOIN LATERAL (SELECT id, request_hash FROM orders
                              WHERE customer_id = x.customer_id AND mutation = 'buyNow' AND idempotency_key = x.key LIMIT 1) prior ON true
          LEFT JOIN LATERAL (SELECT * FROM flash_sale WHERE id = x.sale_id LIMIT 1) s ON true
          LEFT JOIN LATERAL (SELECT email_verified_at FROM customer WHERE id = x.customer_id LIMIT 1) c ON true
          LEFT JOIN LATERAL (SELECT held, purchase_limit FROM purchase_quota
                              WHERE sale_id = x.sale_id AND customer_id = x.customer_id LIMIT 1) q ON true
          LEFT JOIN LATERAL (SELECT id FROM address
                              WHERE customer_id = x.customer_id AND retired_at IS NULL
                                AND (id = x.address_id OR (x.address_id IS NULL AND is_default)) LIMIT 1) a ON true
         ORDER BY x.n
    LOOP
        v_held[r.n] := r.held;
        v_ship_to[r.n] := r.ship_to;
        v_outcomes[r.n] := CASE
            WHEN r.prior_id IS NOT NULL AND r.prior_hash = r.request_hash THEN 'REPLAYED'
            WHEN r.prior_id IS NOT NULL THEN 'KEY_REUSED'
            WHEN r.sale_id IS NULL THEN 'SALE_NOT_FOUND'
            WHEN r.email_verified_at IS NULL THEN 'EMAIL_NOT_VERIFIED'
            WHEN r.address_id IS NOT NULL AND r.ship_to IS NULL THEN 'ADDRESS_NOT_FOUND'
            WHEN NOT r.is_open THEN 'NOT_OPEN'
            WHEN r.held + r.quantity > r.purchase_limit THEN 'LIMIT_REACHED'
            ELSE 'WAITING'
        END;
        IF v_outcomes[r.n] = 'REPLAYED' THEN
            v_answers[r.n] := r.prior_id;
        END IF;
    END LOOP;

    -- (c) The claim, once per sale, then units to requests in order of arrival: all of a request's units or none.
    FOR r IN
        SELECT x.sale_id, sum(x.quantity)::integer AS wanted, max(x.mark) AS mark
          FROM unnest(p_sales, p_quantities, v_outcomes, p_marks) AS x (sale_id, quantity, outcome, mark)
         WHERE x.outcome = 'WAITING'
         GROUP BY x.sale_id
         ORDER BY x.sale_id
    LOOP
        v_found := claim_units(r.sale_id, r.wanted, r.mark);
        v_last := v_found[cardinality(v_found)];
        v_used := 0;
        v_free := NULL;
        FOR w IN
            SELECT x.n::integer AS n, x.quantity
              FROM unnest(p_sales, p_quantities, v_outcomes) WITH ORDINALITY AS x (sale_id, quantity, outcome, n)
             WHERE x.outcome = 'WAITING' AND x.sale_id = r.sale_id
             ORDER BY x.n
        LOOP
            IF v_used + w.quantity <= cardinality(v_found) THEN
                v_outcomes[w.n] := 'ACCEPTED';
                v_marks[w.n] := v_last;
                v_answers[w.n] := p_orders[w.n];
                v_accepted := v_accepted || w.n;
                v_units := v_units || v_found[v_used + 1 : v_used + w.quantity];
                v_unit_sales := v_unit_sales || array_fill(r.sale_id, ARRAY[w.quantity]);
                v_owners := v_owners || array_fill(p_orders[w.n], ARRAY[w.quantity]);
                v_used := v_used + w.quantity;
            ELSE
                -- Fewer than asked may mean "locked just now": only a look without locks tells.
                IF v_free IS NULL THEN
                    SELECT count(*) INTO v_free
                      FROM (SELECT 1 FROM stock_unit WHERE sale_id = r.sale_id AND order_id IS NULL LIMIT r.wanted) u;
                END IF;
                v_remaining[w.n] := greatest(v_free - v_used, 0);
                v_outcomes[w.n] := CASE
                    WHEN v_free - v_used <= 0 THEN 'SOLD_OUT'
                    WHEN v_free - v_used < w.quantity THEN 'NOT_ENOUGH_LEFT'
                    ELSE 'CONTENDED'
                END;
            END IF;
        END LOOP;
    END LOOP;

    -- (d) Everything that a purchase leaves behind, in this transaction or not at all.
    IF v_accepted <> '{}' THEN
        INSERT INTO orders (id, number, customer_id, status, version, total_minor, currency, mutation, idempotency_key,
                            request_hash, address_id, delivery_note_sealed, payment_method, hold_expires_at, created_at, updated_at)
        SELECT p_orders[n], p_numbers[n], p_customers[n], 'AWAITING_PAYMENT', 1, s.price_minor * p_quantities[n], s.currency,
               'buyNow', p_keys[n], p_hashes[n], v_ship_to[n], p_notes[n], p_methods[n],
               v_now + make_interval(secs => s.hold_seconds), v_now, v_now
          FROM unnest(v_accepted) AS n
         CROSS JOIN LATERAL (SELECT * FROM flash_sale WHERE id = p_sales[n] LIMIT 1) s;

        INSERT INTO order_line (order_id, position, product_id, flash_sale_id, title, quantity, unit_price_minor)
        SELECT p_orders[n], 1, s.product_id, s.id, p.title, p_quantities[n], s.price_minor
          FROM unnest(v_accepted) AS n
         CROSS JOIN LATERAL (SELECT * FROM flash_sale WHERE id = p_sales[n] LIMIT 1) s
         CROSS JOIN LATERAL (SELECT title FROM product WHERE id = s.product_id LIMIT 1) p;

        INSERT INTO order_event (order_id, version, status, at)
        SELECT p_orders[n], 1, 'AWAITING_PAYMENT', v_now FROM unnest(v_accepted) AS n;

        INSERT INTO stock_movement (id, kind, quantity, product_id, flash_sale_id, order_id, at)
        SELECT p_movements[n], 'RESERVED', -p_quantities[n], s.product_id, s.id, p_orders[n], v_now
          FROM unnest(v_accepted) AS n
         CROSS JOIN LATERAL (SELECT * FROM flash_sale WHERE id = p_sales[n] LIMIT 1) s;

        INSERT INTO stock_unit AS u (sale_id, seq, order_id)
        SELECT * FROM unnest(v_unit_sales, v_units, v_owners)
            ON CONFLICT (sale_id, seq) DO UPDATE SET order_id = excluded.order_id WHERE u.order_id IS NULL;
        GET DIAGNOSTICS v_changed = ROW_COUNT;
        IF v_changed <> cardinality(v_units) THEN
            RAISE EXCEPTION 'buy_now: % units were locked and % changed', cardinality(v_units), v_changed;
        END IF;

        INSERT INTO purchase_quota AS q (sale_id, customer_id, held, purchase_limit, orders)
        SELECT p_sales[n], p_customers[n], p_quantities[n], s.per_customer_limit, 1
          FROM unnest(v_accepted) AS n
         CROSS JOIN LATERAL (SELECT per_customer_limit FROM flash_sale WHERE id = p_sales[n] LIMIT 1) s
            ON CONFLICT (sale_id, customer_id) DO UPDATE SET held = q.held + excluded.held, orders = q.orders + 1;

        INSERT INTO sale_counter (sale_id, slot, claimed, orders)
        SELECT p_sales[n], p_slot, sum(p_quantities[n]), count(*)
          FROM unnest(v_accepted) AS n
         GROUP BY p_sales[n]
         ORDER BY p_sales[n]
            ON CONFLICT (sale_id, slot) DO UPDATE
               SET claimed = sale_counter.claimed + excluded.claimed, orders = sale_counter.orders + excluded.orders;

        SELECT array_agg(jsonb_build_object('v', 1, 'kind', 'pay', 'id', p_orders[n], 'trace', p_traces[n])) INTO v_messages
          FROM unnest(v_accepted) AS n;
        PERFORM pgmq.send_batch('payment', v_messages);
    END IF;

    RETURN QUERY
        SELECT x.outcome, x.order_id, o.created_at + make_interval(secs => s.hold_seconds), o.total_minor, o.currency,
               o.address_id, o.created_at, x.mark, x.held, s.per_customer_limit, x.remaining
          FROM unnest(v_outcomes, v_answers, v_held, v_remaining, v_marks, p_sales) WITH ORDINALITY
               AS x (outcome, order_id, held, remaining, mark, sale_id, n)
          LEFT JOIN LATERAL (SELECT * FROM orders WHERE id = x.order_id LIMIT 1) o ON true
          LEFT JOIN LATERAL (SELECT * FROM flash_sale WHERE id = x.sale_id LIMIT 1) s ON true
         ORDER BY x.n;
END
$$;
