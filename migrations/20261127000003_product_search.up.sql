-- Why:   the search of the catalogue, all by index (docs/adr/0019): words of word languages by Postgres's own
--        parser, Hangul, Han and kana by pairs of characters, misspelt words through the words that titles have.
-- Locks: product against writers while the index is built, half a minute for 100,000 products. Readers go on.
-- Undo:  the down file drops it all; the extensions stay.

CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS fuzzystrmatch;

-- The words of a text: those of word languages, and runs of Hangul, Han and kana as they are. A product and a query are read alike.
CREATE FUNCTION search_words(given text) RETURNS TABLE (word text, is_run boolean)
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    run     CONSTANT text := '[\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]+';
    content CONSTANT text := lower(normalize(given, NFKC));
BEGIN
    -- The parser gets letters and digits only: it would make "-500" a number, "/hdmi" a path and "node.js" a host.
    RETURN QUERY SELECT w.lexeme, false
                   FROM unnest(to_tsvector('simple', regexp_replace(regexp_replace(content, run, ' ', 'g'), '[^[:alnum:]]+', ' ', 'g'))) w;
    RETURN QUERY SELECT DISTINCT m[1], true FROM regexp_matches(content, run, 'g') m;
END
$$;

-- A run's pairs of characters. The last character stands alone, so that each character begins a part.
CREATE FUNCTION search_pairs(run text) RETURNS text[]
    -- Its plan is kept, which that of an SQL function is not: twice as fast.
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT array_agg(substr(run, i, 2)) FROM generate_series(1, length(run)) i);
END
$$;

-- What a product is found by: '=' and a word of its title, 't' and a part of its title, 'a' and a part of title or description.
-- The part of a word language is the word; runs are cut into pairs, across spaces, because writers of Korean differ in them. Of a whole
-- word 500 characters count: a lexeme has 2,046 bytes at most, and one character may be six in NFKC.
CREATE FUNCTION search_vector(title text, description text) RETURNS tsvector
    -- Dear enough that the index is always taken.
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10000
    -- A restore builds the index where no schema is searched.
    SET search_path FROM CURRENT AS $$
DECLARE
    gap    CONSTANT text := '([\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff])\s+(?=[\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff])';
    vector tsvector;
BEGIN
    WITH title_part AS MATERIALIZED (
        SELECT CASE WHEN is_run THEN search_pairs(word) ELSE ARRAY[word] END AS parts
          FROM search_words(regexp_replace(title, gap, '\1', 'g'))
    ), description_part AS (
        SELECT CASE WHEN is_run THEN search_pairs(word) ELSE ARRAY[word] END AS parts
          FROM search_words(regexp_replace(left(description, 5000), gap, '\1', 'g'))
    )
    SELECT array_to_tsvector(array_agg(lexeme))
      INTO vector
      FROM (SELECT '=' || left(word, 500) AS lexeme FROM search_words(title)
             UNION ALL SELECT 't' || unnest(parts) FROM title_part
             UNION ALL SELECT 'a' || unnest(parts) FROM title_part
             UNION ALL SELECT 'a' || unnest(parts) FROM description_part) l;
    RETURN vector;
END
$$;

-- The column of the index is no column of the table: rows stay short, and a search looks at many rows and at few texts.
CREATE INDEX product_search ON product USING gin (search_vector(title, description));
-- To analyze it would compute it, for each row of the sample; every query of it has the same plan anyway.
ALTER INDEX product_search ALTER COLUMN 1 SET STATISTICS 0;

-- The words of Latin letters that titles have, or had: what a misspelt word may stand for. Not unique: two transactions may add the
-- same word, and neither waits for the other.
CREATE TABLE search_word (
    word text NOT NULL
);
CREATE INDEX search_word_exact ON search_word (word);
CREATE INDEX search_word_similar ON search_word USING gist (word gist_trgm_ops);

CREATE FUNCTION add_search_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_word (word)
    SELECT w.word
      FROM search_words(NEW.title) w
     WHERE w.word ~ '^[a-z\u00df-\u024f]{4,40}$'
       AND NOT EXISTS (SELECT FROM search_word known WHERE known.word = w.word);
    RETURN NULL;
END
$$;
CREATE TRIGGER product_search_words AFTER INSERT OR UPDATE OF title ON product FOR EACH ROW EXECUTE FUNCTION add_search_words();
INSERT INTO search_word (word)
SELECT DISTINCT w.word FROM product, search_words(title) w WHERE w.word ~ '^[a-z\u00df-\u024f]{4,40}$';

-- A word of a query, or an alternative to it, as an operand of a tsquery that is to be parsed.
CREATE FUNCTION search_operand(lexeme text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''';

-- What a search looks for, in steps from the best to the weakest; no product belongs to two of them, and one that asks for nothing is
-- NULL. words: each word is a word of the title. title: each is in the title, perhaps within a word. anywhere: each is in title or
-- description. alike: words that no title has are replaced by up to five that differ by a letter, or by two when it is longer.
-- matching: what is found by any step.
CREATE FUNCTION search_query(given text, OUT words tsquery, OUT title tsquery, OUT anywhere tsquery, OUT alike tsquery, OUT matching tsquery)
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT w.word, w.is_run,
               -- The last character alone would ask for the end of a run. One that is all there is begins a part.
               CASE WHEN w.is_run AND length(w.word) > 1 THEN trim_array(search_pairs(w.word), 1) ELSE ARRAY[w.word] END AS parts,
               CASE WHEN w.is_run AND length(w.word) = 1 THEN ':*' ELSE '' END AS prefix
          FROM search_words(given) w
    ), unknown AS MATERIALIZED (
        SELECT w.word FROM wanted w
         WHERE w.word ~ '^[a-z\u00df-\u024f]{4,40}$' AND NOT EXISTS (SELECT FROM search_word known WHERE known.word = w.word)
         LIMIT 5
    ), mended AS (
        SELECT u.word, string_agg(search_operand('a' || near.word), '|') AS alternatives
          FROM unknown u,
               LATERAL (SELECT n.word
                          FROM (SELECT k.word FROM search_word k ORDER BY k.word <-> u.word LIMIT 20) n
                         WHERE levenshtein_less_equal(n.word, u.word, 2) <= CASE WHEN length(u.word) < 6 THEN 1 ELSE 2 END
                         ORDER BY levenshtein(n.word, u.word), n.word
                         LIMIT 5) near
         GROUP BY u.word
    ), operand AS (
        SELECT w.word,
               search_operand('=' || left(w.word, 500)) AS whole,
               (SELECT string_agg(search_operand('t' || part) || w.prefix, '&') FROM unnest(w.parts) part) AS in_title,
               (SELECT string_agg(search_operand('a' || part) || w.prefix, '&') FROM unnest(w.parts) part) AS in_any,
               m.alternatives
          FROM wanted w LEFT JOIN mended m USING (word)
    )
    SELECT string_agg(o.whole, '&')::tsquery, string_agg(o.in_title, '&')::tsquery, string_agg(o.in_any, '&')::tsquery,
           CASE WHEN count(o.alternatives) > 0 THEN string_agg('(' || coalesce(o.alternatives, o.in_any) || ')', '&')::tsquery END
      INTO words, title, anywhere, alike
      FROM operand o;
    matching := coalesce(anywhere || alike, anywhere);
    alike := alike && !! anywhere;
    anywhere := anywhere && !! title;
    title := title && !! words;
END
$$;
