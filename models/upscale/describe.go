package upscale

import (
	"fmt"
	"strconv"

	"helicon/models/weights"
)

// Architecture is a kind of network, by the name of its class.
type Architecture string

// The architectures.
const (
	RRDBNet         Architecture = "RRDBNet"
	SRVGGNetCompact Architecture = "SRVGGNetCompact"
)

// Info is what a network is.
type Info struct {
	Architecture Architecture
	Scale        int // of width and height: 1, 2, 4 or 8 for RRDBNet
	Features     int // channels
	Growth       int // channels that a layer of a dense block adds: RRDBNet
	Layers       int // convolutions between the first and the last, or blocks of RRDBNet
	Overlap      int // of tiles, in pixels of the source

	prefix  string    // of all names
	names   rrdbNames // of RRDBNet
	shuffle int       // side of the square of pixels that come in as channels of one
	ups     int       // doublings
}

// root returns the store of the network's tensors.
func (n *Info) root(s *weights.Store) *weights.Store {
	if n.prefix == "" {
		return s
	}
	return s.Sub(n.prefix)
}

// Describe finds out what network the tensors make, from their names and shapes. The error
// wraps ErrUnsupported if it is none that this package computes.
func Describe(s *weights.Store) (Info, error) {
	n := Info{shuffle: 1}
	for _, prefix := range []string{"params_ema", "params"} {
		if len(s.Sub(prefix).Names()) > 0 {
			n.prefix = prefix // of several the better one
			break
		}
	}
	s = n.root(s)
	for _, names := range rrdbLayouts(s) {
		if s.Has(names.first+".weight") && s.Has(names.dense(0, 1, 1)+".weight") {
			n.names = names
			return n, n.describeRRDB(s)
		}
	}
	if s.Has("body.0.weight") {
		return n, n.describeCompact(s)
	}
	return n, fmt.Errorf("upscale: neither the tensors of RRDBNet nor those of SRVGGNetCompact: %w", ErrUnsupported)
}

// rrdbNames is how the tensors of an RRDBNet are called.
type rrdbNames struct {
	first, body, hr, last string
	ups                   []string
	layer                 [4]string // before the numbers of a block, its part and its layer, and after them
}

// dense returns the name of a layer: of block i, dense part 1 to 3, layer 1 to 5.
func (n *rrdbNames) dense(i, part, layer int) string {
	return n.layer[0] + strconv.Itoa(i) + n.layer[1] + strconv.Itoa(part) + n.layer[2] + strconv.Itoa(layer) + n.layer[3]
}

// rrdbLayouts returns the three ways of naming, the last as far as the store has it.
func rrdbLayouts(s *weights.Store) []rrdbNames {
	realESRGAN := rrdbNames{
		first: "conv_first", body: "conv_body", hr: "conv_hr", last: "conv_last",
		layer: [4]string{"body.", ".rdb", ".conv", ""}, ups: numbered(s, "conv_up"),
	}
	esrgan := rrdbNames{
		first: "conv_first", body: "trunk_conv", hr: "HRconv", last: "conv_last",
		layer: [4]string{"RRDB_trunk.", ".RDB", ".conv", ""}, ups: numbered(s, "upconv"),
	}
	// The older one numbers the layers, also those without weights: a convolution after
	// each doubling, and two at the end.
	old := rrdbNames{first: "model.0", layer: [4]string{"model.1.sub.", ".RDB", ".conv", ".0"}}
	blocks := 0
	for s.Has(old.dense(blocks, 1, 1) + ".weight") {
		blocks++
	}
	old.body = "model.1.sub." + strconv.Itoa(blocks)
	const mostLayers = 16
	for i := 2; i < mostLayers; i++ {
		if name := "model." + strconv.Itoa(i); s.Has(name + ".weight") {
			old.ups = append(old.ups, name)
		}
	}
	if n := len(old.ups); n >= 2 {
		old.hr, old.last, old.ups = old.ups[n-2], old.ups[n-1], old.ups[:n-2]
	}
	return []rrdbNames{realESRGAN, esrgan, old}
}

