-- What is projected from the queue's events. See the file for SQLite, which is the same
-- but for the index.

-- +goose Up

CREATE TABLE jobs (
    num      BIGINT PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    tenant   TEXT NOT NULL,
    state    TEXT NOT NULL,
    task     TEXT NOT NULL,
    model    TEXT NOT NULL,
    batch    TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    version  BIGINT NOT NULL,
    body     BYTEA NOT NULL
);
CREATE INDEX jobs_by_tenant ON jobs (tenant, num);
-- The index of terms does not keep the order of time: lists of many jobs are read by these.
CREATE INDEX jobs_by_state ON jobs (tenant, state, num);
CREATE INDEX jobs_by_task ON jobs (tenant, task, num);
CREATE INDEX jobs_by_model ON jobs (tenant, model, num);
CREATE INDEX jobs_by_batch ON jobs (tenant, batch, num) WHERE batch <> '';
CREATE INDEX jobs_by_pipeline ON jobs (tenant, pipeline, num) WHERE pipeline <> '';
CREATE INDEX jobs_unended ON jobs (num) WHERE state IN ('queued', 'running');

CREATE TABLE terms (
    num   BIGINT PRIMARY KEY REFERENCES jobs (num) ON DELETE CASCADE,
    terms TSVECTOR NOT NULL
);
ALTER TABLE terms ALTER COLUMN terms SET STATISTICS 300;
CREATE INDEX terms_gin ON terms USING gin (terms) WITH (gin_pending_list_limit = 1024);

CREATE TABLE deleted (
    id      TEXT PRIMARY KEY,
    version BIGINT NOT NULL
);

CREATE TABLE usage (
    tenant          TEXT NOT NULL,
    day             TEXT NOT NULL,
    task            TEXT NOT NULL,
    model           TEXT NOT NULL,
    succeeded       BIGINT NOT NULL,
    failed          BIGINT NOT NULL,
    canceled        BIGINT NOT NULL,
    input_tokens    BIGINT NOT NULL,
    output_tokens   BIGINT NOT NULL,
    pixels          BIGINT NOT NULL,
    media_seconds   DOUBLE PRECISION NOT NULL,
    compute_seconds DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, day, task, model)
);

CREATE TABLE position (
    one      SMALLINT PRIMARY KEY CHECK (one = 1),
    stream   TEXT NOT NULL,
    epoch    BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    notified BIGINT NOT NULL
);
INSERT INTO position VALUES (1, '', 0, 0, 0);

-- +goose Down
DROP TABLE position;
DROP TABLE usage;
DROP TABLE deleted;
DROP TABLE terms;
DROP TABLE jobs;
