DROP FUNCTION hold_ends_at(orders);
