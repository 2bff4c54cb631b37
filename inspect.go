package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"helicon/gateway"
	"helicon/generators/media"
	"helicon/queue"
)

// inspect tells what the bytes of an artifact say about it: of pictures their size and what
// they were made by.
func inspect(content io.Reader, about queue.Artifact) (gateway.Facts, error) {
	var facts gateway.Facts
	if !strings.HasPrefix(about.MediaType, "image/") {
		return facts, nil
	}
	data, err := io.ReadAll(io.LimitReader(content, media.MaxFile+1))
	if err != nil {
		return facts, fmt.Errorf("artifact %s: %w", about.SHA256, err)
	}
	info, err := media.Inspect(data)
	if err != nil {
		return facts, err
	}
	facts = gateway.Facts{Width: info.Width, Height: info.Height, Parameters: info.Meta.Parameters}
	if r := info.Meta.Restored(); r != nil {
		if facts.Generation, err = json.Marshal(r); err != nil {
			return facts, fmt.Errorf("artifact %s: %w", about.SHA256, err)
		}
	}
	return facts, nil
}
