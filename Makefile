# Everything that a developer or CI does with the tree has a name here.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: run build test race fuzz lint cross emulate check bench image

run:            ## start everything
	go run .

build:          ## the static binary
	CGO_ENABLED=0 go build -trimpath -o dist/helicon .

test:
	go test ./...

race:
	go test -race ./...

fuzz:           ## each fuzz target for a short while
	@go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read pkg dir; do \
	  grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go 2>/dev/null | sed 's/func //' | sort -u | while read f; do \
	    echo "$$pkg $$f"; go test $$pkg -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-10s} || exit 1; \
	  done || exit 1; \
	done

lint:           ## gofmt, vet, staticcheck, direction of imports
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run $(GOLANGCI) run ./...

cross:          ## the other platforms compile
	GOOS=darwin GOARCH=arm64 go vet ./...
	GOOS=windows GOARCH=amd64 go vet ./...
	GOOS=linux GOARCH=arm64 go vet ./...

emulate:        ## another architecture computes the same, under qemu-user
	GOARCH=arm64 go test -exec qemu-aarch64-static -short ./models/tensor
	GOARCH=arm64 go test -exec qemu-aarch64-static -run TestGolden ./models/lm

check: lint cross race

bench:
	go test -run '^$$' -bench . ./models/... ./queue

image:
	docker build -t helicon .
