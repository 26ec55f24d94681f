-- Why:   the page cache must hear of every change of what its pages show, whoever made it: a mutation, an import, seed, SQL by
--        hand. Triggers write what has changed, in the transaction that changes it; every server reads what it has not seen yet
--        (docs/adr/0020). Rows are only added, never updated, so that no writer waits for another one, and the id of the
--        transaction tells a reader what it missed in spite of commits out of order. Stock and units are not written down: a
--        purchase costs nothing here, and pages that show them live a second.
-- Locks: product, category and flash_sale for a moment each (SHARE ROW EXCLUSIVE), to add their triggers. Programs of before
--        work on: the triggers are theirs too. Undo: the down file drops them.
CREATE TABLE page_change (
    kind       text        NOT NULL CONSTRAINT page_change_kind CHECK
                           (kind IN ('PRODUCT', 'PRODUCTS', 'CATEGORY', 'CATEGORIES', 'FLASH_SALE', 'FLASH_SALES')),
    -- All zeros for a whole list.
    id         uuid        NOT NULL,
    changed_in xid8        NOT NULL DEFAULT pg_current_xact_id(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX page_change_changed_in ON page_change (changed_in);

-- The lists that show products of these categories: theirs, those of every category above, and the whole one.
CREATE FUNCTION product_lists(categories uuid[]) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE above AS (
        SELECT c.id, c.parent_id FROM category c WHERE c.id = ANY(categories)
        UNION
        SELECT c.id, c.parent_id FROM category c JOIN above a ON c.id = a.parent_id
    )
    SELECT id FROM above
    UNION ALL
    SELECT '00000000-0000-0000-0000-000000000000'::uuid WHERE cardinality(categories) > 0
$$;

CREATE FUNCTION note_new_products() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO page_change (kind, id) SELECT 'PRODUCTS', l FROM product_lists(ARRAY(SELECT DISTINCT category_id FROM after)) l;
    RETURN NULL;
END
$$;

-- Of a product everything counts but `available` and `updated_at`, which moves with it.
CREATE FUNCTION note_changed_products() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_products uuid[];
    v_categories uuid[];
BEGIN
    SELECT array_agg(a.id), array_agg(a.category_id) || array_agg(b.category_id)
      INTO v_products, v_categories
      FROM before b
      JOIN after a USING (id)
     WHERE (a.category_id, a.title, a.description, a.images, a.price_minor, a.currency, a.archived_at, a.created_at)
           IS DISTINCT FROM (b.category_id, b.title, b.description, b.images, b.price_minor, b.currency, b.archived_at, b.created_at);
    IF v_products IS NOT NULL THEN
        INSERT INTO page_change (kind, id)
        SELECT 'PRODUCT', p FROM unnest(v_products) p
        UNION ALL
        SELECT 'PRODUCTS', l FROM product_lists(v_categories) l;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER note_new_products AFTER INSERT ON product
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION note_new_products();
CREATE TRIGGER note_changed_products AFTER UPDATE ON product
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION note_changed_products();

-- A category shows its children, so that its parent changes with it. Where one is moved or taken away, products are as well.
CREATE FUNCTION note_changed_category() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD IS NOT DISTINCT FROM NEW THEN
        RETURN NULL;
    END IF;
    INSERT INTO page_change (kind, id)
    SELECT DISTINCT 'CATEGORY', c FROM unnest(ARRAY[OLD.id, NEW.id, OLD.parent_id, NEW.parent_id]) c WHERE c IS NOT NULL
    UNION ALL
    SELECT 'CATEGORIES', '00000000-0000-0000-0000-000000000000'
     WHERE (OLD.id IS NOT NULL AND OLD.parent_id IS NULL) OR (NEW.id IS NOT NULL AND NEW.parent_id IS NULL)
    UNION ALL
    SELECT 'PRODUCTS', l FROM product_lists(ARRAY[OLD.id, OLD.parent_id, NEW.parent_id]) l
     WHERE OLD.id IS NOT NULL AND (OLD.parent_id IS DISTINCT FROM NEW.parent_id OR NEW.id IS NULL);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_changed_category AFTER INSERT OR UPDATE OR DELETE ON category
    FOR EACH ROW EXECUTE FUNCTION note_changed_category();

CREATE FUNCTION note_changed_flash_sale() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD IS NOT DISTINCT FROM NEW THEN
        RETURN NULL;
    END IF;
    INSERT INTO page_change (kind, id)
    VALUES ('FLASH_SALE', NEW.id), ('PRODUCT', NEW.product_id), ('FLASH_SALES', '00000000-0000-0000-0000-000000000000');
    RETURN NULL;
END
$$;
CREATE TRIGGER note_changed_flash_sale AFTER INSERT OR UPDATE ON flash_sale
    FOR EACH ROW EXECUTE FUNCTION note_changed_flash_sale();
