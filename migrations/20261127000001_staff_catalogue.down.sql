DROP TRIGGER refuse_category_cycle ON category;
DROP FUNCTION refuse_category_cycle();
DROP INDEX stock_movement_newest;
ALTER TABLE stock_movement DROP CONSTRAINT stock_movement_reason_length;
DROP FUNCTION is_emptied(flash_sale);
DROP INDEX flash_sale_not_returned;
ALTER TABLE flash_sale DROP COLUMN units_returned_at, DROP COLUMN cancel_reason;
