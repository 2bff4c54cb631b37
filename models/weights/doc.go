// Package weights reads named tensors from files of three formats, one or several a
// model, and hands them out by path: store.Sub("self_attn").Tensor("q_proj.weight",
// out, in). It also writes GGUF.
//
//   - safetensors, https://github.com/huggingface/safetensors;
//   - GGUF of versions 2 and 3, little-endian, with its metadata and its block types,
//     https://github.com/ggml-org/ggml/blob/master/docs/gguf.md;
//   - checkpoints of PyTorch's torch.save, of which nothing is executed: names in the
//     pickle stand for a few known constructors, or the file is refused.
//
// Local files are memory-mapped where the system can, so that opening costs little
// and the page cache is shared by processes; other file systems are read into memory.
// Every field of a header is validated when a file is opened and every shape when a
// tensor is asked for, so that what a network holds is known to be sound. ReadHeader
// tells what a model has and takes without its data. Store.View shows a store's tensors
// under other names, cut, turned or changed.
package weights
