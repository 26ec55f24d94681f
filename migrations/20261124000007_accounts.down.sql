DROP FUNCTION lock_purchases(uuid);
ALTER TABLE address DROP CONSTRAINT address_content_while_it_stands, ALTER COLUMN content_sealed SET NOT NULL;
ALTER TABLE customer
    DROP CONSTRAINT customer_email_indexed,
    DROP COLUMN deleted_at,
    ALTER COLUMN email_sealed SET NOT NULL,
    ALTER COLUMN email_index SET NOT NULL,
    ALTER COLUMN name_sealed SET NOT NULL,
    ALTER COLUMN password_hash SET NOT NULL;
DELETE FROM one_time_token WHERE purpose = 'CHANGE_EMAIL';
ALTER TABLE one_time_token DROP COLUMN new_email_sealed;
