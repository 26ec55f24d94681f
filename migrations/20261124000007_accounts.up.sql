-- Why:   a customer moves to another e-mail address: the link's token remembers, sealed, which one.
-- Locks: ALTER TABLE on one_time_token, for as long as it takes to read it once.
-- Undo:  the down file drops what is new.
ALTER TABLE one_time_token ADD COLUMN new_email_sealed bytea;
ALTER TABLE one_time_token ADD CONSTRAINT one_time_token_new_email CHECK ((purpose = 'CHANGE_EMAIL') = (new_email_sealed IS NOT NULL));
