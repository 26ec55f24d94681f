DROP TABLE sale_notice;
DROP INDEX mail_sale_once;
ALTER TABLE mail DROP COLUMN sale_id;
DROP TABLE wishlist_item;
