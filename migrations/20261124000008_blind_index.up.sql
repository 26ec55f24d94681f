-- Why:   the key of the blind index can be changed while the service runs. The key's number decides the column: odd ones live in
--        email_index, even ones here, so that for a while both stand; `keys rotate` fills the one and empties the other.
-- Locks: customer, for as long as it takes to read the table once (a check, and an index without a row in it). Undo: the down file,
--        while no customer is indexed by an even key alone.
ALTER TABLE customer
    ADD COLUMN email_index_even bytea
        CONSTRAINT customer_email_index_even_unique UNIQUE
        CONSTRAINT customer_email_index_even_length CHECK (octet_length(email_index_even) = 32),
    DROP CONSTRAINT customer_email_indexed,
    ADD CONSTRAINT customer_email_indexed CHECK ((deleted_at IS NULL) = (num_nonnulls(email_index, email_index_even) > 0));
