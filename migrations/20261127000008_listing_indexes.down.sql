DROP INDEX product_newest;
CREATE INDEX product_newest ON product (created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX product_category ON product (category_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
DROP INDEX product_archived;
DROP INDEX product_category_title;
DROP INDEX product_category_price;
DROP INDEX product_category_newest;
