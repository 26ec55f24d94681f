DROP TABLE sale_counter;
DROP TABLE purchase_quota;
DROP TABLE stock_unit;
DROP TABLE flash_sale;
