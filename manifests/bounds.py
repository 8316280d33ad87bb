"""Every limit on input from outside: bytes, counts, depths, and the time to wait for it.

Files, folders and servers belong to somebody else, so they must not decide how much memory or time
it takes to find out that they are wrong. Real ones are far below each limit. Sizes are in bytes,
times in seconds.
"""

from __future__ import annotations

MIB = 1 << 20

# -- manifests, policies and locks --------------------------------------------------------------

MANIFEST_BYTES = 1 * MIB
"""A manifest, an overlay or a policy. A catalogue of two thousand adapters needs half of it."""
MANIFEST_DEPTH = 32
"""Levels of nesting in YAML."""
MANIFEST_VALUES = 100_000
"""Values in one document, with aliases expanded."""
OVERLAYS = 16
"""Files in one chain of ``extends``."""
FINDINGS = 200
"""Findings that are shown for one manifest."""
LOCK_BYTES = 64 * MIB
"""A lock: a few hundred bytes for each file of each adapter."""
LOCK_VALUES = 64 * MANIFEST_VALUES
"""Values in a lock."""
PIPE_SECONDS = 10.0
"""How long a manifest or policy that is a pipe may send nothing."""

# -- configs, headers and tokenizers ------------------------------------------------------------

CONFIG_BYTES = 4 * MIB
"""``config.json`` or ``adapter_config.json``."""
HEADER_BYTES = 32 * MIB
"""A safetensors header: 100 bytes for each tensor. All experts of the largest public model, adapted
one by one, need 14 MB."""
HEADER_TENSORS = 250_000
"""Tensors, and keys of metadata, in one header."""
TENSOR_DIMENSIONS = 64
"""More than any framework's tensors have."""
INDEX_BYTES = 64 * MIB
"""``model.safetensors.index.json``."""
TOKENIZER_BYTES = 48 * MIB
"""One file of a tokenizer; the largest public ``tokenizer.json`` has 34 MB."""
DESCRIPTIONS = 2048
"""Descriptions of packed weights that are read from one base: one of 100 layers has about 700."""
DESCRIPTION_BYTES = 4096
"""One of them; bitsandbytes' has 200."""
IDLE_BYTES = 64 * MIB
"""Values that are read to find out whether factors at targets that are never called are zero."""
IDLE_TENSORS = 1000
"""Tensors that are read for that, each with one range request."""
TEMPLATE_SECONDS = 10.0
"""How long a chat template may take to write a prompt."""
TEMPLATE_BYTES = 512 * MIB
"""How much memory it may use."""

# -- folders ------------------------------------------------------------------------------------

FOLDER_FILES = 10_000
"""Files in the folder of an adapter or a base; listing stops there."""
FOLDER_DEPTH = 32
"""Folders within folders."""
LISTING_BYTES = 64 * MIB
"""A server's listing of a folder."""

# -- transfers ----------------------------------------------------------------------------------

MIN_RATE = 1024
"""Bytes a second that a transfer must reach; ``ADAPTERDOCK_MIN_RATE``."""
STALL_SECONDS = 30.0
"""Seconds over which that is measured; ``ADAPTERDOCK_STALL_SECONDS``."""
FILE_SECONDS = 300.0
"""Seconds for one file, and one more for each :data:`FILE_RATE` bytes of it;
``ADAPTERDOCK_FILE_SECONDS`` is the total time for each file instead."""
FILE_RATE = 64 << 10
"""Bytes a second that the time for a large file is computed with."""
SILENCE_SECONDS = 10.0
"""Seconds to wait for the next bytes of an answer."""
LISTING_SECONDS = 300.0
"""Seconds for the listing of a folder, all its requests together."""
ANSWER_BYTES = 64 << 10
"""Bytes that are read of an error answer."""
VERIFIED_ON_READ = 256 * MIB
"""Up to this size a file in the Hub's cache is verified before any part of it is read; a larger one
when it is pulled, and the result is remembered."""
