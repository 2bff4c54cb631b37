// Package s3 keeps artifacts in a bucket of an S3-compatible server. It implements
// queue.Store over minio-go: an object is named PREFIX/TENANT/SHA256 and carries its
// description as metadata.
package s3

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"helicon/queue"
)

// Location says where the bucket is.
type Location struct {
	Bucket   string
	Prefix   string // what the names of all objects begin with; "" or without / at its ends
	Endpoint string // host, or host:port
	Plain    bool   // http instead of https
	Region   string // "": the server's own
}

const defaultEndpoint = "s3.amazonaws.com"

// Parse reads s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME]. Without an endpoint, it is
// Amazon's. Errors show nothing of what may be a secret.
func Parse(text string) (Location, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Opaque != "" || u.Fragment != "" {
		return Location{}, errors.New("s3: want s3://BUCKET/PREFIX?endpoint=URL&region=NAME")
	}
	if u.User != nil {
		return Location{}, errors.New("s3: credentials do not belong into the URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	l := Location{Bucket: u.Host, Prefix: strings.Trim(path.Clean("/"+u.Path), "/"), Endpoint: defaultEndpoint}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Location{}, errors.New("s3: the query of the URL cannot be read")
	}
	for name, values := range query {
		if len(values) != 1 || !slices.Contains([]string{"endpoint", "region"}, name) {
			return Location{}, fmt.Errorf("s3: want endpoint and region, once each, not %q", name)
		}
	}
	l.Region = query.Get("region")
	if endpoint := query.Get("endpoint"); endpoint != "" {
		e, err := url.Parse(endpoint)
		if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
			return Location{}, errors.New("s3: endpoint: want http://HOST:PORT or https://HOST:PORT")
		}
		l.Endpoint, l.Plain = e.Host, e.Scheme == "http"
	}
	return l, nil
}

// Store is a bucket.
type Store struct {
	at        Location
	client    *minio.Client
	transport *http.Transport
}

// tries is how often a request is made before the server counts as unavailable.
const tries = 3

// Open connects to the bucket and makes it if it is not there. Without credentials, they
// are those of the environment (AWS_ACCESS_KEY_ID …), of the user's AWS configuration or of
// the machine. queue.ErrUnavailable if the server cannot be reached now.
func Open(ctx context.Context, at Location, creds *credentials.Credentials) (*Store, error) {
	transport, err := minio.DefaultTransport(!at.Plain)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if creds == nil {
		creds = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		})
	}
	lookup := minio.BucketLookupPath
	if at.Endpoint == defaultEndpoint {
		lookup = minio.BucketLookupAuto
	}
	client, err := minio.New(at.Endpoint, &minio.Options{
		Creds: creds, Secure: !at.Plain, Transport: transport, Region: at.Region, BucketLookup: lookup, MaxRetries: tries,
	})
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	s := &Store{at, client, transport}
	if err := s.ensure(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("s3: bucket %s: %w", at.Bucket, err)
	}
	return s, nil
}

// ensure makes the bucket if it is not there.
func (s *Store) ensure(ctx context.Context) error {
	there, err := s.client.BucketExists(ctx, s.at.Bucket)
	if err != nil || there {
		return explain(err)
	}
	err = s.client.MakeBucket(ctx, s.at.Bucket, minio.MakeBucketOptions{Region: s.at.Region})
	if code(err) == "BucketAlreadyOwnedByYou" {
		return nil // another process was faster
	}
	return explain(err)
}

// Close closes idle connections.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

func (s *Store) key(tenant, digest string) string { return path.Join(s.at.Prefix, tenant, digest) }

// described is the name of the metadata that is the description: JSON as base64, since
// headers are ASCII.
const described = "Artifact"

// partSize is how much of a large object is sent in one request, in bytes.
const partSize = 16 << 20

// Put implements queue.Store. Large objects are sent in parts, each with its MD5, which
// the server compares.
func (s *Store) Put(ctx context.Context, tenant string, about queue.Artifact, content io.Reader) error {
	description, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("s3: %w", err)
	}
	_, err = s.client.PutObject(ctx, s.at.Bucket, s.key(tenant, about.SHA256), content, about.Size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", UserMetadata: map[string]string{described: base64.StdEncoding.EncodeToString(description)},
		PartSize: partSize, NumThreads: 2,
		// The MD5 is among what is signed. Signing the bytes themselves as well would send them
		// in a form that not every server reads.
		SendContentMd5: true, DisableContentSha256: true,
	})
	return explain(err)
}

