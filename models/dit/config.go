package dit

import (
	"encoding/json"
	"fmt"
	"slices"

	"helicon/models/tensor"
)

// parse decodes a configuration over the defaults in c, after a look at its class.
func parse(data []byte, c any, classes ...string) error {
	var head struct {
		Class string `json:"_class_name"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("dit: configuration: %w", err)
	}
	if head.Class != "" && !slices.Contains(classes, head.Class) {
		return fmt.Errorf("dit: class %q, want %q: %w", head.Class, classes[0], ErrUnsupported)
	}
	if err := json.Unmarshal(data, c); err != nil {
		return fmt.Errorf("dit: configuration: %w", err)
	}
	return nil
}

// field is a number of a configuration and its largest value; the smallest is 1.
type field struct {
	name       string
	value, max int
}

// Limits of configurations: networks are at most this large.
const (
	maxWidth    = 1 << 16
	maxLayers   = 1 << 10
	maxChannels = 1 << 12
	maxSide     = 1 << 12 // latent pixels, and positions on an axis
	maxPatch    = 1 << 6
)

func checkFields(fields ...field) error {
	for _, f := range fields {
		if f.value < 1 || f.value > f.max {
			return fmt.Errorf("dit: %s %d, want 1 to %d: %w", f.name, f.value, f.max, ErrUnsupported)
		}
	}
	return nil
}

// checkHeads returns an error unless heads of a size make a width that can be computed.
func checkHeads(heads, dim int) error {
	err := checkFields(field{"num_attention_heads", heads, maxWidth}, field{"attention_head_dim", dim, maxWidth})
	if err == nil {
		err = checkFields(field{"width", heads * dim, maxWidth})
	}
	if err == nil && heads*dim%4 != 0 {
		err = fmt.Errorf("dit: width %d, want a multiple of 4: %w", heads*dim, ErrUnsupported)
	}
	return err
}

// parseActivation returns the activation of a feed-forward network by diffusers' name.
func parseActivation(name string) (tensor.Activation, error) {
	switch name {
	case "gelu-approximate":
		return tensor.GELUTanh, nil
	case "gelu":
		return tensor.GELU, nil
	}
	return 0, fmt.Errorf("dit: activation_fn %q: %w", name, ErrUnsupported)
}
