# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.1 against diffusers, the reference: its networks, positions, schedules, and every layout of its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from safetensors.torch import load_file, save_file

from koshi_backend.errors import KoshiError
from koshi_backend.models.autoencoder import Autoencoder, AutoencoderConfig, pack, unpack
from koshi_backend.models.flux1 import Flux1Config, Flux1Transformer, grid_ids, text_ids
from koshi_backend.models.flux2 import Flux2Transformer
from koshi_backend.models.layout import Source, autoencoder_source
from koshi_backend.models.layout1 import flux1_transformer_source
from koshi_backend.models.loader import find_family, load_autoencoder, load_transformer
from koshi_backend.models.sampling import flow_times, linear_mu, no_shift

CPU = torch.device("cpu")
DATA = Path(__file__).parent / "data"
FULL_AUTOENCODER: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
    "scaling_factor": 0.3611, "shift_factor": 0.1159,
}  # fmt: skip
ROWS, COLUMNS, TEXT = 6, 4, 7
GUIDED = pytest.mark.parametrize("guidance", [False, True], ids=["schnell", "dev"])


def published(file: str) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v) for k, v in json.loads((DATA / file).read_text()).items()}


def shapes_of(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().norm() / theirs.detach().norm())


def randomise(net: torch.nn.Module, seed: int) -> Any:
    """Weights such that nothing is near zero or one, where mistakes hide. Biases are as large as the rest."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            scale = p.shape[1:].numel() ** -0.5 if p.ndim > 1 else 0.3
            norm = p.ndim == 1 and name.endswith("weight")
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (1.0 if norm else 0.0))
    return net.eval()


def parts_of(native: torch.Tensor, source: Source, theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The diffusers tensors behind a native one: the way back from Source.join."""
    if source.change == "halves":
        native = torch.cat(list(reversed(native.chunk(2))))
    rows = [theirs[name].shape[0] for name in source.names]
    return {name: part.reshape(theirs[name].shape) for name, part in zip(source.names, native.split(rows), strict=True)}


# --- full size, on the meta device -----------------------------------------------------------------------------


@pytest.mark.parametrize(("guidance", "count"), [(True, 11_901_408_320), (False, 11_891_178_560)])
def test_the_transformer_has_exactly_the_native_names_and_shapes(guidance: bool, count: int) -> None:
    with torch.device("meta"):
        ours = shapes_of(Flux1Transformer(Flux1Config(guidance=guidance)))
    native = published("names_bfl_flux1-dev.json")
    assert ours == {name: shape for name, shape in native.items() if guidance or not name.startswith("guidance_in.")}
    assert sum(np.prod(shape) for shape in ours.values()) == count


@GUIDED
def test_the_transformer_reads_exactly_the_tensors_of_the_diffusers_folder(guidance: bool) -> None:
    with torch.device("meta"):
        ours = Flux1Transformer(Flux1Config(guidance=guidance)).state_dict()
        theirs = FluxTransformer2DModel(guidance_embeds=guidance).state_dict()
    used = set()
    for name, tensor in ours.items():
        source = flux1_transformer_source(name)
        used.update(source.names)
        parts = [theirs[part] for part in source.names]
        assert source.shape([tuple(part.shape) for part in parts]) == tensor.shape, name
    assert used == set(theirs)
    # diffusers' own converter, which is written for the full size only, agrees on where everything goes
    converted = convert_flux_transformer_checkpoint_to_diffusers(dict(ours))
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in theirs.items()}


def test_the_autoencoder_has_exactly_the_native_names_and_shapes() -> None:
    with torch.device("meta"):
        ours = shapes_of(Autoencoder(AutoencoderConfig.flux1()))
        theirs = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **FULL_AUTOENCODER)
    assert ours == published("names_bfl_flux1_ae.json")
    assert sum(np.prod(shape) for shape in ours.values()) == 83_819_683
    used = {part for name in ours for part in autoencoder_source(name, 4).names}
    assert used == set(theirs.state_dict())


def test_the_small_decoder_of_flux2_has_its_published_size() -> None:
    with torch.device("meta"):
        net = Autoencoder(AutoencoderConfig(decoder_widths=(96, 192, 384, 384)))
    count = sum(p.numel() for p in net.decoder.parameters())
    assert count - sum(p.numel() for p in net.decoder.post_quant_conv.parameters()) == 27_946_179


