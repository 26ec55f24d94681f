ALTER TABLE customer
    DROP CONSTRAINT customer_email_indexed,
    ADD CONSTRAINT customer_email_indexed CHECK ((deleted_at IS NULL) = (email_index IS NOT NULL)),
    DROP COLUMN email_index_even;
