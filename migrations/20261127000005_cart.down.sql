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

DROP TABLE cart_line;
DROP FUNCTION is_open(flash_sale, timestamptz);
