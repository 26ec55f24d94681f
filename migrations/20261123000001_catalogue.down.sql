DROP TABLE product;
DROP TABLE category;
DROP EXTENSION btree_gist;