# --- small, with random weights --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["schnell", "dev"])
def transformer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A diffusers folder and the network in it. Its axes are not in the usual proportion."""
    net = randomise(
        FluxTransformer2DModel(
            num_layers=2, num_single_layers=3, attention_head_dim=32, num_attention_heads=3, joint_attention_dim=40,
            pooled_projection_dim=24, axes_dims_rope=(8, 12, 12), guidance_embeds=request.param,
        ),
        1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("transformer")
    net.save_pretrained(folder)
    return folder, net


def run_both(ours: Flux1Transformer, theirs: Any, references: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, ROWS * COLUMNS * (1 + references), 64, generator=generator)
    text, pooled = torch.randn(1, TEXT, 40, generator=generator), torch.randn(1, 24, generator=generator)
    ids, t = torch.cat([grid_ids(ROWS, COLUMNS, k) for k in range(1 + references)]), torch.tensor([0.7175])
    guidance = torch.tensor([3.5]) if ours.config.guidance else None
    with torch.no_grad():
        a = ours(x, text, pooled, t, ids, text_ids(TEXT), guidance)
        b = theirs(
            hidden_states=x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t, img_ids=ids,
            txt_ids=text_ids(TEXT), guidance=guidance, return_dict=False,
        )[0]  # fmt: skip
    return a, b


@pytest.mark.parametrize("references", [0, 1])
def test_the_transformer_agrees_on_random_weights(transformer: tuple[Path, Any], references: int) -> None:
    folder, theirs = transformer
    ours = load_transformer(folder, CPU, torch.float32, Flux1Transformer)
    assert ours.config.guidance == theirs.config.guidance_embeds
    assert relative(*run_both(ours, theirs, references)) < 1e-4  # observed: 0 for schnell, 5e-7 for dev


def test_guidance_text_and_references_all_have_an_effect(transformer: tuple[Path, Any]) -> None:
    ours = load_transformer(transformer[0], CPU, torch.float32, Flux1Transformer)
    generator = torch.Generator().manual_seed(3)
    x, text = torch.randn(1, 2 * 24, 64, generator=generator), torch.randn(1, TEXT, 40, generator=generator)
    pooled, t, one = torch.randn(1, 24, generator=generator), torch.tensor([0.5]), torch.tensor([1.0])
    ids = torch.cat([grid_ids(ROWS, COLUMNS), grid_ids(ROWS, COLUMNS, 1.0)])

    def picture(**changes: Any) -> torch.Tensor:
        usual = {"img": x, "txt": text, "pooled": pooled, "t": t, "img_ids": ids, "guidance": one}
        with torch.no_grad():
            return ours(**{**usual, **changes}, txt_ids=text_ids(TEXT))[:, :24]

    plain = picture()
    assert relative(picture(pooled=pooled + 1), plain) > 1e-3
    assert relative(picture(txt=text.roll(1, 2)), plain) > 1e-3
    assert relative(picture(img=x[:, :24], img_ids=ids[:24]), plain) > 1e-3
    assert relative(picture(img_ids=torch.cat([ids[:24], ids[:24]])), plain) > 1e-4  # the reference's own place
    # text tokens are all at the origin, so that their order means nothing
    assert relative(picture(txt=text.flip(1)), plain) < 1e-4
    if ours.config.guidance:
        assert relative(picture(guidance=one * 3.5), plain) > 1e-3
        with pytest.raises(ValueError, match="guidance"):
            picture(guidance=None)
    else:
        assert torch.equal(picture(guidance=None), plain)


def test_positions_are_kontext_s() -> None:
    picture = FluxKontextPipeline._prepare_latent_image_ids(1, 5, 3, CPU, torch.float32)
    assert torch.equal(grid_ids(5, 3), picture)
    reference = picture.clone()
    reference[..., 0] = 1  # as FluxKontextPipeline.prepare_latents does
    assert torch.equal(grid_ids(5, 3, 1.0), reference)
    assert torch.equal(text_ids(4), torch.zeros(4, 3))


def test_packing_is_the_pipeline_s() -> None:
    latent = torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(4))
    tokens = FluxKontextPipeline._pack_latents(latent, 2, 16, 8, 12)
    assert torch.equal(pack(latent).flatten(2).transpose(1, 2), tokens)
    assert torch.equal(unpack(pack(latent)), latent)
    assert torch.equal(FluxKontextPipeline._unpack_latents(tokens, 64, 96, 8), latent)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    net = randomise(
        AutoencoderKL(block_out_channels=(32, 32, 64, 64), layers_per_block=2, norm_num_groups=32, **FULL_AUTOENCODER),
        5,
    )
    folder = tmp_path_factory.mktemp("vae")
    net.save_pretrained(folder)
    return folder, net


def test_the_autoencoder_agrees_both_ways_on_random_weights(autoencoder: tuple[Path, Any]) -> None:
    folder, theirs = autoencoder
    ours = load_autoencoder(folder, CPU, torch.float32)
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        mean = theirs.encode(picture * 2 - 1).latent_dist.mode()
        expected = (mean - theirs.config.shift_factor) * theirs.config.scaling_factor
        latent = ours.encode(picture)
        assert latent.shape == (1, 64, 4, 6)
        assert relative(unpack(latent), expected) < 1e-4  # observed: 2e-7
        back = theirs.decode(unpack(latent) / theirs.config.scaling_factor + theirs.config.shift_factor).sample
        assert relative(ours.decode(latent), (back / 2 + 0.5).clamp(0, 1)) < 1e-4  # observed: 8e-7


def test_another_normalisation_is_taken_from_the_folder(autoencoder: tuple[Path, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(autoencoder[0], tmp_path / "vae"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "scaling_factor": 1.5, "shift_factor": 0.06}))
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    usual, other = (load_autoencoder(path, CPU, torch.float32) for path in (autoencoder[0], folder))
    mean, deviation = usual.normalisation()
    with torch.no_grad():
        raw = usual.encode(picture) * deviation + mean
        assert torch.allclose(other.encode(picture), (raw - 0.06) * 1.5, atol=1e-5)


# --- schedules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [64, 256, 1024, 2304, 4096, 6400])
@pytest.mark.parametrize("steps", [1, 4, 20, 50])
def test_schedules_are_the_scheduler_s(tokens: int, steps: int) -> None:
    dev = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256,
        max_image_seq_len=4096,
    )  # fmt: skip
    even = np.linspace(1.0, 1 / steps, steps)  # as FluxPipeline passes them
    dev.set_timesteps(sigmas=even, mu=calculate_shift(tokens))
    assert flow_times(tokens, steps, mu=linear_mu) == pytest.approx(dev.sigmas.tolist(), abs=2e-7)  # float32 there
    schnell = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    schnell.set_timesteps(sigmas=even, mu=calculate_shift(tokens))
    assert flow_times(tokens, steps, mu=no_shift) == pytest.approx(schnell.sigmas.tolist(), abs=2e-7)


# --- layouts of files ------------------------------------------------------------------------------------------


def test_conversion_is_exact_to_the_bit_both_ways(transformer: tuple[Path, Any], autoencoder: tuple[Path, Any]) -> None:
    theirs = transformer[1].state_dict()
    ours = load_transformer(transformer[0], CPU, torch.float32, Flux1Transformer).state_dict()
    back: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        back |= parts_of(tensor, flux1_transformer_source(name), theirs)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    theirs = autoencoder[1].state_dict()
    ours = load_autoencoder(autoencoder[0], CPU, torch.float32).state_dict()
    back = convert_ldm_vae_checkpoint(dict(ours), autoencoder[1].config)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def native_file(folder: Path, file: Path, prefix: str = "", **others: torch.Tensor) -> Path:
    state = load_transformer(folder, CPU, torch.float32, Flux1Transformer).state_dict()
    save_file({**{prefix + name: tensor.contiguous() for name, tensor in state.items()}, **others}, file)
    return file


@pytest.fixture(scope="module")
def proportional(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small network whose axes are in FLUX.1's proportion, as a native file cannot say otherwise."""
    net = randomise(
        FluxTransformer2DModel(
            num_layers=1, num_single_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=40,
            pooled_projection_dim=24, axes_dims_rope=(4, 14, 14), guidance_embeds=True,
        ),
        8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("proportional")
    net.save_pretrained(folder)
    return folder, net


@pytest.mark.parametrize("layout", ["native", "comfy", "whole model", "sharded", "sharded native"])
def test_every_layout_is_the_same_network(proportional: tuple[Path, Any], tmp_path: Path, layout: str) -> None:
    folder, theirs = proportional
    path = tmp_path / "model.safetensors"
    if layout == "native":
        native_file(folder, path)
    elif layout == "comfy":
        native_file(folder, path, "model.diffusion_model.")
    elif layout == "whole model":
        native_file(
            folder, path, "model.diffusion_model.",
            **{"vae.decoder.conv_in.weight": torch.zeros(1), "text_encoders.clip_l.logit_scale": torch.zeros(1)},
        )  # fmt: skip
    elif layout == "sharded":
        path = tmp_path / "folder"
        theirs.save_pretrained(path, max_shard_size="300KB")
        assert len(list(path.glob("*.safetensors"))) > 2
    else:
        state = load_file(native_file(folder, path))
        path.unlink()
        path, names = tmp_path, sorted(state)
        for k in range(3):
            save_file({name: state[name] for name in names[k::3]}, tmp_path / f"part-{k}.safetensors")
    assert find_family(path) is Flux1Transformer
    ours = load_transformer(path, CPU, torch.float32, Flux1Transformer)
    assert ours.config.axes == (4, 14, 14)
    assert relative(*run_both(ours, theirs, 1)) < 1e-4


@pytest.mark.parametrize("prefix", ["", "vae."])
def test_a_native_autoencoder_file_is_the_same_network(
    autoencoder: tuple[Path, Any], tmp_path: Path, prefix: str
) -> None:
    folder = load_autoencoder(autoencoder[0], CPU, torch.float32)
    file, state = tmp_path / "ae.safetensors", {prefix + k: v.contiguous() for k, v in folder.state_dict().items()}
    save_file({**state, **({"model.diffusion_model.img_in.weight": torch.zeros(1)} if prefix else {})}, file)
    ours = load_autoencoder(file, CPU, torch.float32)
    assert ours.config == folder.config
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), folder.parameters(), strict=True))


