"""What this machine can do for a workspace, and what to mend."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import av
import torch

from mousai.errors import UserError
from mousai.text import load_text_model
from mousai.workspace import Workspace

_DECODERS = ("aac", "alac", "ape", "flac", "mp3", "opus", "vorbis", "wavpack", "wmav2")
_LOW_SPACE = 10e9  # bytes


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact about the machine."""

    subject: str
    ok: bool
    text: str


def examine(workspace: Workspace | None) -> list[Finding]:
    """All findings; those on disks and text encoder need a workspace."""
    findings = [_versions(), gpu_finding(), _memory(), _decoders()]
    if workspace is not None:
        places = [workspace.manifests, workspace.shards, workspace.latents, workspace.runs, workspace.generated]
        findings += [_disk(place) for place in places]
        findings.append(_text(workspace.preset.generator.text_encoder))
    return findings


def gpu_finding() -> Finding:
    """The GPU and its memory, or why torch sees none."""
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding(subject="GPU", ok=True, text=f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.version.cuda is None:
        why = "this torch was built without CUDA: install the default build from the package index"
    elif not Path("/proc/driver/nvidia/version").exists():
        why = "no NVIDIA driver is loaded; the preset tiny trains on the CPU, the others want a GPU"
    else:
        driver = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
        why = f"the driver is too old for CUDA {torch.version.cuda} (CUDA 13 needs driver 580 or newer): {driver}"
    return Finding(subject="GPU", ok=False, text=why)


def _versions() -> Finding:
    return Finding(subject="software", ok=True, text=f"Python {platform.python_version()}, torch {torch.__version__}")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(subject="memory", ok=total > 7, text=f"{total:.0f} GiB, {cores} cores")


def _decoders() -> Finding:
    missing = [name for name in _DECODERS if name not in av.codecs_available]
    text = f"without {', '.join(missing)}: install the av wheel" if missing else ", ".join(_DECODERS)
    return Finding(subject="decoders", ok=not missing, text=text)


def _disk(folder: Path) -> Finding:
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    text = f"{free / 1e9:.0f} GB free" if writable else f"{existing} is read-only: point [paths] elsewhere"
    return Finding(subject=f"disk of {folder.name}", ok=writable and free > _LOW_SPACE, text=text)


def _text(name: str) -> Finding:
    try:
        load_text_model(name, weights=False)
    except UserError as error:
        return Finding(subject="text encoder", ok=False, text=str(error))
    return Finding(subject="text encoder", ok=True, text=name)
