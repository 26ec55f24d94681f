-- Why:   what staff do with the catalogue: categories that move and never end up below themselves; sales that are called off for a
--        reason; units that go back to the ordinary stock once nobody can buy them in their sale any more; movements listed by time.
-- Locks: ALTER TABLE on flash_sale and category for an instant, on stock_movement for as long as it takes to read it once; the two
--        indexes keep writers of their table out while they are made.
-- Undo:  the down file drops what is new.
ALTER TABLE flash_sale
    ADD COLUMN cancel_reason     text CONSTRAINT flash_sale_cancel_reason_length CHECK (length(cancel_reason) BETWEEN 1 AND 200),
    ADD COLUMN units_returned_at timestamptz;
COMMENT ON COLUMN flash_sale.units_returned_at IS
    'The sale is over and no unit of it is free: those went back to the ordinary stock. A unit that comes back later goes there at once.';
CREATE INDEX flash_sale_not_returned ON flash_sale (closes_at) WHERE units_returned_at IS NULL;

-- Whether no unit of the sale is free, and, when it was cancelled, no order with units of it is to be called off any more. One that is in
-- review may go back to where it was.
CREATE FUNCTION is_emptied(s flash_sale) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (SELECT FROM stock_unit u WHERE u.sale_id = s.id AND u.order_id IS NULL)
       AND (s.cancelled_at IS NULL
            OR NOT EXISTS (SELECT FROM stock_unit u JOIN orders o ON o.id = u.order_id
                            WHERE u.sale_id = s.id
                              AND CASE o.status WHEN 'IN_REVIEW' THEN o.status_before_review ELSE o.status END
                                  IN ('AWAITING_PAYMENT', 'EXPIRING', 'PAID', 'PREPARING')))
$$;

ALTER TABLE stock_movement ADD CONSTRAINT stock_movement_reason_length CHECK (length(reason) BETWEEN 1 AND 200);
CREATE INDEX stock_movement_newest ON stock_movement (at DESC, id DESC);

CREATE FUNCTION refuse_category_cycle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Two moves at once would not see each other: the second one waits here until the first has ended, and looks then.
    PERFORM pg_advisory_xact_lock(hashtext('category tree'));
    IF EXISTS (
        WITH RECURSIVE above AS (
            SELECT c.id, c.parent_id FROM category c WHERE c.id = NEW.parent_id
             UNION
            SELECT c.id, c.parent_id FROM category c JOIN above a ON c.id = a.parent_id
        )
        SELECT FROM above WHERE id = NEW.id
    ) THEN
        RAISE EXCEPTION 'category % would be below itself', NEW.id
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'category_no_cycle';
    END IF;
    RETURN NULL;
END
$$;
-- A new category has none below it.
CREATE TRIGGER refuse_category_cycle AFTER UPDATE OF parent_id ON category
    FOR EACH ROW WHEN (NEW.parent_id IS DISTINCT FROM OLD.parent_id AND NEW.parent_id IS NOT NULL)
    EXECUTE FUNCTION refuse_category_cycle();
