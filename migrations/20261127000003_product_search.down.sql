DROP FUNCTION search_query(text);
DROP FUNCTION search_operand(text);
DROP TRIGGER product_search_words ON product;
DROP FUNCTION add_search_words();
DROP TABLE search_word;
DROP INDEX product_search;
DROP FUNCTION search_vector(text, text);
DROP FUNCTION search_pairs(text);
DROP FUNCTION search_words(text);
