DROP TABLE sale_notice;
DROP INDEX mail_sale_once;
DROP INDEX mail_unsent_customer;
CREATE INDEX mail_unsent ON mail (created_at) WHERE sent_at IS NULL;
ALTER TABLE mail DROP COLUMN sale_id;
DROP TABLE wishlist_item;
