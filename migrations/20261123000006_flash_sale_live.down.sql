DROP FUNCTION flash_sale_phase;
DROP VIEW flash_sale_live;
