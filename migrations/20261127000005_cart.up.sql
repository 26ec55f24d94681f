-- Why:   carts. A cart has no row of its own: it is there with its customer. And `claim_order` takes whole carts, so it locks all quotas
--        before the first unit, and counters last, as `release_units` does: a cart with lines of two sales must not wait for
--        somebody who waits for it.
-- Locks: a new table and a function; the other function is replaced in an instant.
-- Undo:  the down file puts the former `claim_order` back and drops what is new.

-- Whether units of the sale can be bought at that moment, as far as the clock decides.
CREATE FUNCTION is_open(s flash_sale, at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN s.cancelled_at IS NULL AND s.units_ready_at IS NOT NULL AND at >= s.opens_at AND at < s.closes_at;

-- No foreign key to product: who checks it locks the row that everybody shares. Products are never deleted (refuse_deletion).
CREATE TABLE cart_line (
    id                 uuid        PRIMARY KEY,
    customer_id        uuid        NOT NULL REFERENCES customer (id),
    product_id         uuid        NOT NULL,
    quantity           integer     NOT NULL CONSTRAINT cart_line_quantity_range CHECK (quantity BETWEEN 1 AND 999),
    -- What a piece cost when the customer last said how many.
    agreed_price_minor bigint      NOT NULL CONSTRAINT cart_line_price_positive CHECK (agreed_price_minor > 0),
    CONSTRAINT cart_line_product_once UNIQUE (customer_id, product_id)
);

-- Takes everything that an order's lines ask for, or nothing: the caller rolls back when the answer is not CLAIMED.
--   CLAIMED, OUT_OF_STOCK, LIMIT_REACHED, NOT_OPEN, CONTENDED
-- p_is_new counts the order with its sales; one that claims anew is counted already. p_needs_open is false for money that came late:
-- then only units decide.
-- Locks: the order's row is the caller's; then quotas by sale, units by SKIP LOCKED, products by id, counters by sale.
CREATE OR REPLACE FUNCTION claim_order(p_order uuid, p_slot smallint, p_is_new boolean, p_needs_open boolean, p_at timestamptz) RETURNS text
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
    INSERT INTO purchase_quota (sale_id, customer_id, held, purchase_limit)
    SELECT id, v_customer, 0, per_customer_limit
      FROM flash_sale
     WHERE id IN (SELECT flash_sale_id FROM order_line WHERE order_id = p_order)
     ORDER BY id
        ON CONFLICT DO NOTHING;
    PERFORM held
       FROM purchase_quota
      WHERE customer_id = v_customer AND sale_id IN (SELECT flash_sale_id FROM order_line WHERE order_id = p_order)
      ORDER BY sale_id
        FOR UPDATE;

    FOR r IN
        SELECT flash_sale_id, sum(quantity)::integer AS quantity
          FROM order_line WHERE order_id = p_order AND flash_sale_id IS NOT NULL GROUP BY 1 ORDER BY 1
    LOOP
        SELECT * INTO s FROM flash_sale WHERE id = r.flash_sale_id;
        IF s.cancelled_at IS NOT NULL OR s.units_ready_at IS NULL
           OR (p_needs_open AND (clock_timestamp() < s.opens_at OR clock_timestamp() >= s.closes_at)) THEN
            RETURN 'NOT_OPEN';
        END IF;
        SELECT * INTO q FROM purchase_quota WHERE sale_id = s.id AND customer_id = v_customer;
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

    INSERT INTO sale_counter (sale_id, slot, claimed, orders)
    SELECT flash_sale_id, p_slot, sum(quantity), p_is_new::integer
      FROM order_line WHERE order_id = p_order AND flash_sale_id IS NOT NULL GROUP BY 1 ORDER BY 1
        ON CONFLICT (sale_id, slot) DO UPDATE
           SET claimed = sale_counter.claimed + excluded.claimed, orders = sale_counter.orders + excluded.orders;

    INSERT INTO stock_movement (id, kind, quantity, product_id, flash_sale_id, order_id, at)
    SELECT gen_random_uuid(), 'RESERVED', -quantity, product_id, flash_sale_id, order_id, p_at
      FROM order_line WHERE order_id = p_order;
    RETURN 'CLAIMED';
END
$$;
