-- Why:   flash sales. One row per unit, so that a unit can belong to one order at most by construction, and so that
--        buyers lock different rows instead of queueing at a counter.
-- Locks: new tables only. Undo: the down file drops them.
CREATE TABLE flash_sale (
    id                 uuid        PRIMARY KEY,
    product_id         uuid        NOT NULL REFERENCES product (id),
    price_minor        bigint      NOT NULL CONSTRAINT flash_sale_price_positive CHECK (price_minor > 0),
    currency           text        NOT NULL CONSTRAINT flash_sale_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    opens_at           timestamptz NOT NULL,
    closes_at          timestamptz NOT NULL,
    total_units        integer     NOT NULL CONSTRAINT flash_sale_units_range CHECK (total_units BETWEEN 1 AND 10000000),
    per_customer_limit integer     NOT NULL CONSTRAINT flash_sale_limit_range CHECK (per_customer_limit BETWEEN 1 AND 999),
    hold_seconds       integer     NOT NULL CONSTRAINT flash_sale_hold_range CHECK (hold_seconds BETWEEN 30 AND 86400),
    -- Set when all unit rows are there: a sale does not open before.
    units_ready_at     timestamptz,
    cancelled_at       timestamptz,
    created_at         timestamptz NOT NULL,
    CONSTRAINT flash_sale_window CHECK (closes_at > opens_at),
    -- One sale of a product at a time.
    CONSTRAINT flash_sale_no_overlap EXCLUDE USING gist (product_id WITH =, tstzrange(opens_at, closes_at) WITH &&)
        WHERE (cancelled_at IS NULL)
);
CREATE INDEX flash_sale_opening ON flash_sale (opens_at, id);
CREATE INDEX flash_sale_closing ON flash_sale (closes_at) WHERE cancelled_at IS NULL;

-- The tables that a purchase writes have no foreign keys to sales, products, customers and addresses: each check would lock
-- the one row that all buyers share, from many transactions at once, and cost more than the insert itself. The purchase reads
-- those rows in its own transaction; what keeps the references true is that such rows are never deleted (refuse_deletion).
CREATE TABLE stock_unit (
    sale_id  uuid    NOT NULL,
    seq      integer NOT NULL CONSTRAINT stock_unit_seq_positive CHECK (seq > 0),
    -- No foreign key: checking it costs as much as the claim itself. The audit compares both directions (I2, I3).
    order_id uuid,
    PRIMARY KEY (sale_id, seq)
);
CREATE INDEX stock_unit_free ON stock_unit (sale_id, seq) WHERE order_id IS NULL;
CREATE INDEX stock_unit_order ON stock_unit (order_id) WHERE order_id IS NOT NULL;

-- What a customer holds or has bought in a sale. It carries its own copy of the limit, so that a CHECK keeps the
-- limit over all orders and all processes.
CREATE TABLE purchase_quota (
    sale_id        uuid    NOT NULL,
    customer_id    uuid    NOT NULL,
    held           integer NOT NULL,
    purchase_limit integer NOT NULL,
    -- Orders ever made: who has one may have lost the answer and must never be told "sold out" without a look.
    orders         integer NOT NULL DEFAULT 0 CONSTRAINT purchase_quota_orders_not_negative CHECK (orders >= 0),
    PRIMARY KEY (sale_id, customer_id),
    CONSTRAINT purchase_quota_within_limit CHECK (held BETWEEN 0 AND purchase_limit)
);
CREATE INDEX purchase_quota_customer ON purchase_quota (customer_id);

-- Units taken from the free ones (`claimed`), units paid for (`sold`) and orders ever made, summed over the slots. Each writer adds to a slot
-- of its own, so that nobody waits for a counter; a slot may be negative, only the sum means something.
CREATE TABLE sale_counter (
    sale_id uuid     NOT NULL,
    slot    smallint NOT NULL,
    claimed integer  NOT NULL DEFAULT 0,
    sold    integer  NOT NULL DEFAULT 0,
    orders  integer  NOT NULL DEFAULT 0,
    PRIMARY KEY (sale_id, slot)
);

-- Products are archived, sales cancelled, customers erased and addresses retired; none of them is ever deleted.
CREATE FUNCTION refuse_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never deleted', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER refuse_deletion BEFORE DELETE OR TRUNCATE ON product EXECUTE FUNCTION refuse_deletion();
CREATE TRIGGER refuse_deletion BEFORE DELETE OR TRUNCATE ON flash_sale EXECUTE FUNCTION refuse_deletion();
CREATE TRIGGER refuse_deletion BEFORE DELETE OR TRUNCATE ON customer EXECUTE FUNCTION refuse_deletion();
CREATE TRIGGER refuse_deletion BEFORE DELETE OR TRUNCATE ON address EXECUTE FUNCTION refuse_deletion();
