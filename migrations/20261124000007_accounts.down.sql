DELETE FROM one_time_token WHERE purpose = 'CHANGE_EMAIL';
ALTER TABLE one_time_token DROP COLUMN new_email_sealed;
