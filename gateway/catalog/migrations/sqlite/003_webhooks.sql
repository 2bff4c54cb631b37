-- +goose Up
CREATE TABLE endpoints (
	tenant        TEXT    NOT NULL,
	id            TEXT    NOT NULL,
	url           TEXT    NOT NULL,
	events        TEXT    NOT NULL, -- JSON array
	description   TEXT    NOT NULL,
	enabled       BOOLEAN NOT NULL,
	disabled      TEXT    NOT NULL, -- why the server disabled it
	failing_since BIGINT  NOT NULL, -- times are microseconds since 1970; 0 is none
	created       BIGINT  NOT NULL,
	secret        TEXT    NOT NULL,
	old_secret    TEXT    NOT NULL,
	old_until     BIGINT  NOT NULL,
	PRIMARY KEY (tenant, id)
);

-- What is to be sent, and what became of it. A delivery belongs to an endpoint and an
-- event, from which its id is made. While it is pending, due is when it is next attempted;
-- who attempts it moves due on by a lease.
CREATE TABLE deliveries (
	id       TEXT    PRIMARY KEY,
	tenant   TEXT    NOT NULL,
	endpoint TEXT    NOT NULL,
	lane     TEXT    NOT NULL, -- deliveries of one lane share a bound on attempts at once
	url      TEXT    NOT NULL, -- '': the endpoint's
	job      TEXT    NOT NULL,
	type     TEXT    NOT NULL,
	body     TEXT    NOT NULL,
	state    TEXT    NOT NULL, -- pending, delivered, undelivered
	tries    INTEGER NOT NULL, -- attempts since it was last begun with
	due      BIGINT  NOT NULL,
	created  BIGINT  NOT NULL,
	ended    BIGINT  NOT NULL,
	attempts TEXT    NOT NULL  -- JSON array
);
CREATE INDEX deliveries_due ON deliveries (lane, due) WHERE state = 'pending';
CREATE INDEX deliveries_log ON deliveries (tenant, endpoint, created, id);
CREATE INDEX deliveries_ended ON deliveries (ended) WHERE state <> 'pending';

-- +goose Down
DROP TABLE deliveries;
DROP TABLE endpoints;
