"""Encoders, classifiers, models of images and sequence-to-sequence models."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.generate_text import load_tokenizer
from adapterdock.serving.app.limits import Limits
from adapterdock.serving.app.tasks import tasks_of
from adapterdock.serving.app.vectors import chances, pooled
from support.near import close
from support.peft_adapters import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5
from support.served import ask, served, write_served

TEXTS = {"a": "w4", "b": "w5 w6 w7", "__base__": "w8 w9"}
GATHER = Limits(wait_seconds=0.3)


def at_once(client: Any, path: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """One request for each adapter, at the same time."""

    def post(item: tuple[str, Any]) -> Any:
        answer = client.post(path, json={"model": item[0], "input": item[1]})
        assert answer.status_code == 200, answer.text
        return answer.json()

    with ThreadPoolExecutor(len(inputs)) as pool:
        return dict(zip(inputs, pool.map(post, inputs.items()), strict=True))


def run_alone(manifest: Path, texts: dict[str, str], **options: Any) -> dict[str, Any]:
    """What the model returns for each adapter's text by itself."""
    model = adapterdock.load(manifest)
    tokenizer = load_tokenizer(model)
    found: dict[str, Any] = {}
    for name, text in texts.items():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        adapter = None if name == "__base__" else name
        with torch.no_grad():
            found[name] = model(ids, adapter=adapter, **options)
    return found


def test_a_classifier_answers_mixed_rows_like_single_runs(tmp_path: Path) -> None:
    both = {name: {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"} for name in "ab"}
    manifest = write_served(tmp_path, tiny_bert(), both)
    texts = {"a": TEXTS["a"], "b": TEXTS["b"]}
    with served(manifest, limits=GATHER) as client:
        answers = at_once(client, "/v1/classify", texts)
        assert client.get("/v1/models").json()["data"][1]["tasks"] == ["classify"]
        wrong = client.post("/v1/completions", json={"model": "a", "prompt": "w4"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "AD971")
        assert client.post("/v1/embeddings", json={"model": "a", "input": "x"}).status_code == 400
    for name, out in run_alone(manifest, texts).items():
        row = answers[name]["data"][0]
        probs = torch.softmax(out.logits[0], dim=0)
        assert close(torch.tensor(row["probs"]), probs)
        assert row["label"] == f"LABEL_{int(probs.argmax())}"
        assert row["num_classes"] == 3


def test_an_encoder_embeds_mixed_rows_like_single_runs(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    targets = {"target_modules": ["query", "value"], "task_type": "FEATURE_EXTRACTION"}
    manifest = write_served(tmp_path, BertModel(config).eval(), {"a": targets, "b": targets})
    with served(manifest, limits=GATHER) as client:
        answers = at_once(client, "/v1/embeddings", TEXTS)
        request = {"model": "b", "input": TEXTS["b"], "encoding_format": "base64"}
        packed = client.post("/v1/embeddings", json=request).json()["data"][0]["embedding"]
    for name, out in run_alone(manifest, TEXTS).items():
        mean = torch.nn.functional.normalize(out.last_hidden_state.mean(1), dim=1)[0]
        assert close(torch.tensor(answers[name]["data"][0]["embedding"]), mean)
        assert answers[name]["usage"]["prompt_tokens"] == len(TEXTS[name].split())
    raw = torch.frombuffer(bytearray(base64.b64decode(packed)), dtype=torch.float32)
    assert close(raw, torch.tensor(answers["b"]["data"][0]["embedding"]))


def test_a_sequence_to_sequence_model_answers_mixed_rows_like_single_runs(tmp_path: Path) -> None:
    targets = {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"}
    manifest = write_served(tmp_path, tiny_t5(), {"a": targets, "b": targets})
    with served(manifest, limits=GATHER) as client, ThreadPoolExecutor(3) as pool:
        said = dict(zip(TEXTS, pool.map(lambda n: ask(client, n, TEXTS[n]), TEXTS), strict=True))
        chat = {"model": "a", "messages": [{"role": "user", "content": "w4"}]}
        assert client.post("/v1/chat/completions", json=chat).status_code == 400
    model = adapterdock.load(manifest)
    tokenizer = load_tokenizer(model)
    for name, text in TEXTS.items():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        adapter = None if name == "__base__" else name
        out = model.generate(ids, adapter=adapter, max_new_tokens=8, do_sample=False)
        expected = tokenizer.decode(out[0, 1:], skip_special_tokens=True)
        assert said[name].split() == expected.split()


def image(colour: tuple[int, int, int], form: str = "PNG") -> str:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (20, 12), colour).save(content, form)
    return f"data:image/{form.lower()};base64," + base64.b64encode(content.getvalue()).decode()


def test_a_model_of_images_classifies_mixed_rows(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        initializer_range=0.3,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    base = ViTForImageClassification(config).eval()
    modules = [name for name, _ in base.named_modules() if name.endswith(("q_proj", "query"))]
    targets = {"target_modules": modules}
    (tmp_path / "base").mkdir()
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "base")
    manifest = write_served(tmp_path, base, {"a": targets, "b": targets}, tokenizer=False)
    colours = {"a": image((255, 0, 0)), "b": image((0, 9, 0)), "__base__": image((1, 2, 250))}
    with served(manifest, limits=GATHER) as client:
        mixed = at_once(client, "/v1/classify", colours)
        for name, url in colours.items():
            one = client.post("/v1/classify", json={"model": name, "input": url}).json()["data"][0]
            assert close(torch.tensor(mixed[name]["data"][0]["probs"]), torch.tensor(one["probs"]))
            assert one["label"] in ("cat", "dog")
        jpeg = client.post("/v1/classify", json={"model": "a", "input": image((9, 9, 9), "JPEG")})
        assert jpeg.status_code == 200
        rare = image((9, 9, 9), "EPS")  # Pillow would run Ghostscript
        for bad in ("w4", rare, "data:image/png;base64,####", "data:image/png;base64,aGVsbG8="):
            refused = client.post("/v1/classify", json={"model": "a", "input": bad})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "AD968"), bad


def test_what_does_not_count_is_not_in_an_embedding() -> None:
    states = torch.tensor([[[torch.inf, 1.0], [3.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[0, 1, 0]])
    for pooling in ("mean", "cls", "last"):
        assert close(pooled(states, mask, pooling), torch.tensor([[0.6, 0.8]]))  # type: ignore[arg-type]


def test_probabilities_of_one_label_several_labels_and_one_of_them() -> None:
    logits = torch.tensor([[0.0, 2.0]])
    assert close(chances(logits, several=True), torch.sigmoid(logits))
    assert close(chances(logits, several=False), torch.softmax(logits, 1))
    assert close(chances(torch.tensor([[7.5]]), several=False), torch.tensor([[7.5]]))


@pytest.mark.parametrize(
    ("base", "names"),
    [
        (tiny_llama, ["chat", "completions", "embeddings"]),
        (tiny_gpt2, ["chat", "completions", "embeddings"]),
        (tiny_bert, ["classify"]),
        (tiny_t5, ["completions"]),
    ],
)
def test_what_a_base_can_be_asked_for(base: Any, names: list[str]) -> None:
    assert tasks_of(base(), chat_template=True, main_input="input_ids").names == names
