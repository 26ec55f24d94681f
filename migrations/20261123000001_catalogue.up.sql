-- Why:   the catalogue: categories as a tree, products with their ordinary stock.
-- Locks: none that matter, the tables are new. Undo: the down file drops them.
--
-- Everything after this file may use pgmq, which `whitemonday migrate run` installs first from the SQL that the
-- pgmq crate carries. A plain `sqlx migrate run` on an empty database must say so instead of failing half-way.
DO $$
BEGIN
    IF to_regprocedure('pgmq.create(text)') IS NULL THEN
        RAISE EXCEPTION 'pgmq is not installed in this database'
            USING HINT = 'Run `whitemonday migrate run` once: it installs pgmq and its queues, then these migrations.';
    END IF;
END
$$;

CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE category (
    id         uuid        PRIMARY KEY,
    parent_id  uuid        REFERENCES category (id),
    slug       text        NOT NULL CONSTRAINT category_slug_unique UNIQUE
                           CONSTRAINT category_slug_form CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 80),
    name       text        NOT NULL CONSTRAINT category_name_length CHECK (length(name) BETWEEN 1 AND 120),
    created_at timestamptz NOT NULL,
    CONSTRAINT category_not_its_own_parent CHECK (parent_id <> id)
);
CREATE INDEX category_parent ON category (parent_id);

CREATE TABLE product (
    id          uuid        PRIMARY KEY,
    category_id uuid        REFERENCES category (id),
    title       text        NOT NULL CONSTRAINT product_title_length CHECK (length(title) BETWEEN 1 AND 255),
    description text        NOT NULL CONSTRAINT product_description_length CHECK (length(description) <= 20000),
    images      text[]      NOT NULL DEFAULT '{}' CONSTRAINT product_images_count CHECK (cardinality(images) <= 20),
    price_minor bigint      NOT NULL CONSTRAINT product_price_positive CHECK (price_minor > 0),
    currency    text        NOT NULL CONSTRAINT product_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    -- Units that can be bought outside a flash sale; each change has its row in stock_movement.
    available   integer     NOT NULL CONSTRAINT product_available_not_negative CHECK (available >= 0),
    archived_at timestamptz,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
-- One index per sort of the listing; the id breaks ties, so that a keyset cursor is never ambiguous.
CREATE INDEX product_newest ON product (created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX product_price ON product (price_minor, id) WHERE archived_at IS NULL;
CREATE INDEX product_title ON product (title, id) WHERE archived_at IS NULL;
CREATE INDEX product_category ON product (category_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
