package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

// settingsFile is helicon.yaml: one mapping from the names of flags, of whatever
// command, to their values. It counts less than flags and environment.
//
//	addr: 127.0.0.1:9000
//	models: /srv/models
//	nats: [nats://a:4222, nats://b:4222]
type settingsFile map[string]any

// loadSettings is a kong.ConfigurationLoader.
func loadSettings(r io.Reader) (kong.Resolver, error) {
	settings := settingsFile{}
	if err := yaml.NewDecoder(r).Decode(&settings); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return settings, nil
}

// Validate refuses names that no command knows.
func (s settingsFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	err := kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			known[flag.Name] = true
		}
		return next(nil)
	})
	if err != nil {
		return err
	}
	for name := range s {
		if !known[name] {
			return fmt.Errorf("settings file: there is no setting %q; the settings are the flags of helicon --help and helicon serve --help without their dashes", name)
		}
	}
	return nil
}

// Resolve returns the setting of a flag that neither the command line nor the
// environment has set.
func (s settingsFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	inEnvironment := func(name string) bool { _, ok := os.LookupEnv(name); return ok }
	if slices.ContainsFunc(flag.Tag.Envs, inEnvironment) {
		return nil, nil
	}
	switch value := s[flag.Name].(type) {
	case nil:
		return nil, nil
	case []any:
		words := make([]string, len(value))
		for i, v := range value {
			words[i] = fmt.Sprint(v)
		}
		return strings.Join(words, ","), nil
	case map[string]any:
		return nil, fmt.Errorf("settings file: %s: want one value or a list", flag.Name)
	default:
		return fmt.Sprint(value), nil
	}
}
