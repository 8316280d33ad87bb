"""A chat template is tried in its own process before it is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.loader.base import chat_template
from adapterdock.loader.base.chat_template import check_template
from adapterdock.loader.generate_text import encode, load_tokenizer
from adapterdock.manifests.findings.errors import AttachError
from support.shelf import Shelf, manifest_of

ASKED = [{"role": "user", "content": "What is the capital of France?"}]

REAL = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m.content }}"
    "{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama": "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}"
    "{% set ns.n = ns.n + 1 %}{% if loop.index0 % 2 == 0 %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% continue %}{% endif %}{% endfor %}",
    "objects": "{{ raise_exception('roles must alternate') }}",
    "tools": "{{ messages | tojson(indent=2) }}{{ strftime_now('%Y') }}{{ dict(a=1)['a'] }}",
}
HOSTILE = {
    "multiplies": "{{ 'x' * 10000000000 }}",
    "pads": "{{ '%10000000000s' % 'x' }}",
    "doubles": "{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "writes much": "{% for i in range(90000) %}{{ 'x' * 100 }}{% endfor %}",
    "never ends": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(9) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "is no template": "{% for %}",
    "leaves the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages.append(1) }}",
}


@pytest.mark.parametrize("template", REAL.values(), ids=REAL)
def test_a_real_template_passes(template: str) -> None:
    check_template(template, ASKED, {"bos_token": "<s>"})


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_expensive_or_broken_templates_are_refused(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "TEMPLATE_SECONDS", 5.0)
    with pytest.raises(AttachError) as caught:
        check_template(template, ASKED, {})
    assert caught.value.findings[0].code == "AD394"


def test_a_base_template_is_checked_before_it_is_used(shelf: Shelf, tmp_path: Path) -> None:
    def with_template(template: str) -> Any:
        base = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(shelf.base, base)
        config = json.loads((base / "tokenizer_config.json").read_text())
        config["chat_template"] = template
        (base / "tokenizer_config.json").write_text(json.dumps(config))
        model = adapterdock.load(manifest_of(shelf, base / "m", base={"model": base}))
        return load_tokenizer(model)

    good = with_template("{% for m in messages %}{{ m.content }} w7{% endfor %}")
    plain = good("w5 w9 w7", return_tensors="pt").input_ids
    assert encode(good, "w5 w9", chat=True)["input_ids"].tolist() == plain.tolist()
    with pytest.raises(AttachError, match="AD394"):
        encode(with_template(HOSTILE["multiplies"]), "w5", chat=True)
