CREATE INDEX product_category ON product (category_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
