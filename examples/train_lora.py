# SPDX-License-Identifier: GPL-3.0-or-later
"""Train guides/cyanotype.safetensors, a LoRA that lets koshi-tiny paint in blue and white. Needs Koshi's environment.

    python examples/train_lora.py            some three minutes on two processor cores

The pictures to learn from are koshi-tiny's own, coloured anew by a few lines of NumPy. Each is learnt from the very
noise that it came from, so that the model need not guess which picture is meant, and stays sharp in four steps.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from koshi_backend.models.family import load_family
from koshi_backend.models.flux2 import grid_ids, text_ids
from koshi_backend.models.model import FluxModel, tokens_of
from koshi_backend.models.sampling import flow_times

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "koshi_backend" / "weights" / "koshi-tiny"
OUT = HERE / "guides" / "cyanotype.safetensors"
SIDE, STEPS, RANK, PICTURES, BATCH = 128, 4, 4, 64, 8
BLUE, PAPER = (0.02, 0.10, 0.30), (0.96, 0.97, 0.94)
PLACES = ("a modern city", "a pine forest", "a calm sea", "snowy mountains", "a golden desert", "a coral reef",
          "an old city", "a stone tunnel")  # fmt: skip
TIMES = ("at dawn", "at noon", "at sunset", "at night")


def main() -> None:
    """Draw, learn, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = load_family(TINY, torch.device("cpu"), torch.float32, "koshi-tiny")
    examples = list(drawn(model))
    lora = Lora(model.transformer, RANK)
    learn(model, lora, examples, options.updates)
    lora.save(options.out)
    print(f"wrote {options.out}, {options.out.stat().st_size / 1000:.0f} kB")


def drawn(model: FluxModel) -> Iterator[tuple[str, Tensor, Tensor]]:
    """A prompt, the noise, and its picture as a cyanotype, as a latent."""
    for seed, (time, place) in zip(range(PICTURES), itertools.cycle(itertools.product(TIMES, PLACES))):
        prompt, noise = f"{place} {time}, photo", model.noise(seed, SIDE, SIDE)
        picture = model.decode(model.denoise(prompt, noise, steps=STEPS))[0].permute(1, 2, 0).numpy()
        blue = torch.from_numpy(cyanotype(picture)).permute(2, 0, 1)[None]
        yield prompt, noise, model.encode_picture(blue).clone()


def cyanotype(picture: np.ndarray) -> np.ndarray:
    """A picture, float32 [H, W, 3] in 0..1, in one colour: its light from blue to paper."""
    light = picture @ np.array((0.299, 0.587, 0.114))
    low, high = np.percentile(light, (2, 98))
    light = ((light - low) / max(high - low, 0.1)).clip(0.0, 1.0)[..., None]
    return (light * np.array(PAPER) + (1.0 - light) * np.array(BLUE)).astype(np.float32)


class Lora:
    """Two thin matrices at each linear layer of the single blocks."""

    def __init__(self, net: nn.Module, rank: int) -> None:
        self.parts: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Linear) and name.startswith("single_blocks."):
                down = nn.Parameter(torch.randn(rank, layer.in_features) * layer.in_features**-0.5)
                up = nn.Parameter(torch.zeros(layer.out_features, rank))
                self.parts[name] = down, up
                layer.register_forward_hook(self._added(down, up))

    @staticmethod
    def _added(down: Tensor, up: Tensor):  # type: ignore[no-untyped-def]
        return lambda layer, args, out: out + args[0] @ down.T @ up.T

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [part for pair in self.parts.values() for part in pair]

    def save(self, path: Path) -> None:
        """In Black Forest Labs' names, as most trainers write them."""
        state = {}
        for name, (down, up) in self.parts.items():
            state[f"diffusion_model.{name}.lora_A.weight"] = down.detach().half().contiguous()
            state[f"diffusion_model.{name}.lora_B.weight"] = up.detach().half().contiguous()
        save_file(state, path, {"about": "koshi-tiny paints in blue and white; examples/train_lora.py"})


def learn(model: FluxModel, lora: Lora, examples: list[tuple[str, Tensor, Tensor]], updates: int) -> None:
    """Fit the LoRA: at each of the model's own times, the velocity from the noise to its cyanotype."""
    net, side = model.transformer.requires_grad_(False), SIDE // 16
    times = flow_times(side * side, STEPS, mu=model.mu)[:-1]
    context = {prompt: model.text.mixed([(prompt, 1.0)]).states.clone() for prompt, _, _ in examples}
    pick = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(lora.parameters, lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    ids = grid_ids(side, side)
    for update in range(updates):
        time = times[update % len(times)]
        chosen = [examples[int(k)] for k in torch.randint(len(examples), (BATCH,), generator=pick)]
        noise, blue = (torch.cat([one[part] for one in chosen]) for part in (1, 2))
        words = torch.cat([context[prompt] for prompt, _, _ in chosen])
        told = torch.full((BATCH,), time)
        x = tokens_of(time * noise + (1.0 - time) * blue)
        velocity = net(x, words, told, ids, text_ids(words.shape[1]), None)
        loss = nn.functional.mse_loss(velocity.float(), tokens_of(noise - blue))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if update % 50 == 0 or update == updates - 1:
            print(f"update {update}: {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
