# SPDX-License-Identifier: GPL-3.0-or-later
"""What `koshi models describe` says: what a model is made of, what it needs, what may be done with it.

The networks are built on the meta device, which takes no memory: from the files where the model is here, else as it is
published. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import KoshiError
from .checkpoint import Part
from .checkpoint_check import kind_of, stored_facts
from .checkpoint_contents import FAMILY_NAMES
from .family import open_text
from .installed import installed_files
from .loader import open_autoencoder, open_transformer
from .parts import ModelFiles, folder_files, part_of, single_files
from .pull_words import page, size
from .registry import PARTS, ModelInfo, Traits, find_model, find_traits

CPU = torch.device("cpu")


def describe(name: str) -> dict[str, Any]:
    """Describe a model by name, folder or file.

    Returns {"ok", "model", "title", "family", "run_like", "repository", "page", "file", "licence", "gated",
    "installed", "folder", "steps", "guidance", "strength", "side", "references", "negative_prompt", "parameters",
    "tensors", "bytes", "components", "files", "needs"}.
    components: [{"component", "network", "tensors", "parameters", "bytes", "stored"}] of what is loaded, bytes in
    bfloat16; stored: what its files hold ({"tensors", "parameters", "bytes", "types"}), None where there are none.
    files: [{"name", "bytes"}]; of a model that is not here only the folders of which it is made, with None.
    needs: {"download", "disk", "memory", "memory_model"}, in bytes: to be fetched, on the disk, and on the card with
    nothing offloaded and with whole parts taking turns. Pictures come on top.
    licence, repository, gated, page: None where nothing tells them.
    Raises KoshiError as `find_model` and the reading of headers do.
    """
    found, traits = find_model(name), find_traits(name)
    info = found if isinstance(found, ModelInfo) else None
    files = _files(found, traits)
    networks = _published(info) if files is None else _networks(files)
    components = [_component(part, net, files, traits) for part, net in networks.items()]
    there = {} if files is None else {name: file.stat().st_size for name, file in files.listed()}
    held: list[dict[str, Any]] = [{"name": name, "bytes": count} for name, count in there.items()]
    on_disk = sum(there.values())
    repository = info.repository if info and info.repository else None
    wanted = int(info.download_gb * 1e9) if info else 0
    if not held and info:
        held = [{"name": f"{part}/", "bytes": None} for part in PARTS[info.traits.family]]
    loaded = [component["bytes"] for component in components]
    return {
        "ok": True,
        "model": name,
        "title": info.title if info else None,
        "family": FAMILY_NAMES[traits.family],
        "run_like": kind_of(traits),
        "repository": repository,
        "page": page(info) if info and repository else None,
        "file": info.file or None if info else str(found),
        "licence": info.licence if info else None,
        "gated": info.gated if info else None,
        "installed": files is not None,
        "folder": None if files is None else str(files.name),
        "steps": traits.steps,
        "guidance": traits.guidance,
        "strength": traits.strength,
        "side": traits.side,
        "references": traits.references,
        "negative_prompt": traits.contrasted,
        "parameters": sum(component["parameters"] for component in components),
        "tensors": sum(component["tensors"] for component in components),
        "bytes": sum(loaded),
        "components": components,
        "files": held,
        "needs": {
            "download": 0 if files is not None else wanted,
            "disk": on_disk or wanted,
            "memory": sum(loaded),
            "memory_model": _taking_turns(components),
        },
    }


def _files(found: ModelInfo | Path, traits: Traits) -> ModelFiles | None:
    if isinstance(found, ModelInfo):
        return installed_files(found)
    return folder_files(found, traits) if found.is_dir() else single_files(found, traits)


def _published(info: ModelInfo | None) -> dict[str, nn.Module]:
    from .published import published_networks

    if info is None:
        raise KoshiError("bad_model", "There are no files of it.")  # find_model has refused it before
    return published_networks(info)


def _networks(files: ModelFiles) -> dict[str, nn.Module]:
    """As the files have them; their headers are compared with the networks on the way."""
    transformer = open_transformer(files.transformer)
    texts = open_text(files, CPU, torch.bfloat16, transformer.net).networks
    named = dict(zip(files.texts, texts, strict=True))
    return {"transformer": transformer.net, "vae": open_autoencoder(files.autoencoder, files.decoder).net, **named}


def _component(name: str, net: nn.Module, files: ModelFiles | None, traits: Traits) -> dict[str, Any]:
    tensors = net.state_dict(keep_vars=True)
    single = {id(tensor): tensor for tensor in tensors.values()}.values()  # an embedding may have two names
    stored = None
    if files is not None:
        part: Part = {"transformer": "transformer", "vae": "autoencoder"}.get(name) or part_of(traits.family, name)  # type: ignore[assignment]
        paths = {"transformer": files.transformer, "vae": files.autoencoder, **files.texts}
        stored = stored_facts(paths[name], part)
    return {
        "component": name,
        "network": type(net).__name__,
        "tensors": len(single),
        "parameters": sum(tensor.numel() for tensor in single),
        "bytes": sum(_bytes(tensor) for tensor in single),
        "stored": stored,
    }


def _bytes(tensor: torch.Tensor) -> int:
    """In bfloat16, as a card has them."""
    return tensor.numel() * (2 if tensor.is_floating_point() else tensor.element_size())


def _taking_turns(components: list[dict[str, Any]]) -> int:
    """The transformer and the text encoders take turns on the card; the autoencoder is small and stays."""
    by_name = {component["component"]: component["bytes"] for component in components}
    texts = sum(count for name, count in by_name.items() if name.startswith("text"))
    return max(by_name["transformer"], texts) + by_name["vae"]


def as_text(report: dict[str, Any]) -> str:
    """The same for a person."""
    needs = report["needs"]
    gate = {True: ", gated: its licence has to be accepted first", False: "", None: ""}[report["gated"]]
    lines = [f"{report['title'] or report['model']}: {report['family']}, run like {report['run_like']}"]
    if report["licence"]:
        lines.append(f"  licence    {report['licence']}{gate}")
    if report["page"]:
        lines.append(f"  page       {report['page']}")
    references = "looks at references" if report["references"] else "without references"
    negative = "negative prompt" if report["negative_prompt"] else "no negative prompt"
    lines.append(f"  likes      {report['steps']} steps, {report['side']} x {report['side']}, {references}, {negative}")
    lines.append(f"  here       {report['folder'] or 'no: koshi models pull ' + report['model']}")
    lines.append(f"  disk       {size(needs['disk'])}" + (", to be fetched" if needs["download"] else ""))
    lines.append(
        f"  memory     {size(needs['memory'])}; {size(needs['memory_model'])} where its parts take turns on the "
        "card; pictures come on top"
    )
    for one in report["components"]:
        types = "" if one["stored"] is None else f", stored as {', '.join(one['stored']['types'])}"
        lines.append(
            f"  {one['component']:15} {one['parameters'] / 1e6:9.1f} million in {one['tensors']:4} tensors, "
            f"{size(one['bytes'])}{types}"
        )
    return "\n".join(lines)
