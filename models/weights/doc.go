// Package weights reads named tensors from safetensors files, one or sharded, and
// hands them out by path: store.Sub("self_attn").Tensor("q_proj.weight", out, in).
//
// Local files are memory-mapped where the system can, so that opening costs little
// and the page cache is shared by processes; other file systems are read into memory.
// Every field of a header is validated when a file is opened and every shape when a
// tensor is asked for, so that what a network holds is known to be sound.
//
// The format is that of https://github.com/huggingface/safetensors.
package weights
