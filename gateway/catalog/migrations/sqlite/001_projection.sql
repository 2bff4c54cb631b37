-- What is projected from the queue's events.

-- +goose Up

-- num orders jobs by their time: microseconds since 1970, shifted by 11 bits that tell
-- apart the jobs of one microsecond.
CREATE TABLE jobs (
    num      INTEGER PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    tenant   TEXT NOT NULL,
    state    TEXT NOT NULL,
    task     TEXT NOT NULL,
    model    TEXT NOT NULL,
    batch    TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    version  BIGINT NOT NULL, -- which stream of events, shifted by 48 bits, and the sequence in it; the later wins
    body     BLOB NOT NULL    -- the job as JSON
);
CREATE INDEX jobs_by_tenant ON jobs (tenant, num);
CREATE INDEX jobs_unended ON jobs (num) WHERE state IN ('queued', 'running');

-- What a job can be found by: its words, and a term for each value that lists filter by.
-- The terms are cut in Go. Only the index is stored.
CREATE VIRTUAL TABLE terms USING fts5(
    list, content='', contentless_delete=1, detail='none', tokenize='ascii'
);

-- Jobs that were deleted while events of theirs may still be on their way, until the
-- projection has passed version.
CREATE TABLE deleted (
    id      TEXT PRIMARY KEY,
    version BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE usage (
    tenant          TEXT NOT NULL,
    day             TEXT NOT NULL, -- on which the job ended, in UTC: 2006-01-02
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
) WITHOUT ROWID;

-- How far the projection has come: one row.
CREATE TABLE position (
    one      SMALLINT PRIMARY KEY CHECK (one = 1),
    stream   TEXT NOT NULL,   -- names the stream, which may be lost and made anew
    epoch    BIGINT NOT NULL, -- counts the streams and the rebuilds
    sequence BIGINT NOT NULL, -- of the last event that was projected
    notified BIGINT NOT NULL  -- of the last one that webhooks were told of; a rebuild tells none again
);
INSERT INTO position VALUES (1, '', 0, 0, 0);

-- +goose Down
DROP TABLE position;
DROP TABLE usage;
DROP TABLE deleted;
DROP TABLE terms;
DROP TABLE jobs;
