-- Why:   a sale with the sums of its counters, and the rule of its phase for filters. The same rule stands in
--        src/domain/flash_sale.rs; a test compares the two.
-- Locks: none. Undo: the down file drops them.
CREATE VIEW flash_sale_live AS
SELECT s.*, coalesce(c.claimed, 0) AS claimed, coalesce(c.sold, 0) AS sold, coalesce(c.orders, 0) AS orders
  FROM flash_sale s
  LEFT JOIN LATERAL (SELECT sum(claimed) AS claimed, sum(sold) AS sold, sum(orders) AS orders FROM sale_counter WHERE sale_id = s.id) c ON true;

CREATE FUNCTION flash_sale_phase(s flash_sale_live, at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN s.cancelled_at IS NOT NULL THEN 'CANCELLED'
    WHEN at >= s.closes_at THEN 'CLOSED'
    WHEN at < s.opens_at OR s.units_ready_at IS NULL THEN 'SCHEDULED'
    WHEN s.claimed < s.total_units THEN 'OPEN'
    WHEN s.claimed > s.sold THEN 'SOLD_OUT_HOLDS_PENDING'
    ELSE 'SOLD_OUT'
END;
