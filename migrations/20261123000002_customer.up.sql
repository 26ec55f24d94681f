-- Why:   customers, sessions, addresses, mail. Personal columns (*_sealed) hold AES-256-GCM from the first row on,
--        bound to table, column and row; an e-mail address is found by email_index, an HMAC of its normal form.
-- Locks: new tables only. Undo: the down file drops them.
CREATE TABLE customer (
    id                uuid        PRIMARY KEY,
    email_sealed      bytea       NOT NULL,
    email_index       bytea       NOT NULL CONSTRAINT customer_email_unique UNIQUE
                                  CONSTRAINT customer_email_index_length CHECK (octet_length(email_index) = 32),
    email_verified_at timestamptz,
    name_sealed       bytea       NOT NULL,
    phone_sealed      bytea,
    password_hash     text        NOT NULL CONSTRAINT customer_password_hash_form CHECK (password_hash LIKE '$argon2id$%'),
    role              text        NOT NULL DEFAULT 'CUSTOMER'
                                  CONSTRAINT customer_role_known CHECK (role IN ('CUSTOMER', 'STAFF', 'ADMIN')),
    locale            text        NOT NULL CONSTRAINT customer_locale_known CHECK (locale IN ('KO', 'EN')),
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL
);

-- A log-in. The refresh token rotates: `generation` counts the rotations, and only the hash of the token that is valid
-- now is stored.
CREATE TABLE session (
    id                    uuid        PRIMARY KEY,
    customer_id           uuid        NOT NULL REFERENCES customer (id),
    generation            integer     NOT NULL DEFAULT 0 CONSTRAINT session_generation_not_negative CHECK (generation >= 0),
    refresh_hash          bytea       NOT NULL CONSTRAINT session_refresh_hash_length CHECK (octet_length(refresh_hash) = 32),
    rotated_at            timestamptz NOT NULL,
    user_agent            text        CONSTRAINT session_user_agent_length CHECK (length(user_agent) <= 256),
    created_at            timestamptz NOT NULL,
    last_used_at          timestamptz NOT NULL,
    expires_at            timestamptz NOT NULL,
    revoked_at            timestamptz,
    CONSTRAINT session_expires_later CHECK (expires_at > created_at)
);
CREATE INDEX session_customer ON session (customer_id) WHERE revoked_at IS NULL;
-- What every process reads each second, to refuse access tokens of sessions that have just ended.
CREATE INDEX session_revoked ON session (revoked_at) WHERE revoked_at IS NOT NULL;

-- Tokens of the links in mails: 256 random bits, stored hashed, used once.
CREATE TABLE one_time_token (
    id          uuid        PRIMARY KEY,
    customer_id uuid        NOT NULL REFERENCES customer (id),
    purpose     text        NOT NULL CONSTRAINT one_time_token_purpose_known
                            CHECK (purpose IN ('VERIFY_EMAIL', 'RESET_PASSWORD', 'CHANGE_EMAIL')),
    token_hash  bytea       NOT NULL CONSTRAINT one_time_token_hash_unique UNIQUE
                            CONSTRAINT one_time_token_hash_length CHECK (octet_length(token_hash) = 32),
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
CREATE INDEX one_time_token_customer ON one_time_token (customer_id, purpose) WHERE used_at IS NULL;

-- Immutable versions: an edit inserts a row and retires the old one; orders point at the version they were made with.
CREATE TABLE address (
    id             uuid        PRIMARY KEY,
    customer_id    uuid        NOT NULL REFERENCES customer (id),
    replaces_id    uuid        CONSTRAINT address_replaced_once UNIQUE REFERENCES address (id),
    content_sealed bytea       NOT NULL,
    is_default     boolean     NOT NULL,
    created_at     timestamptz NOT NULL,
    retired_at     timestamptz,
    CONSTRAINT address_retired_is_not_default CHECK (retired_at IS NULL OR NOT is_default)
);
CREATE INDEX address_customer ON address (customer_id, created_at, id) WHERE retired_at IS NULL;
CREATE UNIQUE INDEX address_one_default ON address (customer_id) WHERE is_default;

-- Answers of mutations that are not orders (those keep their key in `orders`), kept for 7 days.
CREATE TABLE idempotency_key (
    customer_id  uuid        NOT NULL REFERENCES customer (id),
    mutation     text        NOT NULL,
    key          uuid        NOT NULL,
    request_hash bytea       NOT NULL CONSTRAINT idempotency_key_request_hash_length CHECK (octet_length(request_hash) = 32),
    result_id    uuid        NOT NULL,
    created_at   timestamptz NOT NULL,
    CONSTRAINT idempotency_key_once PRIMARY KEY (customer_id, mutation, key)
);
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);

-- The outbox's other half: the queue carries the id, this row the sealed recipient and content until it is sent.
CREATE TABLE mail (
    id             uuid        PRIMARY KEY,
    customer_id    uuid        NOT NULL REFERENCES customer (id),
    kind           text        NOT NULL,
    content_sealed bytea,
    created_at     timestamptz NOT NULL,
    sent_at        timestamptz,
    CONSTRAINT mail_content_until_sent CHECK ((sent_at IS NULL) = (content_sealed IS NOT NULL))
);
CREATE INDEX mail_unsent ON mail (created_at) WHERE sent_at IS NULL;