// numbered returns the names stem1, stem2 and so on that the store has.
func numbered(s *weights.Store, stem string) []string {
	var names []string
	for i := 1; ; i++ {
		name := stem + strconv.Itoa(i)
		if !s.Has(name + ".weight") {
			return names
		}
		names = append(names, name)
	}
}

// Limits of networks: far beyond those that there are.
const (
	maxFeatures = 1 << 10
	maxLayers   = 1 << 10
	maxScale    = 8
)

func (n *Info) describeRRDB(s *weights.Store) error {
	n.Architecture, n.ups = RRDBNet, len(n.names.ups)
	first, err := kernel(s, n.names.first)
	if err != nil {
		return err
	}
	dense, err := kernel(s, n.names.dense(0, 1, 1))
	if err != nil {
		return err
	}
	n.Features, n.Growth = first.out, dense.out
	for s.Has(n.names.dense(n.Layers, 1, 1) + ".weight") {
		n.Layers++
	}
	for n.shuffle < 4 && first.in > 3*n.shuffle*n.shuffle {
		n.shuffle *= 2 // pixels that are taken together, so that the picture grows by less
	}
	n.Scale, n.Overlap = 1<<n.ups/n.shuffle, rrdbOverlap*n.shuffle
	if first.in != 3*n.shuffle*n.shuffle || n.ups > 3 || n.Scale < 1 || min(n.Features, n.Growth) < 1 || max(n.Features, n.Growth) > maxFeatures || n.Layers > maxLayers {
		return fmt.Errorf("upscale: RRDBNet of %d channels in, %d features, growth %d, %d blocks and %d doublings: %w",
			first.in, n.Features, n.Growth, n.Layers, n.ups, ErrUnsupported)
	}
	const others = 4 // first, body, hr and last
	return n.complete(s, 2*(n.Layers*15+n.ups+others))
}

func (n *Info) describeCompact(s *weights.Store) error {
	n.Architecture = SRVGGNetCompact
	last := 0
	for s.Has("body." + strconv.Itoa(last+2) + ".weight") {
		last += 2
	}
	first, err := kernel(s, "body.0")
	if err != nil {
		return err
	}
	end, err := kernel(s, "body."+strconv.Itoa(last))
	if err != nil {
		return err
	}
	n.Features, n.Layers = first.out, last/2-1
	n.Overlap = last/2 + 1 // each convolution looks one pixel further
	for n.Scale = 1; n.Scale < maxScale && 3*n.Scale*n.Scale < end.out; n.Scale++ {
	}
	if first.in != 3 || end.out != 3*n.Scale*n.Scale || n.Features < 1 || n.Features > maxFeatures || n.Layers < 0 || n.Layers > maxLayers {
		return fmt.Errorf("upscale: SRVGGNetCompact of %d channels in, %d features, %d layers and %d channels out: %w",
			first.in, n.Features, n.Layers, end.out, ErrUnsupported)
	}
	return n.complete(s, 3*last/2+2) // a slope goes with each convolution but the last
}

// complete returns an error unless the store has so many tensors: another network may have
// all of this one's names, and more.
func (n *Info) complete(s *weights.Store, want int) error {
	if got := len(s.Names()); got != want {
		return fmt.Errorf("upscale: %d tensors, but %s of %d layers has %d: %w", got, n.Architecture, n.Layers, want, ErrUnsupported)
	}
	return nil
}

// channels of a convolution.
type channels struct{ in, out int }

// kernel returns those of a convolution of 3×3 pixels.
func kernel(s *weights.Store, name string) (channels, error) {
	t, err := s.Lookup(name + ".weight")
	if err != nil {
		return channels{}, err
	}
	if len(t.Shape) != 4 || t.Shape[2] != 3 || t.Shape[3] != 3 {
		return channels{}, fmt.Errorf("upscale: tensor %q of shape %v is no convolution of 3×3: %w", t.Name, t.Shape, ErrUnsupported)
	}
	return channels{in: t.Shape[1], out: t.Shape[0]}, nil
}
