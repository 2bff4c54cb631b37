//go:build unix && !slow

package main

import "time"

// fireFor is how long processes are killed.
const fireFor = 45 * time.Second
