//! The invariants that must hold at every moment, as SQL that counts the rows which break them.

use std::time::Duration;

use sqlx::PgConnection;

use super::StoreError;

/// One invariant: the name in docs and alerts, what it says, and the statement that counts its violations.
pub struct Invariant {
    pub name: &'static str,
    pub description: &'static str,
    sql: &'static str,
}

/// All invariants. They look at one snapshot each, so they may run while the shop sells.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "I1",
        description: "Each sale has exactly its units, less those that went back to the ordinary stock, and its live and paid orders together no more than all",
        sql: "SELECT count(*) FROM flash_sale s
               WHERE s.units_ready_at IS NOT NULL
                 AND (s.total_units <> (SELECT count(*) FROM stock_unit u WHERE u.sale_id = s.id)
                                       + (SELECT coalesce(sum(m.quantity), 0) FROM stock_movement m
                                           WHERE m.flash_sale_id = s.id AND m.kind = 'DEALLOCATED')
                      OR s.total_units < (SELECT coalesce(sum(l.quantity), 0)
                                            FROM order_line l JOIN orders o ON o.id = l.order_id
                                           WHERE l.flash_sale_id = s.id
                                             AND o.status IN ('AWAITING_PAYMENT', 'EXPIRING', 'CANCELLING', 'PAID', 'PREPARING',
                                                              'SHIPPED', 'DELIVERED', 'RETURN_REQUESTED')))",
    },
    Invariant {
        name: "I2",
        description: "An order has as many units as its lines say, exactly while it is live or paid (a refunded one may keep them)",
        sql: "SELECT count(*)
                FROM order_line l
                JOIN orders o ON o.id = l.order_id
               WHERE l.flash_sale_id IS NOT NULL
                 AND o.status NOT IN ('IN_REVIEW', 'REFUNDING', 'REFUNDED', 'PARTLY_REFUNDED')
                 AND (SELECT count(*) FROM stock_unit u WHERE u.order_id = l.order_id AND u.sale_id = l.flash_sale_id)
                     <> CASE WHEN o.status IN ('AWAITING_PAYMENT', 'EXPIRING', 'CANCELLING', 'PAID', 'PREPARING', 'SHIPPED',
                                               'DELIVERED', 'RETURN_REQUESTED')
                             THEN l.quantity ELSE 0 END",
    },
    Invariant {
        name: "I3",
        description: "Every taken unit belongs to an order that has a line of its sale",
        sql: "SELECT count(*) FROM stock_unit u
               WHERE u.order_id IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM order_line l WHERE l.order_id = u.order_id AND l.flash_sale_id = u.sale_id)",
    },
    Invariant {
        name: "I4",
        description: "At most one payment of an order is captured, and a paid order has one over its total",
        sql: "SELECT count(*) FROM orders o
               WHERE o.status IN ('PAID', 'PREPARING', 'SHIPPED', 'DELIVERED', 'RETURN_REQUESTED')
                 AND (SELECT count(*) FROM payment p
                       WHERE p.order_id = o.id AND p.status IN ('CAPTURED', 'PARTLY_REFUNDED', 'REFUNDED')
                         AND p.amount_minor = o.total_minor AND p.currency = o.currency) <> 1",
    },
    Invariant {
        name: "I5",
        description: "The provider's charges and our payments say the same, as far as the last comparisons looked",
        sql: "SELECT count(*) FROM reconciliation_break WHERE resolved_at IS NULL",
    },
    Invariant {
        name: "I6",
        description: "No order that failed or expired keeps money",
        sql: "SELECT count(*) FROM orders o JOIN payment p ON p.order_id = o.id
               WHERE o.status IN ('PAYMENT_FAILED', 'CANCELLED', 'EXPIRED') AND p.status IN ('CAPTURED', 'PARTLY_REFUNDED')",
    },
    Invariant {
        name: "I7",
        description: "Of each payment as much went back, and is on its way, as its refunds say, and no more than was captured",
        sql: "SELECT count(*) FROM payment p
                LEFT JOIN (SELECT payment_id, coalesce(sum(amount_minor) FILTER (WHERE status = 'SUCCEEDED'), 0) AS done,
                                  coalesce(sum(amount_minor) FILTER (WHERE status IN ('REQUESTED', 'UNKNOWN')), 0) AS asked
                             FROM refund GROUP BY 1) r ON r.payment_id = p.id
               WHERE p.refunded_minor <> coalesce(r.done, 0) OR p.refunding_minor <> coalesce(r.asked, 0)
                  OR p.refunded_minor + p.refunding_minor > p.amount_minor
                  OR p.status = 'REFUNDED' AND p.refunded_minor <> p.amount_minor",
    },
    Invariant {
        name: "I8",
        description: "Every open payment has its message, or a time to ask or to try again; every other open order has a hold that is not long over",
        sql: "SELECT count(*) FROM orders o
               WHERE o.status IN ('AWAITING_PAYMENT', 'EXPIRING')
                 AND CASE WHEN EXISTS (SELECT 1 FROM payment p
                                        WHERE p.order_id = o.id AND p.status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN'))
                          THEN NOT EXISTS (SELECT 1 FROM payment p WHERE p.order_id = o.id AND p.next_query_at IS NOT NULL)
                           AND o.id::text NOT IN (SELECT coalesce(m.message ->> 'id', '') FROM pgmq.q_payment m)
                           AND NOT EXISTS (SELECT 1 FROM retry t WHERE t.queue = 'payment' AND t.target_id = o.id AND t.due_at IS NOT NULL)
                          ELSE hold_ends_at(o) IS NULL OR hold_ends_at(o) < now() - interval '5 minutes' END",
    },
    Invariant {
        name: "I8R",
        description: "Every refund that is open has a message, a due time, or a dead letter; every order on its way back has such a refund or a payment that is still open",
        sql: "SELECT (SELECT count(*) FROM refund r
                       WHERE r.status IN ('REQUESTED', 'UNKNOWN')
                         AND NOT EXISTS (SELECT 1 FROM pgmq.q_compensation m WHERE m.message ->> 'id' = r.id::text)
                         AND NOT EXISTS (SELECT 1 FROM retry t WHERE t.queue = 'compensation' AND t.target_id = r.id AND t.due_at IS NOT NULL)
                         AND NOT EXISTS (SELECT 1 FROM dead_letter d WHERE d.queue = 'compensation' AND d.payload ->> 'id' = r.id::text))
                   + (SELECT count(*) FROM orders o
                       WHERE o.status IN ('CANCELLING', 'REFUNDING')
                         AND NOT EXISTS (SELECT 1 FROM refund r WHERE r.order_id = o.id AND r.status IN ('REQUESTED', 'UNKNOWN'))
                         AND NOT EXISTS (SELECT 1 FROM payment p WHERE p.order_id = o.id
                                          AND p.status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN')))",
    },
    Invariant {
        name: "I9",
        description: "The history of an order begins with version 1, never runs ahead of the order, and ends in its status",
        sql: "SELECT count(*) FROM orders o
                LEFT JOIN LATERAL (SELECT min(e.version) AS oldest, max(e.version) AS newest FROM order_event e WHERE e.order_id = o.id) h ON true
                LEFT JOIN order_event last ON last.order_id = o.id AND last.version = h.newest
               WHERE h.oldest IS DISTINCT FROM 1 OR h.newest > o.version OR last.status IS DISTINCT FROM o.status",
    },
    Invariant {
        name: "I10",
        description: "The counters of a sale equal a count of its units, of its orders, and of units whose order was paid for",
        sql: "SELECT count(*) FROM flash_sale_live s
               WHERE s.claimed <> (SELECT count(*) FROM stock_unit u WHERE u.sale_id = s.id AND u.order_id IS NOT NULL)
                  OR s.orders <> (SELECT count(*) FROM order_line l WHERE l.flash_sale_id = s.id)
                  OR s.sold <> (SELECT count(*) FROM stock_unit u
                                 WHERE u.sale_id = s.id
                                   AND EXISTS (SELECT 1 FROM payment p WHERE p.order_id = u.order_id
                                                AND p.status IN ('CAPTURED', 'PARTLY_REFUNDED', 'REFUNDED')))",
    },
    Invariant {
        name: "I11",
        description: "No customer holds more of a sale than the limit, and each quota equals the customer's units",
        sql: "SELECT count(*)
                FROM purchase_quota q
                LEFT JOIN (SELECT u.sale_id, o.customer_id, count(*) AS units
                             FROM stock_unit u JOIN orders o ON o.id = u.order_id GROUP BY 1, 2) u USING (sale_id, customer_id)
               WHERE q.held <> coalesce(u.units, 0) OR q.held > q.purchase_limit",
    },
    Invariant {
        name: "I12",
        description: "An order has as much ordinary stock as its lines say, exactly while it is live or paid (a refunded one may keep it)",
        sql: "SELECT count(*)
                FROM order_line l
                JOIN orders o ON o.id = l.order_id
               WHERE l.flash_sale_id IS NULL
                 AND o.status NOT IN ('IN_REVIEW', 'REFUNDING', 'REFUNDED', 'PARTLY_REFUNDED')
                 AND (SELECT coalesce(-sum(m.quantity), 0) FROM stock_movement m
                       WHERE m.order_id = l.order_id AND m.product_id = l.product_id AND m.flash_sale_id IS NULL)
                     <> CASE WHEN o.status IN ('AWAITING_PAYMENT', 'EXPIRING', 'CANCELLING', 'PAID', 'PREPARING', 'SHIPPED',
                                               'DELIVERED', 'RETURN_REQUESTED')
                             THEN l.quantity ELSE 0 END",
    },
    Invariant {
        name: "STOCK",
        description: "A product's ordinary stock equals the sum of its movements",
        sql: "SELECT count(*) FROM product p
               WHERE p.available <> (SELECT coalesce(sum(m.quantity), 0) FROM stock_movement m
                                      WHERE m.product_id = p.id AND (m.flash_sale_id IS NULL OR m.kind IN ('ALLOCATED', 'DEALLOCATED')))",
    },
];

/// The invariants as far as the newest orders tell: cheap at any size, for a look every second.
pub const SAMPLES: &[Invariant] = &[
    Invariant {
        name: "I1",
        description: "No sale's counters say more than its units",
        sql: "SELECT count(*) FROM flash_sale_live s WHERE s.claimed NOT BETWEEN 0 AND s.total_units",
    },
    Invariant {
        name: "I2",
        description: "The newest orders have as many units as their lines say",
        sql: "SELECT count(*)
                FROM (SELECT id, status FROM orders ORDER BY id DESC LIMIT 300) o
                JOIN order_line l ON l.order_id = o.id
               WHERE l.flash_sale_id IS NOT NULL
                 AND o.status IN ('AWAITING_PAYMENT', 'PAID')
                 AND (SELECT count(*) FROM stock_unit u WHERE u.order_id = o.id AND u.sale_id = l.flash_sale_id) <> l.quantity",
    },
    Invariant {
        name: "I9",
        description: "The newest orders' history ends in their status",
        sql:
            "SELECT count(*)
                FROM (SELECT id, status FROM orders ORDER BY id DESC LIMIT 300) o
               WHERE o.status IS DISTINCT FROM (SELECT e.status FROM order_event e WHERE e.order_id = o.id ORDER BY e.version DESC LIMIT 1)",
    },
    Invariant {
        name: "I11",
        description: "The newest orders' customers hold no more than the limit, and as much as their quota says",
        sql: "SELECT count(*)
                FROM (SELECT DISTINCT l.flash_sale_id AS sale_id, o.customer_id
                        FROM (SELECT id, customer_id FROM orders ORDER BY id DESC LIMIT 300) o
                        JOIN order_line l ON l.order_id = o.id
                       WHERE l.flash_sale_id IS NOT NULL) x
                JOIN purchase_quota q USING (sale_id, customer_id)
               WHERE q.held > q.purchase_limit
                  OR q.held <> (SELECT count(*) FROM orders o JOIN stock_unit u ON u.order_id = o.id AND u.sale_id = x.sale_id
                                 WHERE o.customer_id = x.customer_id)",
    },
];

/// Ends the transaction's statements after this time (of nothing, never), and keeps them to one core: who only looks must not be in the way.
pub async fn be_modest(db: &mut PgConnection, timeout: Duration) -> Result<(), StoreError> {
    let set = sqlx::query!(
        "SELECT set_config('statement_timeout', $1, true) AS a, set_config('max_parallel_workers_per_gather', '0', true) AS b,
                set_config('jit', 'off', true) AS c",
        format!("{}ms", timeout.as_millis()),
    );
    set.fetch_one(db).await?;
    Ok(())
}

/// For the rest of the transaction a statement may take as long as it takes.
pub async fn take_time(db: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query!("SELECT set_config('statement_timeout', '0', true) AS a").fetch_one(db).await?;
    Ok(())
}

/// The statement was ended by its time-out.
#[must_use]
pub fn took_too_long(error: &StoreError) -> bool {
    const CANCELLED: &str = "57014";
    matches!(error, StoreError::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some(CANCELLED))
}

/// How many rows break the invariant.
pub async fn count_violations(db: &mut PgConnection, invariant: &Invariant) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(invariant.sql).fetch_one(db).await?)
}
