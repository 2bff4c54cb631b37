package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoArtifact says that no bytes are stored under a digest.
var ErrNoArtifact = errors.New("queue: no such artifact")

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

const describedIn = "artifact" // metadata key of the description in the object store

// PutArtifact stores the bytes of r under their SHA-256 and returns the description
// with digest, size and URL filled in. Bytes that are stored already are not stored
// twice; their first description stays. ErrTooLarge if there are more than limit.
func (q *Queue) PutArtifact(ctx context.Context, r io.Reader, limit int64, about Artifact) (Artifact, error) {
	if err := q.writable(); err != nil {
		return Artifact{}, err
	}
	// The name is the digest, so the bytes are read once into a file before they are stored.
	file, err := os.CreateTemp("", "helicon-artifact-*")
	if err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	digest := sha256.New()
	about.Size, err = io.Copy(io.MultiWriter(file, digest), io.LimitReader(r, limit+1))
	if err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact: %w", err)
	}
	if about.Size > limit {
		return Artifact{}, fmt.Errorf("%w: artifact of more than %d bytes", ErrTooLarge, limit)
	}
	about.SHA256 = hex.EncodeToString(digest.Sum(nil))
	about.URL = "/v1/artifacts/" + about.SHA256
	if stored, err := q.ArtifactInfo(ctx, about.SHA256); err == nil {
		return stored, nil
	}
	description, err := json.Marshal(about)
	if err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact: %w", err)
	}
	_, err = q.objects.Put(ctx, jetstream.ObjectMeta{
		Name: about.SHA256, Metadata: map[string]string{describedIn: string(description)},
	}, file)
	if err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact: %w", q.explain(err))
	}
	return about, nil
}

// ArtifactInfo describes stored bytes; ErrNoArtifact if there are none under the digest.
func (q *Queue) ArtifactInfo(ctx context.Context, digest string) (Artifact, error) {
	if err := q.connected(); err != nil {
		return Artifact{}, err
	}
	if !sha256Hex.MatchString(digest) {
		return Artifact{}, ErrNoArtifact
	}
	info, err := q.objects.GetInfo(ctx, digest)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return Artifact{}, ErrNoArtifact
	}
	if err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact %s: %w", digest, q.explain(err))
	}
	var about Artifact
	if err := json.Unmarshal([]byte(info.Metadata[describedIn]), &about); err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact %s: description: %w", digest, err)
	}
	return about, nil
}

// Artifact opens stored bytes for reading and seeking; ErrNoArtifact if there are none.
func (q *Queue) Artifact(ctx context.Context, digest string) (Artifact, io.ReadSeekCloser, error) {
	about, err := q.ArtifactInfo(ctx, digest)
	if err != nil {
		return Artifact{}, nil, err
	}
	open := func() (io.ReadCloser, error) { return q.objects.Get(ctx, digest) }
	return about, &seekable{open: open, size: about.Size}, nil
}

// seekable reads an object that can only be streamed from its start: a seek costs
// nothing until the next read, which skips what lies before it.
type seekable struct {
	open   func() (io.ReadCloser, error)
	size   int64
	offset int64 // where the caller is
	body   io.ReadCloser
	at     int64 // where body is
}

// Read implements io.Reader.
func (s *seekable) Read(p []byte) (int, error) {
	if s.offset >= s.size {
		return 0, io.EOF
	}
	if s.body != nil && s.at > s.offset {
		s.body.Close()
		s.body = nil
	}
	if s.body == nil {
		body, err := s.open()
		if err != nil {
			return 0, fmt.Errorf("queue: artifact: %w", err)
		}
		s.body, s.at = body, 0
	}
	if s.at < s.offset {
		n, err := io.CopyN(io.Discard, s.body, s.offset-s.at)
		s.at += n
		if err != nil {
			return 0, fmt.Errorf("queue: artifact: %w", err)
		}
	}
	n, err := s.body.Read(p)
	s.at += int64(n)
	s.offset = s.at
	return n, err
}

// Seek implements io.Seeker.
func (s *seekable) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.offset
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, errors.New("queue: artifact: seek before the start")
	}
	s.offset = offset
	return offset, nil
}

// Close implements io.Closer.
func (s *seekable) Close() error {
	if s.body == nil {
		return nil
	}
	return s.body.Close()
}
