ALTER TABLE product DROP COLUMN import_key, DROP COLUMN import_quantity;
