"""Codes AD4xx: whether a base is the one that a manifest or a lock means."""

from __future__ import annotations

from .code import Code
from .finding import Severity

ARCHITECTURE = Code(
    id="AD401",
    name="base-architecture-differs",
    severity=Severity.ERROR,
    summary="The base is a model of another architecture.",
    explanation=(
        "The fingerprint names the class of the base (`architectures` in its config.json). An "
        "adapter is trained for one architecture: on another its targets do not exist, or exist "
        "and do something else."
    ),
    example="fingerprint: {architecture: LlamaForCausalLM} and a MistralForCausalLM",
    fix="name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
HEAD = Code(
    id="AD402",
    name="base-head-differs",
    severity=Severity.WARNING,
    summary="The same backbone, under another head.",
    explanation=(
        "The base is of the declared family but of another class, so that its head is not the "
        "one of the fingerprint. That is how one adapts a language model to classification. The "
        "backbone is still compared; the heads are not."
    ),
    example="fingerprint: {architecture: BertForMaskedLM} and a BertForSequenceClassification",
    fix="nothing, if that is what you want",
)
HIDDEN_SIZE = Code(
    id="AD403",
    name="base-hidden-size-differs",
    severity=Severity.ERROR,
    summary="The base has another hidden size.",
    explanation="It is another model of the same family, smaller or larger than the declared one.",
    example="fingerprint: {hidden_size: 576} and a base of hidden size 960",
    fix="name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
STRUCTURE = Code(
    id="AD404",
    name="base-structure-differs",
    severity=Severity.ERROR,
    summary="The base's tensors have other names or shapes.",
    explanation=(
        "The structure digest covers name and shape of every tensor of the backbone, without "
        "heads, tied copies and buffers made at load. Another digest is another model, or one "
        "whose embeddings were resized for added tokens."
    ),
    example="a base after model.resize_token_embeddings(len(tokenizer) + 2)",
    fix="name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
HEADS = Code(
    id="AD405",
    name="base-heads-differ",
    severity=Severity.ERROR,
    summary="The base is of the declared class, and its head has other names or shapes.",
    explanation=(
        "Backbone and class are as declared, but not the head (`lm_head`, `classifier`): another "
        "number of labels, or an output embedding that was resized."
    ),
    example="a classifier of 3 labels where the fingerprint was written for 2",
    fix="name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
CONFIG = Code(
    id="AD406",
    name="base-config-differs",
    severity=Severity.ERROR,
    summary="The base's config differs in a field that changes what it computes.",
    explanation=(
        "Two bases with the same tensors can still compute different things: another rope_theta, "
        "another epsilon, another activation. The config digest covers every field that is not "
        "known to be harmless (names, dtypes, token ids, dropout, output flags)."
    ),
    example="a long-context copy of the base, with rope_theta 1000000 instead of 10000",
    fix="compare the two config.json files; name the right base, or write its fingerprint anew",
)
WEIGHTS = Code(
    id="AD407",
    name="base-weights-differ",
    severity=Severity.ERROR,
    summary="The base has the declared shapes and other weights.",
    explanation=(
        "A few values of every tensor are compared, rounded to the dtype that the base was loaded "
        "in, so that a bfloat16 copy of a float32 base is the same base. These values differ: it "
        "is a fine-tuned copy, another checkpoint of the run, or random. An adapter would load "
        "onto it and be wrong."
    ),
    example="the base model declared, and its chat-tuned sister loaded",
    fix="name the right base, or write its fingerprint with `adapterdock fingerprint --write`",
)
HEAD_WEIGHTS = Code(
    id="AD408",
    name="base-head-weights-differ",
    severity=Severity.ERROR,
    summary="The backbone's weights are as declared, the head's are not.",
    explanation=(
        "The class and the shapes of the head are the declared ones but its values are others: a "
        "head that was trained further, or one that was made at random because the checkpoint "
        "has none."
    ),
    example="AutoModelForSequenceClassification on a base without a classifier",
    fix="load the class that the base was saved with, or write the fingerprint anew",
)
TOKENIZER = Code(
    id="AD409",
    name="base-tokenizer-differs",
    severity=Severity.ERROR,
    summary="The tokenizer is not the declared one.",
    explanation=(
        "Vocabulary, merges, normalizer, pre-tokenizer, post-processor, decoder or added tokens "
        "differ: the same text would become other ids. Truncation, padding, the roles of special "
        "tokens and the chat template are not part of this."
    ),
    example="a tokenizer to which tokens were added after the fingerprint was written",
    fix="use the base's own tokenizer, or write the fingerprint anew",
)
CHAT_TEMPLATE = Code(
    id="AD410",
    name="base-chat-template-differs",
    severity=Severity.WARNING,
    summary="The chat template is not the declared one.",
    explanation=(
        "The tokenizer is the same and the text that is put around messages is not. Adapters "
        "trained with one template may answer worse with another."
    ),
    example="a chat_template.jinja that was edited",
    fix="restore the template, or write the fingerprint anew",
)
SAMPLES = Code(
    id="AD411",
    name="sample-table-not-its-own",
    severity=Severity.ERROR,
    summary="The sample table does not belong to the fingerprint beside it.",
    explanation=(
        "The lock keeps the sampled weights whose digests the fingerprint holds. These samples "
        "have other digests, so one of the two was edited or taken from another lock."
    ),
    example="a lock merged by hand from two branches",
    fix="lock the base again with `adapterdock lock --upgrade base`",
)
TOKENIZER_FILE = Code(
    id="AD412",
    name="tokenizer-file-malformed",
    severity=Severity.ERROR,
    summary="A file of the base's tokenizer is not what its name says.",
    explanation="tokenizer.json and its neighbours are JSON objects, or lists of tokens.",
    example="a tokenizer.json that holds an error page",
    fix="fetch the base's tokenizer files again",
)
ARCHITECTURE_UNCHECKED = Code(
    id="AD431",
    name="base-architecture-unchecked",
    severity=Severity.UNCHECKED,
    summary="The architecture or hidden size of the base is not known.",
    explanation="The fingerprint declares it, and neither config nor model tells.",
    example="a plain nn.Module without a config, and a fingerprint with hidden_size",
    fix="leave that level out of the fingerprint, or accept this code",
)
STRUCTURE_UNCHECKED = Code(
    id="AD432",
    name="base-structure-unchecked",
    severity=Severity.UNCHECKED,
    summary="Whether the base has the declared tensors could not be told.",
    explanation=(
        "The names on disk of a live model come from transformers' own conversion, run backwards. "
        "A quantised model has other tensors, and some classes leave parts of a checkpoint out, "
        "so that a difference need not mean another base."
    ),
    example="a base that was loaded with bitsandbytes in 4 bits",
    fix="check the base's files instead (`adapterdock validate`), or accept this code",
)
CONFIG_UNCHECKED = Code(
    id="AD433",
    name="base-config-unchecked",
    severity=Severity.UNCHECKED,
    summary="The config digests differ, and that need not mean that the configs do.",
    explanation=(
        "A config.json may leave fields out that its class fills in. For this model type it is "
        "not known how, so two files of one base can have different digests."
    ),
    example="a base of custom code whose config.json was saved again by another version",
    fix="compare the two config.json files, then write the fingerprint anew or accept this code",
)
WEIGHTS_UNCHECKED = Code(
    id="AD434",
    name="base-weights-unchecked",
    severity=Severity.UNCHECKED,
    summary="Whether the base has the declared weights could not be told.",
    explanation=(
        "The digest covers every tensor, and not every tensor's values could be read (quantised, "
        "on the meta device, spread over machines), or the base mixes bfloat16 and float16, so "
        "that there is no one dtype to compare in."
    ),
    example="a model whose norms are float16 and whose linears are bfloat16",
    fix="lock the base: with the lock's sample table each readable tensor is compared by itself",
)
WEIGHTS_PARTLY = Code(
    id="AD435",
    name="base-weights-partly-checked",
    severity=Severity.UNCHECKED,
    summary="Every tensor that could be read has the declared weights; not all could be read.",
    explanation=(
        "Quantised tensors no longer hold the checkpoint's values. The others (norms, embeddings, "
        "biases) do, and all of them match the lock's samples."
    ),
    example="a base in 4 bits: 62 of 272 tensors match, 210 are quantised",
    fix="accept this code if the base comes from a pinned source",
)
TOKENIZER_UNCHECKED = Code(
    id="AD436",
    name="base-tokenizer-unchecked",
    severity=Severity.UNCHECKED,
    summary="The fingerprint declares a tokenizer, and there is none to compare.",
    explanation=(
        "The base's folder holds no tokenizer that can be read without its library, or the "
        "tokenizer given is not a fast one."
    ),
    example="a base folder with weights and config only",
    fix="leave `tokenizer` out of the fingerprint, or accept this code",
)