def test_bfloat16_is_kept_throughout(proportional: tuple[Path, Any]) -> None:
    net = load_transformer(proportional[0], CPU, torch.bfloat16, Flux1Transformer)
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
    ids, one = grid_ids(2, 2), torch.ones(1)
    x, text, pooled = torch.zeros(1, 4, 64), torch.zeros(1, 3, 40), torch.zeros(1, 24)
    half = (tensor.bfloat16() for tensor in (x, text, pooled))
    assert net(*half, one, ids, text_ids(3), one).dtype == torch.bfloat16


# --- files that are not as they should be ----------------------------------------------------------------------


def lose(state: dict[str, torch.Tensor], name: str) -> None:
    del state[name]


def widen(state: dict[str, torch.Tensor], name: str) -> None:
    state[name] = torch.cat([state[name], state[name][:1]])


def quantise(state: dict[str, torch.Tensor], name: str) -> None:
    state[name] = state[name].to(torch.int8)


def add(state: dict[str, torch.Tensor], name: str) -> None:
    state[name + ".extra"] = torch.zeros(3)


# The tensors that tell the configuration, one of each kind of block, and one that is only half of a native tensor.
TOUCHED = [
    "x_embedder.weight", "time_text_embed.text_embedder.linear_1.weight", "norm_out.linear.bias",
    "single_transformer_blocks.0.attn.norm_q.weight", "single_transformer_blocks.1.proj_mlp.bias",
    "transformer_blocks.0.attn.add_k_proj.weight",
]  # fmt: skip


