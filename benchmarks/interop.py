"""Whether others load what we export: each toolkit as released, in an environment of its own, on a real workspace.

    python benchmarks/interop.py WORKSPACE FOLDER [--only NAME …]

WORKSPACE has been sharded. FOLDER gets the environments (some GB; kept for the next run), the exports, what pip said,
and interop.json. An environment sees this interpreter's packages behind its own, so that torch is not installed five
times. What does not install is reported with its error. What is checked is in interop_checks.py. Hugging Face
`datasets` decodes through FFmpeg's shared libraries: install FFmpeg first.
"""

import argparse
import json
import platform
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from mousai.storage import write_json

HERE = Path(__file__).resolve().parent
FORMATS = ("hf", "audiocraft", "lhotse")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A toolkit, and the ways to install it, each of one or more calls of pip: the first way that works counts."""

    name: str
    ways: tuple[tuple[str, ...], ...]


PEERS = (
    Peer(name="webdataset", ways=(("install webdataset",),)),
    Peer(name="datasets", ways=(("install datasets torchcodec==0.11.*",),)),  # torchcodec: that of torch 2.11
    Peer(
        name="stable-audio-tools",
        ways=(("install stable-audio-tools", "uninstall -y torch", "install --no-deps torchcodec==0.11.*"),),
    ),  # pip may replace torch by one for which there is no torchaudio: so the shared one is taken
    Peer(name="lhotse", ways=(("install lhotse urllib3",),)),  # which 1.33 imports without saying so
    Peer(
        name="audiocraft",
        ways=(
            ("install audiocraft",),
            (
                "install einops num2words spacy librosa hydra-core hydra-colorlog julius docopt",
                "install --no-deps audiocraft flashy dora-search encodec demucs xformers torchvision==0.26.* openunmix "
                "torchmetrics lightning-utilities lameenc treetable retrying submitit",
            ),
        ),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=[peer.name for peer in PEERS], default=[p.name for p in PEERS])
    arguments = parser.parse_args()
    workspace, folder = arguments.workspace.resolve(), arguments.folder.resolve()
    for name in FORMATS:
        words = ["export", "-w", str(workspace), "--format", name, "--out", str(folder / "exports" / name)]
        subprocess.run([sys.executable, "-m", "cli", *words], check=True, cwd=HERE.parent)
    path = folder / "interop.json"
    known = json.loads(path.read_text())["peers"] if path.exists() else {}
    for peer in PEERS:
        if peer.name in arguments.only:
            known[peer.name] = examine(peer, workspace, folder)
            print(row(peer.name, known[peer.name]), flush=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    machine = {"python": platform.python_version(), "platform": platform.platform(), "commit": commit}
    write_json(path, {"machine": machine, "peers": known})


def examine(peer: Peer, workspace: Path, folder: Path) -> dict[str, object]:
    """Install and check one toolkit; what went wrong is part of the result."""
    python = environment(folder / peer.name)
    failed = []
    for way in peer.ways:
        error = install(python, way, folder / f"{peer.name}.log")
        if error is None:
            break
        failed.append(error)
    else:
        return {"failed_installs": failed}
    call = [python, HERE / "interop_checks.py", peer.name, workspace, folder / "exports"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=folder)
    (folder / f"{peer.name}-check.log").write_text(done.stdout + done.stderr)
    last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]
    found = json.loads(last) if done.returncode == 0 else {"error": last}
    return {"failed_installs": failed, **found}


def environment(folder: Path) -> Path:
    """The Python of a virtual environment that sees the packages of this one behind its own."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "zz_shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, way: tuple[str, ...], log: Path) -> str | None:
    """None, or the line of pip's that says what is wrong."""
    for words in way:
        call = [sys.executable, "-m", "pip", "--python", python, *words.split()]
        done = subprocess.run(call, capture_output=True, text=True)
        with log.open("a") as file:
            file.write(done.stdout + done.stderr)
        if done.returncode:
            lines = (done.stdout + done.stderr).splitlines()
            said = [line.strip() for line in lines if "could not" in line or "not found" in line or "ERROR" in line]
            return (said or lines)[-1]
    return None


def row(name: str, found: dict[str, object]) -> str:
    """A row of the table in docs/export.md."""
    state = "; ".join(str(each) for each in found.get("facts", ()) or [found.get("error", "does not install")])  # type: ignore[attr-defined]
    refused = "".join(f" (as released it does not install: {each})" for each in found["failed_installs"])  # type: ignore[attr-defined]
    return f"| {name} {found.get('version', '')} | {state}{refused} |"


if __name__ == "__main__":
    main()
