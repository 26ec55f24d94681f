DROP TABLE mail;
DROP TABLE idempotency_key;
DROP TABLE address;
DROP TABLE one_time_token;
DROP TABLE session;
DROP TABLE customer;
