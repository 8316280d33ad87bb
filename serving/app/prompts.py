"""From a request's texts, chats and images to what the model takes."""

from __future__ import annotations

import base64
import binascii
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...loader.base.chat_template import check_template
from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AttachError, UsageError
from .failure import RequestError, invalid, too_large
from .requests import Message
from .tasks import Tasks

_PIXELS = 50_000_000
"""The most pixels of an image: more could take gigabytes once it is unpacked."""
_DATA = "data:image/"
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What Pillow may try. It would run other programs for some (Ghostscript for EPS)."""


class Prompts:
    """Makes the inputs of rows. Every method may be called from any thread.

    Args:
        tokenizer: The base's; ``None`` for a model of images.
        tasks: What the base can be asked for.
        vocabulary: How many tokens the base knows; ``None`` where that does not matter.
        folder: The base's files, with the image processor's config.
    """

    def __init__(
        self, tokenizer: Any, tasks: Tasks, vocabulary: int | None, folder: Path | None
    ) -> None:
        self._tokenizer, self._tasks, self._vocabulary = tokenizer, tasks, vocabulary
        self._lock = threading.Lock()  # fast tokenizers do not stand being changed while they run
        self._processor = image_processor(folder) if tasks.images else None
        if tasks.chat:
            example = [{"role": "user", "content": "Hello"}]
            template = tokenizer.get_chat_template()
            check_template(template, example, tokenizer.special_tokens_map)

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of a chat, up to where the answer begins.

        Raises:
            RequestError: The base has no chat template, or its template rejects the messages.
        """
        if not self._tasks.chat:
            raise RequestError(
                codes.NOT_FOR_THIS_BASE.finding(
                    "The base has no chat template",
                    hint="Send the complete prompt to /v1/completions."
                    if self._tasks.generate
                    else None,
                )
            )
        plain = [
            {"role": one.role, "content": one.text}
            | ({} if one.name is None else {"name": one.name})
            for one in messages
        ]
        try:
            with self._lock:
                encoded = self._tokenizer.apply_chat_template(
                    plain, add_generation_prompt=True, return_dict=True
                )
        except Exception as error:  # a template raises what it likes
            raise invalid(
                "The base's chat template rejects these messages",
                "messages",
                found=f"{type(error).__name__}: {str(error)[:200]}",
            ) from error
        return self._checked(encoded["input_ids"], "messages")

    def tokens(self, prompt: str | Sequence[int], param: str) -> tuple[int, ...]:
        """The tokens of a text, or tokens that are known already.

        Raises:
            RequestError: No tokens, or tokens that the base does not know.
        """
        if isinstance(prompt, str):
            with self._lock:
                return self._checked(self._tokenizer(prompt)["input_ids"], param)
        return self._checked(prompt, param)

    def pixels(self, url: str | Sequence[int], param: str) -> Any:
        """An image in a ``data:`` URL as the model takes it: float (channels, height, width).

        Raises:
            RequestError: Not such a URL, or an image that cannot be read or is too large.
        """
        from PIL import Image

        if not isinstance(url, str) or not url.startswith(_DATA) or ";base64," not in url[:100]:
            raise invalid(
                "The base takes images", param, expected="a URL data:image/TYPE;base64,CONTENT"
            )
        try:
            content = base64.b64decode(url.partition(";base64,")[2], validate=True)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            if image.width * image.height > _PIXELS:
                raise too_large(
                    "The image is too large",
                    param,
                    found=f"{image.width} x {image.height}",
                    expected=f"at most {_PIXELS} pixels",
                )
            image = image.convert("RGB")
        except RequestError:
            raise
        except (
            binascii.Error,
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as e:
            raise invalid("Cannot read the image", param, found=type(e).__name__) from e
        assert self._processor is not None
        with self._lock:
            return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    def text(self, ids: list[int]) -> str:
        """The text of tokens, without special ones."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _checked(self, ids: Sequence[int], param: str) -> tuple[int, ...]:
        known = self._vocabulary
        if not ids:
            raise invalid("The prompt has no tokens", param)
        if known is not None and (wrong := next((one for one in ids if one >= known), None)):
            raise invalid(
                "The base does not know a token of the prompt",
                param,
                found=wrong,
                expected=f"0 to {known - 1}",
            )
        return tuple(ids)


def image_processor(folder: Path | None) -> Any:
    """transformers' image processor of a base's files.

    Raises:
        UsageError: Pillow is not installed.
        AttachError: transformers cannot load it.
    """
    from transformers import AutoImageProcessor

    from ...manifests.findings import loader as loader_codes

    try:
        import PIL.Image  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise UsageError(
            codes.SERVE_UNAVAILABLE.finding(
                "Pillow is not installed", hint="Install it with `pip install pillow`."
            )
        ) from error
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise AttachError(
            loader_codes.TOKENIZER_NOT_LOADED.finding(
                "Cannot load the base's image processor",
                found=f"{type(error).__name__}: {str(error).strip()[:300]}",
            )
        ) from error
