-- Why:   a product that was imported is known by the key that its source gives it, so that the next import updates it; and the quantity
--        that the source told last, so that the next one changes the stock by the difference and what was sold meanwhile stays sold.
-- Locks: product against everything, for a moment: the columns are empty. Undo: the down file drops them.
ALTER TABLE product
    ADD COLUMN import_key text CONSTRAINT product_import_key_length CHECK (length(import_key) BETWEEN 1 AND 1000),
    ADD COLUMN import_quantity integer CONSTRAINT product_import_quantity_not_negative CHECK (import_quantity >= 0),
    ADD CONSTRAINT product_import_key_unique UNIQUE (import_key);
