"""The plugin's settings come from the environment, and what is invalid is refused by name."""

from __future__ import annotations

import pytest
from adapterdock import UsageError
from adapterdock.serving.vllm.settings import read_settings


def test_an_empty_environment_means_that_the_plugin_is_not_in_use() -> None:
    settings = read_settings({})
    assert settings.manifest is None
    assert not settings.is_named
    assert settings.period == 30.0


def test_every_setting_is_read() -> None:
    settings = read_settings(
        {
            "ADAPTERDOCK_MANIFEST": "adapters.yaml",
            "ADAPTERDOCK_PERIOD": "2.5",
            "ADAPTERDOCK_LAZY": "1",
            "ADAPTERDOCK_FOLLOW": "lock",
            "ADAPTERDOCK_ALLOW_RUNTIME_ROUTES": "true",
            "ADAPTERDOCK_ACCEPT": "AD963, AD364",
            "VLLM_PLUGINS": "adapterdock,other",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": " True ",
            "VLLM_USE_RUST_FRONTEND": "1",
        }
    )
    assert settings.manifest == "adapters.yaml"
    assert settings.period == 2.5
    assert settings.lazy and settings.allow_runtime_routes
    assert not settings.follow_aliases and read_settings({}).follow_aliases
    assert settings.accept == ("AD963", "AD364")
    assert settings.is_named
    assert settings.runtime_updating and settings.rust_frontend


@pytest.mark.parametrize("text", ["0", "-5", "soon", "nan", "inf"])
def test_a_period_that_is_not_a_positive_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="ADAPTERDOCK_PERIOD") as caught:
        read_settings({"ADAPTERDOCK_PERIOD": text})
    assert caught.value.findings[0].found == text


def test_every_invalid_setting_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        read_settings({"ADAPTERDOCK_LAZY": "perhaps", "ADAPTERDOCK_PERIOD": "soon"})
    assert [finding.code for finding in caught.value.findings] == ["AD960", "AD960"]


@pytest.mark.parametrize("plugins", ["", "adapterdock2", "lora_filesystem_resolver"])
def test_vllm_compares_complete_names_of_plugins(plugins: str) -> None:
    assert not read_settings({"VLLM_PLUGINS": plugins}).is_named