@pytest.mark.parametrize("name", TOUCHED)
@pytest.mark.parametrize("harm", [lose, widen, quantise, add])
def test_a_corrupted_tensor_is_refused_by_its_name(
    proportional: tuple[Path, Any], tmp_path: Path, harm: Callable[[dict[str, torch.Tensor], str], None], name: str
) -> None:
    folder = Path(shutil.copytree(proportional[0], tmp_path / "model"))
    (file,) = folder.glob("*.safetensors")
    state = load_file(file)
    harm(state, name)
    save_file(state, file)
    with pytest.raises(KoshiError) as caught:
        load_transformer(folder, CPU, torch.float32, Flux1Transformer)
    assert caught.value.code == "bad_model"
    assert name in str(caught.value)


def test_all_faults_of_a_native_file_are_listed_together(proportional: tuple[Path, Any], tmp_path: Path) -> None:
    file = native_file(proportional[0], tmp_path / "model.safetensors")
    state = load_file(file)
    lose(state, "double_blocks.0.img_mod.lin.bias")
    widen(state, "single_blocks.1.linear1.weight")
    add(state, "final_layer.linear")
    save_file(state, file)
    with pytest.raises(KoshiError) as caught:
        load_transformer(file, CPU, torch.float32, Flux1Transformer)
    found = {p["field"]: p["message"] for p in caught.value.problems}
    assert found.keys() == {
        "double_blocks.0.img_mod.lin.bias", "single_blocks.1.linear1.weight", "final_layer.linear.extra",
    }  # fmt: skip
    assert "(449, 64)" in found["single_blocks.1.linear1.weight"]
    assert "(448, 64)" in found["single_blocks.1.linear1.weight"]


