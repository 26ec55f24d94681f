-- Why:   a customer moves to another e-mail address: the link's token remembers, sealed, which one. A customer goes: what is personal is
--        erased, the orders stay.
-- Locks: ALTER TABLE on one_time_token, customer and address, for as long as it takes to read each once.
-- Undo:  the down file drops what is new, while no account has been deleted: what is erased does not come back.
ALTER TABLE one_time_token ADD COLUMN new_email_sealed bytea;
ALTER TABLE one_time_token ADD CONSTRAINT one_time_token_new_email CHECK ((purpose = 'CHANGE_EMAIL') = (new_email_sealed IS NOT NULL));

-- A customer who goes is erased; the row stays, because orders point at it.
ALTER TABLE customer
    ADD COLUMN deleted_at timestamptz,
    ALTER COLUMN email_sealed DROP NOT NULL,
    ALTER COLUMN email_index DROP NOT NULL,
    ALTER COLUMN name_sealed DROP NOT NULL,
    ALTER COLUMN password_hash DROP NOT NULL,
    ADD CONSTRAINT customer_erased CHECK (CASE
        WHEN deleted_at IS NULL THEN num_nulls(email_sealed, name_sealed, password_hash) = 0
        ELSE num_nonnulls(email_sealed, name_sealed, phone_sealed, password_hash, email_verified_at) = 0
    END),
    ADD CONSTRAINT customer_email_indexed CHECK ((deleted_at IS NULL) = (email_index IS NOT NULL));
ALTER TABLE address
    ALTER COLUMN content_sealed DROP NOT NULL,
    ADD CONSTRAINT address_content_while_it_stands CHECK (content_sealed IS NOT NULL OR retired_at IS NOT NULL);

-- Keeps a customer from buying until the transaction ends. False, with nothing locked, when a purchase or a change of one of their
-- orders is under way.
--
-- A first purchase in a sale makes its quota row, which nobody else sees before it commits: so this makes a row of its own in every
-- sale that is on or to come, and waits for one that is just being made. A purchase that comes later waits for this transaction, and then
-- reads the customer anew. A sale that has just closed may have a purchase under way still.
CREATE FUNCTION lock_purchases(p_customer uuid) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '500ms'
AS $$
BEGIN
    PERFORM id FROM orders WHERE customer_id = p_customer ORDER BY id FOR UPDATE NOWAIT;
    INSERT INTO purchase_quota (sale_id, customer_id, held, purchase_limit)
    SELECT id, p_customer, 0, per_customer_limit
      FROM flash_sale
     WHERE cancelled_at IS NULL AND closes_at > clock_timestamp() - interval '1 minute'
     ORDER BY id
        ON CONFLICT DO NOTHING;
    PERFORM held FROM purchase_quota WHERE customer_id = p_customer ORDER BY sale_id FOR UPDATE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
