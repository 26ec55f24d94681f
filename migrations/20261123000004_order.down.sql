DROP TABLE dead_letter;
DROP TABLE stock_movement;
DROP TABLE payment;
DROP TABLE order_event;
DROP TABLE order_line;
DROP TABLE orders;
