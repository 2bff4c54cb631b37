package queue

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Store keeps the bytes of artifacts, each under its tenant and digest. Its methods may be
// called concurrently; they answer ErrNoArtifact, ErrUnavailable and ErrFull where that is
// what happened. It need not check what it is given: the queue compares bytes with digests.
type Store interface {
	// Put stores the about.Size bytes of content, with their description, over what is there.
	Put(ctx context.Context, tenant string, about Artifact, content io.Reader) error
	// Info describes stored bytes and tells when they were put or touched last.
	Info(ctx context.Context, tenant, digest string) (Artifact, time.Time, error)
	// Open returns stored bytes from an offset on.
	Open(ctx context.Context, tenant, digest string, offset int64) (io.ReadCloser, error)
	// Touch makes stored bytes as young as if they had been put now.
	Touch(ctx context.Context, tenant, digest string) error
	// Delete removes stored bytes; there may be none.
	Delete(ctx context.Context, tenant, digest string) error
	// All lists everything that is stored, in any order.
	All(ctx context.Context) iter.Seq2[Stored, error]
}

// Stored is what a Store lists.
type Stored struct {
	Tenant  string
	SHA256  string
	Size    int64     // bytes
	Touched time.Time // when it was put or touched last
}

// objectName is where a tenant's bytes are in a store. Tenants share none, so that nobody
// learns by a digest what others have.
func objectName(tenant, digest string) string { return tenant + "/" + digest }

// ParseObject returns the tenant and the digest that the name of an object spells, and
// whether it spells any: TENANT/SHA256.
func ParseObject(name string) (tenant, digest string, ok bool) {
	tenant, digest, _ = strings.Cut(name, "/")
	return tenant, digest, ValidTenant(tenant) && sha256Hex.MatchString(digest)
}

// objectStore keeps artifacts in a JetStream object bucket.
type objectStore struct {
	q       *Queue
	objects jetstream.ObjectStore
	stream  jetstream.Stream
}

const describedIn = "artifact" // metadata key of the description

// Put implements Store.
func (s *objectStore) Put(ctx context.Context, tenant string, about Artifact, content io.Reader) error {
	if err := s.q.writable(); err != nil {
		return err
	}
	description, err := json.Marshal(about)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	defer cancel()
	_, err = s.objects.Put(ctx, jetstream.ObjectMeta{
		Name: objectName(tenant, about.SHA256), Metadata: map[string]string{describedIn: string(description)},
	}, content)
	return s.q.explain(err)
}

// info asks the leader of the bucket, where the library would ask any of its servers: one
// that is behind might tell of bytes that are gone, or call old what was touched.
func (s *objectStore) info(ctx context.Context, tenant, digest string) (*jetstream.ObjectInfo, error) {
	if err := s.q.connected(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	request, err := json.Marshal(map[string]string{"last_by_subj": metaSubject(objectName(tenant, digest))})
	if err != nil {
		return nil, err
	}
	msg, err := s.q.nc.RequestWithContext(ctx, apiPrefix+"MSG.GET.OBJ_"+objectBucket, request)
	if err != nil {
		return nil, s.q.explain(err)
	}
	var answer struct {
		Error   *jetstream.APIError
		Message struct {
			Data []byte
			Time time.Time
		}
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return nil, err
	}
	if answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil, ErrNoArtifact
	}
	if answer.Error != nil {
		return nil, s.q.explain(answer.Error)
	}
	info := new(jetstream.ObjectInfo)
	if err := json.Unmarshal(answer.Message.Data, info); err != nil {
		return nil, err
	}
	if info.Deleted {
		return nil, ErrNoArtifact
	}
	info.ModTime = answer.Message.Time
	return info, nil
}

const infoTimeout = 5 * time.Second

