package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"regexp"
	"time"
)

// ErrNoArtifact says that no bytes are stored under a digest.
var ErrNoArtifact = errors.New("queue: no such artifact")

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

// PutArtifact stores the bytes of r for a tenant under their SHA-256 and returns the
// description with digest, size and URL filled in. Bytes that the tenant has stored
// already are not stored twice; their first description stays. ErrTooLarge if there are
// more than limit.
func (q *Queue) PutArtifact(ctx context.Context, tenant string, r io.Reader, limit int64, about Artifact) (Artifact, error) {
	if !ValidTenant(tenant) {
		return Artifact{}, fmt.Errorf("queue: artifact: %q is no tenant", tenant)
	}
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
	stored, err := q.refresh(ctx, tenant, about.SHA256)
	if !errors.Is(err, ErrNoArtifact) {
		return stored, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact: %w", err)
	}
	if err := q.artifacts.Put(ctx, tenant, about, file); err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact: %w", err)
	}
	return about, nil
}

// ArtifactInfo describes bytes that a tenant has stored; ErrNoArtifact if there are none
// under the digest.
func (q *Queue) ArtifactInfo(ctx context.Context, tenant, digest string) (Artifact, error) {
	about, _, err := q.stored(ctx, tenant, digest)
	return about, err
}

func (q *Queue) stored(ctx context.Context, tenant, digest string) (Artifact, time.Time, error) {
	if !ValidTenant(tenant) || !sha256Hex.MatchString(digest) {
		return Artifact{}, time.Time{}, ErrNoArtifact
	}
	about, touched, err := q.artifacts.Info(ctx, tenant, digest)
	if err != nil {
		return Artifact{}, time.Time{}, fmt.Errorf("queue: artifact %s: %w", digest, err)
	}
	if about.SHA256 != digest || about.Size < 0 {
		return Artifact{}, time.Time{}, fmt.Errorf("queue: artifact %s: stored with the description of another", digest)
	}
	return about, touched, nil
}

// Artifact opens bytes that a tenant has stored for reading and seeking; ErrNoArtifact if
// there are none under the digest. Reading them from the start to the end fails at the end
// if they are others than were stored.
func (q *Queue) Artifact(ctx context.Context, tenant, digest string) (Artifact, io.ReadSeekCloser, error) {
	about, _, err := q.stored(ctx, tenant, digest)
	if err != nil {
		return Artifact{}, nil, err
	}
	open := func(offset int64) (io.ReadCloser, error) { return q.artifacts.Open(ctx, tenant, digest, offset) }
	return about, &seekable{open: open, size: about.Size, digest: digest}, nil
}

// Artifacts returns the store of the artifacts.
func (q *Queue) Artifacts() Store { return q.artifacts }

// seekable reads stored bytes: a seek costs nothing until the next read.
type seekable struct {
	open   func(offset int64) (io.ReadCloser, error)
	size   int64
	digest string
	offset int64 // where the caller is
	body   io.ReadCloser
	at     int64     // where body is
	sum    hash.Hash // of all bytes before at; nil: they were not all read
}

// maxSkip is how many bytes are rather read than asked around, which costs a round trip.
const maxSkip = 256 << 10

// Read implements io.Reader.
func (s *seekable) Read(p []byte) (int, error) {
	if s.offset >= s.size {
		return 0, io.EOF
	}
	if err := s.reach(); err != nil {
		return 0, fmt.Errorf("queue: artifact %s: %w", s.digest, err)
	}
	n, err := s.body.Read(p[:min(int64(len(p)), s.size-s.at)])
	s.at += int64(n)
	s.offset = s.at
	if s.sum != nil {
		s.sum.Write(p[:n])
	}
	if s.at == s.size && s.sum != nil && hex.EncodeToString(s.sum.Sum(nil)) != s.digest {
		return 0, fmt.Errorf("queue: artifact %s: the stored bytes have changed", s.digest)
	}
	if s.at < s.size && err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("queue: artifact %s: %w", s.digest, err)
	}
	return n, err
}

// reach takes body to the caller's offset.
func (s *seekable) reach() error {
	if s.body != nil && (s.at > s.offset || s.offset-s.at > maxSkip) {
		s.body.Close()
		s.body = nil
	}
	if s.body == nil {
		body, err := s.open(s.offset)
		if err != nil {
			return err
		}
		s.body, s.at, s.sum = body, s.offset, nil
		if s.offset == 0 {
			s.sum = sha256.New()
		}
	}
	if s.at == s.offset {
		return nil
	}
	n, err := io.CopyN(io.Discard, s.body, s.offset-s.at)
	s.at += n
	s.sum = nil
	return err
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
