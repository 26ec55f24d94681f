ALTER TABLE customer
    ALTER COLUMN email_index SET NOT NULL,
    DROP COLUMN email_index_even;
