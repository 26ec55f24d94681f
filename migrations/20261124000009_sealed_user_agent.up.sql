-- Why:   what a browser tells about itself may tell who uses it, so it is sealed as well. What stands there in clear is forgotten;
--        user_agent stays for programs of the earlier release, and is dropped in a later one.
-- Locks: the rows of sessions that have one. Undo: the down file drops the new column.
ALTER TABLE session ADD COLUMN user_agent_sealed bytea;
UPDATE session SET user_agent = NULL WHERE user_agent IS NOT NULL;
