ALTER TABLE pgmq.q_mail RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
ALTER TABLE pgmq.q_payment RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
ALTER TABLE payment RESET (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor);
ALTER TABLE orders RESET (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor);
ALTER TABLE stock_unit RESET (autovacuum_vacuum_scale_factor);
ALTER TABLE purchase_quota RESET (fillfactor);