// Info implements queue.Store.
func (s *Store) Info(ctx context.Context, tenant, digest string) (queue.Artifact, time.Time, error) {
	info, err := s.client.StatObject(ctx, s.at.Bucket, s.key(tenant, digest), minio.StatObjectOptions{})
	if err != nil {
		return queue.Artifact{}, time.Time{}, explain(err)
	}
	var about queue.Artifact
	description, err := base64.StdEncoding.DecodeString(info.UserMetadata[described])
	if err == nil {
		err = json.Unmarshal(description, &about)
	}
	if err != nil {
		return queue.Artifact{}, time.Time{}, fmt.Errorf("s3: description: %w", err)
	}
	return about, info.LastModified, nil
}

// Open implements queue.Store.
func (s *Store) Open(ctx context.Context, tenant, digest string, offset int64) (io.ReadCloser, error) {
	var options minio.GetObjectOptions
	if offset > 0 {
		if err := options.SetRange(offset, 0); err != nil {
			return nil, fmt.Errorf("s3: %w", err)
		}
	}
	body, _, _, err := minio.Core{Client: s.client}.GetObject(ctx, s.at.Bucket, s.key(tenant, digest), options)
	if err != nil {
		return nil, explain(err)
	}
	return body, nil
}

// Touch implements queue.Store: the object is copied onto itself, within the server.
func (s *Store) Touch(ctx context.Context, tenant, digest string) error {
	key := s.key(tenant, digest)
	info, err := s.client.StatObject(ctx, s.at.Bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return explain(err)
	}
	_, err = s.client.CopyObject(ctx, minio.CopyDestOptions{
		Bucket: s.at.Bucket, Object: key, ContentType: info.ContentType, UserMetadata: info.UserMetadata,
		ReplaceMetadata: true, // without which a copy onto itself is refused
	}, minio.CopySrcOptions{Bucket: s.at.Bucket, Object: key})
	return explain(err)
}

// Delete implements queue.Store.
func (s *Store) Delete(ctx context.Context, tenant, digest string) error {
	err := s.client.RemoveObject(ctx, s.at.Bucket, s.key(tenant, digest), minio.RemoveObjectOptions{})
	if err = explain(err); errors.Is(err, queue.ErrNoArtifact) {
		return nil
	}
	return err
}

// All implements queue.Store.
func (s *Store) All(ctx context.Context) iter.Seq2[queue.Stored, error] {
	return func(yield func(queue.Stored, error) bool) {
		prefix := ""
		if s.at.Prefix != "" {
			prefix = s.at.Prefix + "/"
		}
		for info := range s.client.ListObjectsIter(ctx, s.at.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			if info.Err != nil {
				yield(queue.Stored{}, explain(info.Err))
				return
			}
			tenant, digest, ok := queue.ParseObject(strings.TrimPrefix(info.Key, prefix))
			if ok && !yield(queue.Stored{Tenant: tenant, SHA256: digest, Size: info.Size, Touched: info.LastModified}, nil) {
				return
			}
		}
	}
}

// code is the server's name of an error.
func code(err error) string {
	var answer minio.ErrorResponse
	errors.As(err, &answer)
	return answer.Code
}

// explain adds to an error the sentinel that callers branch on.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var answer minio.ErrorResponse
	var network net.Error
	known := errors.As(err, &answer)
	switch {
	case known && (answer.Code == "NoSuchKey" || answer.StatusCode == http.StatusNotFound && answer.Code != "NoSuchBucket"):
		return queue.ErrNoArtifact
	case known && (answer.StatusCode == http.StatusInsufficientStorage || strings.HasSuffix(answer.Code, "StorageFull")):
		return fmt.Errorf("%w: s3: %w", queue.ErrFull, err)
	case known && (answer.StatusCode >= http.StatusInternalServerError || answer.StatusCode == http.StatusTooManyRequests),
		errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: s3: %w", queue.ErrUnavailable, err)
	}
	return fmt.Errorf("s3: %w", err)
}
