-- Why:   settings of the tables that a sale changes most, as measured (docs/adr/0012): room on the page for the second version of
--        a quota, and cleaning that does not wait for a fifth of a large table.
-- Locks: a short SHARE UPDATE EXCLUSIVE lock on each table, which no purchase waits for.
-- Undo:  the down file goes back to the server's defaults.
ALTER TABLE purchase_quota SET (fillfactor = 50);
ALTER TABLE stock_unit SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE orders SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE payment SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
-- A queue is small when all is well, and then nothing but dead rows.
ALTER TABLE pgmq.q_payment SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE pgmq.q_mail SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