// metaSubject is where the description of an object is in the bucket's stream.
func metaSubject(name string) string {
	return "$O." + objectBucket + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

// Info implements Store.
func (s *objectStore) Info(ctx context.Context, tenant, digest string) (Artifact, time.Time, error) {
	info, err := s.info(ctx, tenant, digest)
	if err != nil {
		return Artifact{}, time.Time{}, err
	}
	var about Artifact
	if err := json.Unmarshal([]byte(info.Metadata[describedIn]), &about); err != nil {
		return Artifact{}, time.Time{}, fmt.Errorf("description: %w", err)
	}
	return about, info.ModTime, nil
}

// Open implements Store. An object can only be streamed from its start: what lies before
// the offset is read and dropped.
func (s *objectStore) Open(ctx context.Context, tenant, digest string, offset int64) (io.ReadCloser, error) {
	if err := s.q.connected(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	result, err := s.objects.Get(ctx, objectName(tenant, digest))
	if err != nil {
		cancel()
		if errors.Is(err, jetstream.ErrObjectNotFound) {
			return nil, ErrNoArtifact
		}
		return nil, s.q.explain(err)
	}
	object := &transfer{result, cancel}
	if _, err := io.CopyN(io.Discard, object, offset); err != nil && err != io.EOF {
		object.Close()
		return nil, s.q.explain(err)
	}
	return object, nil
}

// transferTime bounds how long the bytes of an object are on their way, to or from whoever
// may be slow. Without a deadline nats.go gives up after 5 seconds, however well it goes.
const transferTime = 24 * time.Hour

// transfer is an object that is being read.
type transfer struct {
	jetstream.ObjectResult
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (t *transfer) Close() error {
	defer t.cancel()
	return t.ObjectResult.Close()
}

// Touch implements Store: it writes the description once more.
func (s *objectStore) Touch(ctx context.Context, tenant, digest string) error {
	info, err := s.info(ctx, tenant, digest)
	if err != nil {
		return err
	}
	err = s.objects.UpdateMeta(ctx, info.Name, info.ObjectMeta)
	if errors.Is(err, jetstream.ErrUpdateMetaDeleted) {
		return ErrNoArtifact
	}
	return s.q.explain(err)
}

// Delete implements Store.
func (s *objectStore) Delete(ctx context.Context, tenant, digest string) error {
	if err := s.q.connected(); err != nil {
		return err
	}
	name := objectName(tenant, digest)
	err := s.objects.Delete(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil
	}
	if err != nil {
		return s.q.explain(err)
	}
	// What is left is a mark that the object is deleted. It goes, unless the object was put
	// anew in the meantime.
	subject := metaSubject(name)
	mark, err := s.stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return s.q.explain(err)
	}
	var about jetstream.ObjectInfo
	if err := json.Unmarshal(mark.Data, &about); err != nil || !about.Deleted {
		return err
	}
	return s.q.explain(s.stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(mark.Sequence+1)))
}

// All implements Store.
func (s *objectStore) All(ctx context.Context) iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		if err := s.q.connected(); err != nil {
			yield(Stored{}, err)
			return
		}
		watcher, err := s.objects.Watch(ctx, jetstream.IgnoreDeletes())
		if err != nil {
			yield(Stored{}, s.q.explain(err))
			return
		}
		defer func() {
			// Where that fails, the connection has ended, and the watcher with it. What it has
			// not delivered yet must be taken from it, or it would wait for that forever.
			_ = watcher.Stop()
			for range watcher.Updates() {
			}
		}()
		for {
			select {
			case <-ctx.Done():
				yield(Stored{}, context.Cause(ctx))
				return
			case info, open := <-watcher.Updates():
				if !open {
					yield(Stored{}, ErrUnavailable)
					return
				}
				if info == nil {
					return // the rest is news
				}
				tenant, digest, ok := ParseObject(info.Name)
				if ok && !yield(Stored{tenant, digest, int64(info.Size), info.ModTime}, nil) {
					return
				}
			}
		}
	}
}
