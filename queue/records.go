package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Errors of records.
var (
	ErrNoRecord = errors.New("queue: no such record")
	ErrChanged  = errors.New("queue: the record was changed by another")
)

const (
	filesBucket   = "files"
	batchesBucket = "batches"
	maxRecord     = 256 << 10 // bytes
)

// Records are small JSON documents that belong to tenants, by ids that are safe as one
// token of a subject.
type Records struct {
	q *Queue
	b bucket
}

// Files are the records of files, each a File. They stay until they are deleted.
func (q *Queue) Files() *Records { return &Records{q, q.files} }

// Batches are the records in which the coordinators of batches keep account. They go when
// the events of their jobs go.
func (q *Queue) Batches() *Records { return &Records{q, q.batches} }

var recordID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (r *Records) key(tenant, id string) (string, error) {
	if err := r.q.connected(); err != nil {
		return "", err
	}
	if !ValidTenant(tenant) || !recordID.MatchString(id) {
		return "", ErrNoRecord
	}
	return tenant + "." + id, nil
}

// Get reads a record and returns its revision; ErrNoRecord if there is none.
func (r *Records) Get(ctx context.Context, tenant, id string, into any) (revision uint64, err error) {
	key, err := r.key(tenant, id)
	if err != nil {
		return 0, err
	}
	entry, err := r.b.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, ErrNoRecord
	}
	if err != nil {
		return 0, fmt.Errorf("queue: %s %s: %w", r.b.Bucket(), id, r.q.explain(err))
	}
	if err := json.Unmarshal(entry.Value(), into); err != nil {
		return 0, fmt.Errorf("queue: %s %s: %w", r.b.Bucket(), id, err)
	}
	return entry.Revision(), nil
}

// Put writes a record over the given revision of it (0: there must be none) and returns
// the new one; ErrChanged if that is not the newest.
func (r *Records) Put(ctx context.Context, tenant, id string, value any, revision uint64) (uint64, error) {
	if err := r.q.writable(); err != nil {
		return 0, err
	}
	key, err := r.key(tenant, id)
	if err != nil {
		return 0, err
	}
	body, err := json.Marshal(value)
	if err != nil {
		return 0, fmt.Errorf("queue: %s %s: %w", r.b.Bucket(), id, err)
	}
	written, err := r.b.Update(ctx, key, body, revision)
	if isConflict(err) || errors.Is(err, jetstream.ErrKeyExists) {
		return 0, ErrChanged
	}
	if err != nil {
		return 0, fmt.Errorf("queue: %s %s: %w", r.b.Bucket(), id, r.q.explain(err))
	}
	return written, nil
}

// Delete forgets a record, without a trace. There may be none.
func (r *Records) Delete(ctx context.Context, tenant, id string) error {
	key, err := r.key(tenant, id)
	if err != nil {
		return err
	}
	if err := r.b.stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+r.b.Bucket()+"."+key)); err != nil {
		return fmt.Errorf("queue: %s %s: %w", r.b.Bucket(), id, r.q.explain(err))
	}
	return nil
}

// RecordKey names a record.
type RecordKey struct{ Tenant, ID string }

// Keys lists the records of a tenant, or of all for "*", sorted by tenant and id.
func (r *Records) Keys(ctx context.Context, tenant string) ([]RecordKey, error) {
	if err := r.q.connected(); err != nil {
		return nil, err
	}
	if tenant != "*" && !ValidTenant(tenant) {
		return nil, nil
	}
	prefix := "$KV." + r.b.Bucket() + "."
	info, err := r.b.stream.Info(ctx, jetstream.WithSubjectFilter(prefix+tenant+".*"))
	if err != nil {
		return nil, fmt.Errorf("queue: list %s: %w", r.b.Bucket(), r.q.explain(err))
	}
	keys := make([]RecordKey, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		owner, id, _ := strings.Cut(strings.TrimPrefix(subject, prefix), ".")
		keys = append(keys, RecordKey{owner, id})
	}
	slices.SortFunc(keys, func(a, b RecordKey) int {
		if c := strings.Compare(a.Tenant, b.Tenant); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return keys, nil
}
