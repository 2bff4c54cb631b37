package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"helicon/queue"
	"helicon/queue/s3"
)

// storeFlags say where artifacts are kept.
type storeFlags struct {
	Artifacts string `help:"Keep artifacts in an S3-compatible bucket, with the credentials of the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), of ~/.aws or of the machine; beside the queue unless given." placeholder:"s3://BUCKET/PREFIX?endpoint=URL&region=NAME"`
}

// validate refuses a URL that names no bucket.
func (f storeFlags) validate() error {
	if f.Artifacts == "" {
		return nil
	}
	if _, err := s3.Parse(f.Artifacts); err != nil {
		return fmt.Errorf("--artifacts: %w", err)
	}
	return nil
}

// open returns the store that the flags name, waiting for its server until that can be
// reached; nil is the queue's own.
func (f storeFlags) open(ctx context.Context, env *environment) (queue.Store, error) {
	if f.Artifacts == "" {
		return nil, nil
	}
	at, err := s3.Parse(f.Artifacts)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		s, err := s3.Open(ctx, at, nil)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, queue.ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		if !told {
			env.log.Error("the store of artifacts cannot be reached; trying again until it can", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
