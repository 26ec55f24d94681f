-- Why:   a product that was imported is known by the key that its source gives it, so that the next import updates it; and the units that
--        imports have put into its stock so far, so that the next one adds the difference and what was sold meanwhile stays sold.
-- Locks: product against everything, for as long as it takes to read it once. Undo: the down file drops both columns.
ALTER TABLE product
    ADD COLUMN import_key text CONSTRAINT product_import_key_length CHECK (octet_length(import_key) BETWEEN 1 AND 1000),
    ADD COLUMN import_quantity integer NOT NULL DEFAULT 0 CONSTRAINT product_import_quantity_not_negative CHECK (import_quantity >= 0),
    ADD CONSTRAINT product_import_key_unique UNIQUE (import_key);
