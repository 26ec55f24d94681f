-- Why:   wishlists, and mails to those who wish for a product when a sale of it is scheduled and shortly before it opens. A mail about a
--        sale is written once per customer, sale and kind, whoever writes it and however often the writer is killed. Many may wait to be
--        sent: whoever deletes an account finds the customer's by an index, in place of one that no statement uses.
-- Locks: new tables; ALTER TABLE on mail for an instant; its writers wait while each of two new indexes reads the table once.
-- Undo:  the down file drops what is new.

-- No foreign key to product, as in cart_line.
CREATE TABLE wishlist_item (
    id             uuid        PRIMARY KEY,
    customer_id    uuid        NOT NULL REFERENCES customer (id),
    product_id     uuid        NOT NULL,
    note_sealed    bytea,
    notify_on_sale boolean     NOT NULL,
    added_at       timestamptz NOT NULL,
    CONSTRAINT wishlist_item_product_once UNIQUE (customer_id, product_id)
);
CREATE INDEX wishlist_item_newest ON wishlist_item (customer_id, added_at DESC, id DESC);
-- Whom to write to, in the order in which it is done.
CREATE INDEX wishlist_item_notified ON wishlist_item (product_id, customer_id) WHERE notify_on_sale;

ALTER TABLE mail ADD COLUMN sale_id uuid;
DROP INDEX mail_unsent;
CREATE INDEX mail_unsent_customer ON mail (customer_id) WHERE sent_at IS NULL;
CREATE UNIQUE INDEX mail_sale_once ON mail (sale_id, kind, customer_id) WHERE sale_id IS NOT NULL;

-- How far the mails of a sale are written.
CREATE TABLE sale_notice (
    sale_id       uuid        NOT NULL REFERENCES flash_sale (id),
    kind          text        NOT NULL CONSTRAINT sale_notice_kind_known CHECK (kind IN ('SCHEDULED', 'OPENING')),
    -- Everybody up to this one has been written to.
    last_customer uuid,
    finished_at   timestamptz,
    PRIMARY KEY (sale_id, kind)
);
