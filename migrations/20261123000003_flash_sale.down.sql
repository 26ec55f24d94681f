DROP TRIGGER refuse_deletion ON address;
DROP TRIGGER refuse_deletion ON customer;
DROP TRIGGER refuse_deletion ON product;
DROP TABLE sale_counter;
DROP TABLE purchase_quota;
DROP TABLE stock_unit;
DROP TABLE flash_sale;
DROP FUNCTION refuse_deletion;
