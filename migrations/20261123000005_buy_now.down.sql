DROP FUNCTION buy_now;
DROP TYPE buy_now_outcome;
