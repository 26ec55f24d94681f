DROP INDEX product_archived;
DROP INDEX product_all_newest;
DROP INDEX product_category_title;
DROP INDEX product_category_price;
DROP INDEX product_category_newest;
