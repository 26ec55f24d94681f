DROP FUNCTION hold_ends_at;
DROP TABLE payment_pause;
DROP TABLE lease;
