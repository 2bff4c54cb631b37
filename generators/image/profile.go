package image

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"helicon/models/diffusion"
	"helicon/models/hub"
	"helicon/models/upscale"
)

// role is what a bundle is for, in words that complete "it is".
type role string

// The roles.
const (
	rolePainter   role = "a model that makes pictures"
	roleUpscaler  role = "a network that enlarges pictures"
	roleLoRA      role = "a LoRA, which changes a model"
	roleControl   role = "a ControlNet, which steers a model"
	roleEmbedding role = "an embedding, which teaches a model a word"
	roleTinyVAE   role = "a tiny autoencoder, which decodes in the place of a model's own"
)

// profile is what a bundle's small files and headers say about how to use it.
type profile struct {
	bundle *hub.Bundle
	role   role
	err    error // why it cannot be used

	network upscale.Info // of an upscaler
}

// tasks lists what the bundle can be asked for.
func (p *profile) tasks() []string {
	switch p.role {
	case rolePainter:
		if strings.Contains(p.bundle.Architectures[0], "Inpaint") {
			return []string{taskInpaint}
		}
		return []string{taskGenerate, taskEdit, taskInpaint, taskVariation}
	case roleUpscaler:
		return []string{taskUpscale}
	}
	return []string{}
}

// Serves reports whether a bundle is one for pictures, sound or not.
func Serves(b *hub.Bundle) bool { return roleOf(b) != "" }

// Check says why a bundle for pictures cannot be used, as far as its small files and
// headers tell.
func Check(b *hub.Bundle) error {
	if b.Problem != nil {
		return b.Problem
	}
	return newProfile(b, roleOf(b)).err
}

// roleOf tells what a bundle is for by its architecture, "" if it is not for pictures.
func roleOf(b *hub.Bundle) role {
	if len(b.Architectures) == 0 {
		return ""
	}
	switch name := b.Architectures[0]; {
	case strings.HasSuffix(name, "Pipeline"):
		return rolePainter
	case slices.Contains(hub.Upscalers(), name):
		return roleUpscaler
	case name == hub.LoRA:
		return roleLoRA
	case name == "ControlNetModel":
		return roleControl
	case name == hub.Embedding:
		return roleEmbedding
	case name == "AutoencoderTiny":
		return roleTinyVAE
	}
	return ""
}

// profile reads the small files of a bundle, unless it knows them; nil if the bundle is not
// for pictures. The log tells once why one cannot be used.
func (g *Generator) profile(b *hub.Bundle) *profile {
	as := roleOf(b)
	if as == "" || b.Problem != nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.profiles[b.ID]
	if p == nil || p.bundle != b {
		p = newProfile(b, as)
		g.profiles[b.ID] = p
		if p.err != nil {
			g.log.Warn("a model cannot be used", "model", b.ID, "source", b.Source, "err", p.err)
		}
	}
	return p
}

func newProfile(b *hub.Bundle, as role) *profile {
	p := &profile{bundle: b, role: as}
	switch as {
	case rolePainter:
		_, p.err = diffusion.Estimate(b.Files, diffusion.Options{})
	case roleUpscaler:
		p.network, p.err = describeUpscaler(b.Files)
	case roleLoRA, roleEmbedding:
		_, p.err = weightsFile(b.Files)
	}
	return p
}

// reject remembers what only loading could find: the bundle cannot be used as it is.
func (g *Generator) reject(b *hub.Bundle, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.profiles[b.ID]; p != nil && p.bundle == b && p.err == nil {
		rejected := *p // the one before is in use
		rejected.err = err
		g.profiles[b.ID] = &rejected
		g.log.Warn("a model cannot be used", "model", b.ID, "source", b.Source, "err", err)
	}
}

// weightsFile returns the name of the one file of weights of a bundle.
func weightsFile(files fs.FS) (string, error) {
	names, err := hub.Checkpoints(files)
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", errors.New("it has no file of weights")
	case len(names) > 1:
		return "", fmt.Errorf("it has several files of weights: %s", strings.Join(names, ", "))
	}
	return names[0], nil
}
