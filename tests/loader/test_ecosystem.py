"""Other libraries work with an adapted model, with the same answers as in PEFT."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from support.near import close, differs
from support.peft_adapters import (
    adapted,
    ids,
    logits,
    peft_loads,
    peft_saves,
    tiny_bert,
    tiny_llama,
    tiny_t5,
    word_tokenizer,
)
from torch import nn


@pytest.fixture
def llama(tmp_path: Path) -> AdaptedModel:
    base = tiny_llama()
    return adapted(base, peft_saves(base, tmp_path / "it", target_modules="all-linear"))


def test_streaming_gives_the_tokens_that_generate_gives(llama: AdaptedModel) -> None:
    from transformers import TextIteratorStreamer

    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    words = word_tokenizer()
    prompt = ids(1)
    whole = llama.generate(input_ids=prompt, **settings)[0, prompt.shape[1] :]
    streamer = TextIteratorStreamer(words, skip_prompt=True)
    thread = threading.Thread(
        target=llama.generate, kwargs={"input_ids": prompt, "streamer": streamer, **settings}
    )
    thread.start()
    assert "".join(streamer).split() == words.decode(whole).split()
    thread.join()


def test_a_text_generation_pipeline_answers_with_the_adapter(llama: AdaptedModel) -> None:
    from transformers import pipeline

    pipe = pipeline("text-generation", model=llama, tokenizer=word_tokenizer())
    settings = {"max_new_tokens": 6, "do_sample": False}
    answer = pipe("w5 w6 w7", **settings)
    with llama.using(None):
        assert pipe("w5 w6 w7", **settings) != answer
    assert pipe("w5 w6 w7", **settings) == answer


def test_sentence_transformers_accepts_an_adapted_backbone(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = tmp_path / "encoder"
    tiny_bert().bert.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    transformer = Transformer(str(folder))
    encoder = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    backbone = transformer.model
    saved = peft_saves(backbone, tmp_path / "it", target_modules=["query", "value"])
    sentences = ["w5 w6", "w7 w8 w9 w10"]
    plain = encoder.encode(sentences, convert_to_tensor=True)

    transformer.model = peft_loads(backbone, saved.folder)
    wanted = encoder.encode(sentences, convert_to_tensor=True)
    model = adapted(backbone, saved)
    transformer.model = model
    found = encoder.encode(sentences, convert_to_tensor=True)
    assert close(found, wanted)
    assert differs(found, plain)
    with model.using(None):
        assert torch.equal(encoder.encode(sentences, convert_to_tensor=True), plain)


def test_a_trained_classification_head_gives_pefts_classes(tmp_path: Path) -> None:
    from transformers import pipeline

    base = tiny_bert()
    saved = peft_saves(
        base, tmp_path / "it", task_type="SEQ_CLS", target_modules=["query", "value"]
    )
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    classify = pipeline("text-classification", model=model, tokenizer=word_tokenizer(), top_k=None)
    scores = classify("w5 w6 w7")
    with model.using(None):
        assert classify("w5 w6 w7") != scores


def test_a_seq2seq_model_generates_as_in_peft(tmp_path: Path) -> None:
    base = tiny_t5()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q", "v", "wo"])
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6}
    for beams in (1, 3):
        wanted = peft_loads(base, saved.folder).generate(
            input_ids=ids(), num_beams=beams, **settings
        )
        found = model.generate(input_ids=ids(), num_beams=beams, **settings)
        assert torch.equal(found, wanted)


def test_a_vision_model_classifies_as_in_peft(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=8,
        patch_size=4,
        num_labels=3,
        initializer_range=0.3,
    )
    base = ViTForImageClassification(config).eval()
    targets = ["q_proj", "v_proj"] if "q_proj" in repr(base) else ["query", "value"]
    saved = peft_saves(
        base, tmp_path / "it", target_modules=targets, modules_to_save=["classifier"]
    )
    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    assert differs(logits(base), saved.answer, 1e-2)
    rows = logits(model, adapter_names=["it", None])
    assert close(rows[0], saved.answer[0])
    assert close(rows[1], logits(base)[1])


class Plain(nn.Module):
    """No model of transformers: no config, no generate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 12)
        self.second = nn.Sequential(nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x: torch.Tensor, *, twice: bool = False) -> torch.Tensor:
        out = self.second(self.first(x))
        return out * 2 if twice else out


def test_a_plain_module_keeps_its_signature(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    base = Plain().eval()
    x = torch.randn(3, 8)
    trained = get_peft_model(Plain(), LoraConfig(target_modules=["first", "1"], r=2))
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    trained.save_pretrained(str(tmp_path / "it"))
    wanted = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "it"))(x, twice=True)

    model = adapterdock.attach(
        base, {"version": 1, "base": {}, "adapters": {"it": {"source": str(tmp_path / "it")}}}
    )
    model.set_adapter("it")
    assert close(model(x, twice=True), wanted)
    assert differs(base(x, twice=True), wanted)
