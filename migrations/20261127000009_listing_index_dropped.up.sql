-- Why:   product_category_newest is used in its place; each product that is made would write both.
-- Locks: product against everybody, for an instant. Where a long transaction reads products, all others would wait behind this one: it
--        gives up after three seconds and can be run again. By itself, because together with the building of indexes it would wait with
--        a lock in its hand.
-- Undo:  the down file builds it again.

SET LOCAL lock_timeout = '3s';
DROP INDEX product_category;
