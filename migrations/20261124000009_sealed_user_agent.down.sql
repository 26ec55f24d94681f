ALTER TABLE session DROP COLUMN user_agent_sealed;
