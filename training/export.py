# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 5, the export: a diffusers folder (Flux2KleinPipeline, bfloat16), written without diffusers.

The backend's layout says which diffusers tensors a native one is made of; this goes the same way backwards.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from koshi_backend.models.layout import Source, autoencoder_source, transformer_source

from .autoencoder import trained
from .encoder import GROUPS, WIDTHS
from .net import DOUBLE, HEAD, HIDDEN, SINGLE, TEXT_LAYERS, TEXT_LENGTH, TEXT_WIDTH, Net, load_net
from .optim import cast
from .stage import Room, commit

LARGEST = 25_000_000  # bytes of the whole folder
WRITTEN_FOR = "0.42.1"  # the diffusers version whose layout this is
MODEL_INDEX = {
    "_class_name": "Flux2KleinPipeline", "_diffusers_version": WRITTEN_FOR, "is_distilled": True,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Qwen3ForCausalLM"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"], "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
}  # fmt: skip
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": WRITTEN_FOR, "num_train_timesteps": 1000,
    "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
    "max_image_seq_len": 4096, "time_shift_type": "exponential", "shift_terminal": None, "stochastic_sampling": False,
    "invert_sigmas": False, "use_beta_sigmas": False, "use_exponential_sigmas": False, "use_karras_sigmas": False,
}  # fmt: skip
TRANSFORMER = {
    "_class_name": "Flux2Transformer2DModel", "_diffusers_version": WRITTEN_FOR, "attention_head_dim": HEAD,
    "axes_dims_rope": [HEAD // 4] * 4, "eps": 1e-6, "guidance_embeds": False, "in_channels": 128,
    "joint_attention_dim": TEXT_WIDTH * len(TEXT_LAYERS), "mlp_ratio": 3.0, "num_attention_heads": HIDDEN // HEAD,
    "num_layers": DOUBLE, "num_single_layers": SINGLE, "out_channels": None, "patch_size": 1, "rope_theta": 2000,
    "timestep_guidance_channels": 256,
}  # fmt: skip
AUTOENCODER = {
    "_class_name": "AutoencoderKLFlux2", "_diffusers_version": WRITTEN_FOR, "act_fn": "silu", "batch_norm_eps": 1e-4,
    "batch_norm_momentum": 0.1, "block_out_channels": list(WIDTHS), "decoder_block_out_channels": None,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "in_channels": 3,
    "out_channels": 3, "latent_channels": 32, "layers_per_block": 1, "mid_block_add_attention": True,
    "norm_num_groups": GROUPS, "patch_size": [2, 2], "sample_size": 256, "use_post_quant_conv": True,
    "use_quant_conv": True,
}  # fmt: skip
KOSHI = {
    "name": "koshi-tiny", "text_encoder_out_layers": list(TEXT_LAYERS), "max_sequence_length": TEXT_LENGTH,
    "num_inference_steps": 4, "guidance_scale": 1.0, "height": 256, "width": 256,
    "note": "The small text encoder has 4 layers; pass text_encoder_out_layers=(1,2,3) and max_sequence_length=24 "
    "instead of the pipeline's defaults (9,18,27) and 512.",
}  # fmt: skip
LOGS = ("autoencoder", "settle", "transformer", "distill")


def parts_of(native: Tensor, source: Source) -> dict[str, Tensor]:
    """The diffusers tensors behind a native one; the inverse of Source.join."""
    if source.change == "halves":
        native = torch.cat(list(reversed(native.chunk(2))))
    if source.change == "conv":
        native = native.flatten(1)
    if len(source.names) == 1:
        return {source.names[0]: native}
    return dict(zip(source.names, native.chunk(len(source.names)), strict=True))


def diffusers_state(net: nn.Module, source: Callable[[str], Source], dtype: torch.dtype) -> dict[str, Tensor]:
    """A native module's tensors under diffusers' names. Statistics stay in float32, counts stay whole."""
    state: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        keep = not tensor.is_floating_point() or name.startswith("bn.")
        for part, value in parts_of(tensor, source(name)).items():
            state[part] = (value if keep else value.to(dtype)).clone().contiguous()
    return state


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_folder(net: Net, autoencoder: nn.Module, out: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the whole folder; nothing of it exists under its own name before all of it is there."""
    aside = out.with_name(out.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    write_json(aside / "model_index.json", MODEL_INDEX)
    write_json(aside / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(aside / "koshi.json", KOSHI)
    parts = (
        ("transformer", TRANSFORMER, diffusers_state(net.transformer, transformer_source, dtype)),
        ("vae", AUTOENCODER, diffusers_state(autoencoder, lambda name: autoencoder_source(name, len(WIDTHS)), dtype)),
    )
    for part, config, state in parts:
        write_json(aside / part / "config.json", config)
        save_file(state, aside / part / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    cast(net.text, dtype)
    transformers_logging.disable_progress_bar()
    net.text.save_pretrained(aside / "text_encoder")
    net.tokenizer.save_pretrained(aside / "tokenizer")
    # transformers 5 writes names that 4.x does not know; both know these.
    settings = aside / "tokenizer" / "tokenizer_config.json"
    text = settings.read_text(encoding="utf-8").replace("TokenizersBackend", "PreTrainedTokenizerFast")
    settings.write_text(text.replace("extra_special_tokens", "additional_special_tokens"), encoding="utf-8")
    for file in aside.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(aside, out)


def export(room: Room, out: Path | None = None, net_name: str = "distill") -> Path:
    """Export a run: folder `model` beside the checkpoints, with logs and plots in its `training`. Returns the folder.

    Raises ValueError when it comes out larger than LARGEST.
    """
    out = out or room.folder / "model"
    cpu = torch.device("cpu")
    write_folder(load_net(room.folder, net_name, cpu, torch.float32), trained(room.folder), out)
    write_json(out / "training" / "export.json", {"commit": commit(), "seed": room.seed, "net": net_name})
    for name in LOGS:
        for file in (room.folder / f"{name}.jsonl", room.folder / f"{name}.png"):
            if file.is_file():
                shutil.copyfile(file, out / "training" / file.name)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if size > LARGEST:
        raise ValueError(f"{out} has {size / 1e6:.1f} MB; koshi-tiny must stay under {LARGEST / 1e6:.0f} MB")
    print(f"export: {out}, {size / 1e6:.1f} MB", flush=True)
    return out
