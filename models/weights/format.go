package weights

import (
	"io"
	"path"
)

// Format is a kind of file.
type Format string

// The formats, by the names that users see.
const (
	Safetensors Format = "safetensors"
	GGUF        Format = "gguf"
	// PyTorch has tensors under the path of the keys that lead to them. Of a checkpoint
	// with a state_dict, model_state_dict or model among other things, only these are read.
	PyTorch Format = "pytorch"
)

// suffixes has the endings of file names. Data in other files are no weights.
var suffixes = map[string]Format{
	".safetensors": Safetensors,
	".gguf":        GGUF,
	".bin":         PyTorch, ".pt": PyTorch, ".pth": PyTorch, ".ckpt": PyTorch,
}

// FormatOf returns the format that the ending of a file's name stands for, and "" if
// it is none of .safetensors, .gguf, .bin, .pt, .pth and .ckpt.
func FormatOf(name string) Format { return suffixes[path.Ext(name)] }

// parseFunc reads the header of a file of a size in bytes. Its errors name the key or
// the tensor where there is one to name, and leave the file to the caller.
type parseFunc func(r io.ReaderAt, size int64) ([]Pair, []entry, error)

// parserOf returns the reader of a format's headers.
func parserOf(f Format) parseFunc {
	switch f {
	case GGUF:
		return parseGGUF
	case PyTorch:
		return parseTorch
	default:
		return parseSafetensors
	}
}
