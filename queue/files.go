package queue

import (
	"context"
	"time"
)

// File is what is remembered of a tenant's file beside its bytes, which are an artifact.
type File struct {
	ID       string     `json:"id"` // file-<ULID>: sorts by time
	Purpose  string     `json:"purpose"`
	Name     string     `json:"name"`
	Artifact Artifact   `json:"artifact"`
	Created  time.Time  `json:"created"`
	Expires  *time.Time `json:"expires,omitempty"`
}

// Expired reports whether the file was to be kept only until before now.
func (f *File) Expired(now time.Time) bool { return f.Expires != nil && !now.Before(*f.Expires) }

// NewFileID returns a new id of a file.
func NewFileID() string { return "file-" + NewID() }

// File returns the record of a file; ErrNoRecord if the tenant has none of that id or it
// has expired, in which case it is forgotten.
func (q *Queue) File(ctx context.Context, tenant, id string) (*File, error) {
	f := new(File)
	if _, err := q.Files().Get(ctx, tenant, id, f); err != nil {
		return nil, err
	}
	if f.Expired(time.Now()) {
		if err := q.Files().Delete(ctx, tenant, id); err != nil {
			return nil, err
		}
		return nil, ErrNoRecord
	}
	return f, nil
}
