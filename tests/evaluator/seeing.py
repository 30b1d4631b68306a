"""A tiny Qwen2.5-VL with random weights, as a model folder."""

import json
from pathlib import Path

from trainer.first_run import character_tokenizer

IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
START, END = "<|vision_start|>", "<|vision_end|>"
TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}="
)


def write_model(folder: Path) -> None:
    """Two layers of 64 for text, two of 32 for vision: 170,000 parameters, one token a character."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = character_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [START, END, IMAGE, VIDEO]})
    tokenizer.chat_template = TEMPLATE
    token = {name: tokenizer.convert_tokens_to_ids(name) for name in (START, END, IMAGE, VIDEO)}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 96,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6], "rope_type": "default"},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token[IMAGE],
        video_token_id=token[VIDEO],
        vision_start_token_id=token[START],
        vision_end_token_id=token[END],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    images = {
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": size,
        "processor_class": "Qwen2_5_VLProcessor",
    }
    processors = {"preprocessor": "Qwen2VLImageProcessor", "video_preprocessor": "Qwen2VLVideoProcessor"}
    for name, kind in processors.items():
        key = "video_processor_type" if name.startswith("video") else "image_processor_type"
        (folder / f"{name}_config.json").write_text(json.dumps({**images, key: kind}))