@pytest.mark.parametrize("content", ["cut in half", "cut by a byte", "empty", "a pickle", "text"])
def test_a_file_that_is_damaged_or_of_another_format_is_refused(
    proportional: tuple[Path, Any], tmp_path: Path, content: str
) -> None:
    file = native_file(proportional[0], tmp_path / "model.safetensors")
    whole = file.read_bytes()
    if content == "a pickle":
        torch.save({"img_in.weight": torch.zeros(1)}, file)
    else:
        cut = {
            "cut in half": whole[: len(whole) // 2],
            "cut by a byte": whole[:-1],
            "empty": b"",
            "text": b"weights!" * 9,
        }
        file.write_bytes(cut[content])
    with pytest.raises(KoshiError, match=r"model\.safetensors cannot be read") as caught:
        find_family(file)
    assert caught.value.code == "bad_model_file"


def test_a_tensor_in_two_files_is_refused(proportional: tuple[Path, Any], tmp_path: Path) -> None:
    native_file(proportional[0], tmp_path / "model.safetensors")
    save_file({"img_in.bias": torch.zeros(64)}, tmp_path / "other.safetensors")
    with pytest.raises(KoshiError, match=r"img_in\.bias twice, the second time in other\.safetensors"):
        find_family(tmp_path)


@pytest.mark.parametrize(
    ("channels", "variant"), [(128, "Canny or FLUX.1 Depth"), (384, "FLUX.1 Fill"), (96, "takes 96 channels")]
)
@pytest.mark.parametrize("native", [False, True])
def test_variants_with_further_channels_are_refused_by_name(
    proportional: tuple[Path, Any], tmp_path: Path, channels: int, variant: str, native: bool
) -> None:
    name, file = ("img_in.weight" if native else "x_embedder.weight"), tmp_path / "model.safetensors"
    state = load_file(native_file(proportional[0], file)) if native else dict(proportional[1].state_dict())
    state[name] = torch.zeros(64, channels)
    save_file(state, file)
    with pytest.raises(KoshiError, match=f"{variant}.*cannot run it"):
        load_transformer(file, CPU, torch.float32, Flux1Transformer)


def test_the_other_family_is_refused_in_words(proportional: tuple[Path, Any], tiny: Path) -> None:
    assert find_family(tiny / "transformer") is Flux2Transformer
    with pytest.raises(KoshiError, match=r"FLUX\.1 transformer, where one of FLUX\.2 is needed"):
        load_transformer(proportional[0], CPU, torch.float32)
    with pytest.raises(KoshiError, match=r"FLUX\.2 transformer, where one of FLUX\.1 is needed"):
        load_transformer(tiny / "transformer", CPU, torch.float32, Flux1Transformer)


@pytest.mark.parametrize("axes", [[4, 14], [4, 14, 16], [5, 13, 14], [4, 28, 0], "4,14,14", None, [True, 14, 14]])
def test_axes_that_make_no_sense_are_refused(proportional: tuple[Path, Any], tmp_path: Path, axes: object) -> None:
    folder = Path(shutil.copytree(proportional[0], tmp_path / "model"))
    (folder / "config.json").write_text(json.dumps({"axes_dims_rope": axes}))
    with pytest.raises(KoshiError, match="axes_dims_rope"):
        load_transformer(folder, CPU, torch.float32, Flux1Transformer)


def test_autoencoders_that_do_not_fit_are_refused(autoencoder: tuple[Path, Any], tmp_path: Path) -> None:
    state, file = dict(autoencoder[1].state_dict()), tmp_path / "ae.safetensors"
    decoder = {name: tensor for name, tensor in state.items() if name.startswith("decoder.")}
    save_file({name.removeprefix("decoder."): tensor for name, tensor in decoder.items()}, file)
    with pytest.raises(KoshiError, match="only one half of an autoencoder"):
        load_autoencoder(file, CPU, torch.float32)
    save_file({**state, "decoder.conv_in.weight": torch.zeros(64, 4, 3, 3)}, file)  # Stable Diffusion's
    with pytest.raises(KoshiError, match=r"4 latent channels\. FLUX\.1 has 16, FLUX\.2 has 32"):
        load_autoencoder(file, CPU, torch.float32)
    save_file({name: tensor for name, tensor in state.items() if name != "decoder.conv_in.weight"}, file)
    with pytest.raises(KoshiError, match=r"decoder\.conv_in\.weight: this tensor is missing"):
        load_autoencoder(file, CPU, torch.float32)
    save_file({**state, "encoder.mid_block.attentions.0.to_q.weight": torch.zeros(64, 63)}, file)
    with pytest.raises(KoshiError, match=r"encoder\.mid_block\.attentions\.0\.to_q\.weight: the shape is \(64, 63\)"):
        load_autoencoder(file, CPU, torch.float32)
    save_file({**state, "quant_conv.weight": torch.zeros(32, 32, 1, 1)}, file)
    with pytest.raises(KoshiError, match=r"quant_conv\.weight: Koshi does not know this tensor"):
        load_autoencoder(file, CPU, torch.float32)
