// Package web holds the studio: the page in which a person makes things with
// Helicon. It is HTML, CSS and ES modules as the browser takes them, with no build
// step and nothing of third parties, and it speaks to the gateway through the public
// API alone, so whatever it can do, any client can.
//
// The page keeps to a strict content security policy: scripts and styles are files
// of its own origin, and every text of a model or a user is set as text, never as HTML.
package web

import (
	"embed"
	"io/fs"
)

//go:embed index.html icon.svg css js
var files embed.FS

// Files returns the studio's files, with index.html at the root.
func Files() fs.FS { return files }
