-- +goose Up

-- Times are microseconds since 1970 (UTC).
CREATE TABLE keys (
    id      TEXT   NOT NULL PRIMARY KEY,
    hash    TEXT   NOT NULL, -- SHA-256 of the secret, in hexadecimal digits
    tenant  TEXT   NOT NULL,
    name    TEXT   NOT NULL, -- for people
    scopes  TEXT   NOT NULL, -- with spaces between
    created BIGINT NOT NULL,
    expires BIGINT,
    used    BIGINT,          -- to the minute
    revoked BIGINT
);

-- The limits of a tenant. One that is NULL is that of the gateways' settings.
CREATE TABLE tenants (
    name    TEXT   NOT NULL PRIMARY KEY,
    rate    DOUBLE PRECISION, -- requests a second
    burst   BIGINT,           -- requests
    jobs    BIGINT,           -- unfinished ones
    uploads BIGINT            -- bytes a day
);

-- +goose Down
DROP TABLE tenants;
DROP TABLE keys;
