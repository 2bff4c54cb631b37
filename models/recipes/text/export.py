"""Writes a checkpoint as a bundle in transformers' layout, and the golden numbers that Helicon's tests compare with."""

import argparse
import hashlib
import json
import os
import shutil

import torch

import generate
import model
import tokenizer
import weights

GOLDEN_PROMPTS = (
    ("english", "Once upon a time, there was a little girl named Lily.", False),
    ("chinese", "《春夜》\n李白\n春风", False),
    ("chat", "Write a story about a dog and a kite.", True),
)
GREEDY = 24  # ids of a greedy continuation
TOP = 20  # highest logits listed
FIXED = range(0, 8192, 128)  # ids whose logits are always listed


def config_json(config, coder):
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": coder.bos,
        "eos_token_id": [coder.eos, coder.eot],
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "pad_token_id": coder.pad,
        "pretraining_tp": 1,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def tokenizer_config(coder):
    decoder = {
        str(index): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for name, index in coder.special.items()
    }
    return {
        "added_tokens_decoder": decoder,
        "bos_token": tokenizer.BOS,
        "chat_template": tokenizer.CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": tokenizer.EOT,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": generate.CONTEXT,
        "pad_token": tokenizer.PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def generation_config(coder):
    return {
        "bos_token_id": coder.bos,
        "do_sample": True,
        "eos_token_id": [coder.eos, coder.eot],
        "max_new_tokens": 400,
        "pad_token_id": coder.pad,
        "repetition_penalty": 1.0,
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.95,
    }


def write_json(folder, name, document):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_bundle(folder, tensors, config, tokenizer_path):
    """Writes the files one by one under other names first, so that a reader never sees half a file."""
    part = folder.rstrip("/") + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    coder = tokenizer.Tokenizer(tokenizer_path)
    weights.write(os.path.join(part, "model.safetensors"), tensors)
    shutil.copy(tokenizer_path, os.path.join(part, "tokenizer.json"))
    write_json(part, "config.json", config_json(config, coder))
    write_json(part, "generation_config.json", generation_config(coder))
    write_json(part, "tokenizer_config.json", tokenizer_config(coder))
    names = {"bos_token": tokenizer.BOS, "eos_token": tokenizer.EOT, "pad_token": tokenizer.PAD}
    write_json(part, "special_tokens_map.json", names)
    os.makedirs(folder, exist_ok=True)
    for name in sorted(os.listdir(part)):
        os.replace(os.path.join(part, name), os.path.join(folder, name))
    os.rmdir(part)


@torch.no_grad()
def golden(bundle):
    """Ids, logits of the last position and a greedy continuation of each golden prompt, in float32."""
    writer = generate.Writer(bundle)
    with open(os.path.join(bundle, "model.safetensors"), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    cases = []
    for name, prompt, chat in GOLDEN_PROMPTS:
        coder = writer.coder
        ids = coder.chat([("user", prompt)]) if chat else [coder.bos] + coder.encode(prompt)
        logits = writer.network.logits(torch.tensor([ids]))[0, -1]
        top = torch.topk(logits, TOP)
        sequence = list(ids)
        for _ in range(GREEDY):  # without a cache: the plainest reference
            sequence.append(int(writer.network.logits(torch.tensor([sequence]))[0, -1].argmax()))
        cases.append({
            "name": name, "prompt": prompt, "chat": chat, "ids": ids,
            "top_ids": top.indices.tolist(), "top_logits": [round(value, 6) for value in top.values.tolist()],
            "fixed_ids": list(FIXED), "fixed_logits": [round(logits[index].item(), 6) for index in FIXED],
            "greedy_ids": sequence[len(ids) :], "greedy_text": coder.decode(sequence[len(ids) :]),
        })  # fmt: skip
    return {"model_sha256": digest, "dtype": "float32 from BF16 weights", "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the folder of the training run")
    parser.add_argument("--checkpoint", default="checkpoint.pt")
    parser.add_argument("--weights", choices=("average", "network"), default="average")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--golden", help="where to write the golden numbers")
    options = parser.parse_args()
    saved = torch.load(os.path.join(options.out, options.checkpoint))
    tokens = os.path.join(options.out, "tokenizer.json")
    write_bundle(options.bundle, saved[options.weights], model.Config(), tokens)
    if options.golden:
        os.makedirs(os.path.dirname(options.golden), exist_ok=True)
        with open(options.golden, "w", encoding="utf-8") as file:
            json.dump(golden(options.bundle), file, ensure_ascii=False, indent=1)
            file.write("\n")
    size = os.path.getsize(os.path.join(options.bundle, "model.safetensors"))
    print(f"steps {saved['steps']} tokens {saved['tokens']} minutes {saved['seconds'] / 60:.1f} bytes {size}")


if __name__ == "__main__":
    main()
