"""The parts of a text-to-image pipeline in a folder, loaded by diffusers and transformers when they are needed."""

import gc
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmgd.diffusion.condition import Condition
from dmgd.errors import ArtifactError, DmgdError, UsageError, is_out_of_memory, listed
from dmgd.files import sha256_bytes, sha256_file
from dmgd.priors.description import read_config
from dmgd.priors.pipelines import PIPELINES, PipelineFamily
from dmgd.priors.weights import weight_files

EMBEDDINGS = ("prompt", "pooled")  # what can be blended; masks cannot
LORA = "pytorch_lora_weights.safetensors"
STEMS = {"diffusers": ("diffusion_pytorch_model",), "transformers": ("model", "pytorch_model")}

Encode = Callable[[str | None, str | None], tuple[Condition, int | None]]
"""(prompt, negative prompt) → the condition of the prompt, or for None that of the negative prompt, of one row on the
CPU, and the number of tokens that are read if there are more."""


@dataclass(frozen=True)
class PipelineParts:
    """`name` is the class of the pipeline in `folder`, `dtype` that of its networks, `lora` a folder with a LoRA."""

    folder: Path
    name: str
    dtype: torch.dtype
    lora: Path | None = None

    @property
    def family(self) -> PipelineFamily:
        return PIPELINES[self.name]

    @property
    def weights(self) -> list[list[Path]]:
        """The files of the weights of the network and of each text encoder."""
        return [weight_files(self.folder / part, *STEMS[self._library(part)]) for part in self._networks]

    @property
    def encoding(self) -> str:
        """The SHA-256 of what embeddings depend on besides weights: tokenizers, and the configs of text encoders."""
        patterns = {"tokenizer": ("*.json", "*.txt", "*.model"), "text_encoder": ("config.json",)}
        names = {name: next((kind for kind in patterns if name.startswith(kind)), "") for name in self._index}
        folders = [(self.folder / name, pattern) for name, kind in names.items() for pattern in patterns.get(kind, ())]
        files = sorted(file for folder, pattern in folders for file in folder.glob(pattern))
        each = [f"{file.relative_to(self.folder).as_posix()} {sha256_file(file)}" for file in files]
        return sha256_bytes("\n".join(each).encode())

    def network(self, device: torch.device) -> Any:
        """The network that denoises. Raises ArtifactError if it cannot be loaded, or lacks weights."""
        name = self.family.network
        with _quietly():
            network = getattr(self._assembled(self._networks), name) if self.lora else self._loaded(name)
        return network.to(device).eval().requires_grad_(False)

    @contextmanager
    def text_encoders(self, device: torch.device) -> Iterator[Encode]:
        """What encodes prompts, in memory as long as the context is open."""
        parts = self._networks if self.lora else [name for name in self._networks if name != self.family.network]
        with _quietly():
            pipeline = self._assembled(parts)
            setattr(pipeline, self.family.network, None)
            pipeline.to(device)
        try:
            with torch.no_grad(), _quietly(), said_in_one_line(f"the pipeline in {self.folder} cannot encode prompts"):
                yield lambda prompt, negative: self._encoded(pipeline, device, prompt, negative)
        finally:
            for name in parts:
                setattr(pipeline, name, None)
            del pipeline
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()

    def _encoded(
        self, pipeline: Any, device: torch.device, prompt: str | None, negative: str | None
    ) -> tuple[Condition, int | None]:
        """One prompt at a time, so that its embeddings do not depend on the others."""
        is_null = prompt is None
        negative = self.family.no_negative if negative is None else negative
        listed_or_not = negative if self.family.no_negative is not None or negative is None else [negative]
        found = pipeline.encode_prompt(
            [prompt or ""],
            device=device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=is_null,
            negative_prompt=listed_or_not if is_null else self.family.no_negative,
            **self.family.more(pipeline),
        )
        named = zip(self.family.returns, found, strict=True)
        rows = {name.removeprefix("null "): one.cpu() for name, one in named if name.startswith("null ") == is_null}
        embeddings = {name: one.float() for name, one in rows.items() if name in EMBEDDINGS}
        fixed = {name: one for name, one in rows.items() if name not in EMBEDDINGS}
        units = {name: _deviation(one, fixed.get("mask")) for name, one in embeddings.items()}
        return Condition(embeddings, fixed, units), _cut(pipeline, prompt or negative or "")

    @property
    def _index(self) -> dict[str, Any]:
        return read_config(self.folder / "model_index.json")

    @property
    def _networks(self) -> list[str]:
        """The parts that are networks, but for the autoencoder and what does not make images."""
        names = [name for name in self._index if name.startswith("text_encoder")]
        return [self.family.network, *sorted(name for name in names if self._library(name))]

    def _library(self, part: str) -> str:
        """ "diffusers" or "transformers"; "" for a part that is left out. Raises ArtifactError for any other."""
        found = self._index.get(part)
        if not isinstance(found, list) or len(found) != 2:
            raise ArtifactError(f"{self.folder / 'model_index.json'} does not say what {part} is")
        if found[0] is not None and found[0] not in STEMS:
            raise ArtifactError(f"the {part} of {self.folder} is of {found[0]}, not of diffusers or transformers")
        return found[0] or ""

    def _loaded(self, part: str) -> nn.Module:
        folder, library = self.folder / part, self._library(part)
        files = weight_files(folder, *STEMS[library])
        options = {"variant": "fp16"} if ".fp16." in files[0].name else {}
        with said_in_one_line(f"the {part} in {self.folder} cannot be loaded"):
            model = getattr(importlib.import_module(library), self._index[part][1])
            network, info = model.from_pretrained(
                folder, torch_dtype=self.dtype, output_loading_info=True, local_files_only=True, **options
            )
        # They fill tensors that are missing with random numbers, after a warning.
        kinds = {"missing": "missing_keys", "of another shape": "mismatched_keys"}
        kinds |= {"unexpected": "unexpected_keys"} if library == "diffusers" else {}
        if odd := [f"{kind}: {listed(sorted(map(str, info[keys])), 3)}" for kind, keys in kinds.items() if info[keys]]:
            raise ArtifactError(f"the {part} in {self.folder} has not the tensors of its config ({'; '.join(odd)})")
        return network

    def _assembled(self, parts: list[str]) -> Any:
        """The pipeline with these of its networks, and with what encoding needs besides: tokenizers and settings."""
        import diffusers

        left_out = [name for name, one in self._index.items() if isinstance(one, list) and name != "scheduler"]
        given: dict[str, Any] = {name: None for name in left_out if not name.startswith("tokenizer")}
        given |= {name: self._loaded(name) for name in parts}
        if self.name == "StableDiffusionPipeline":
            given |= {"requires_safety_checker": False, "safety_checker": None, "feature_extractor": None}
        with said_in_one_line(f"the pipeline in {self.folder} cannot be loaded"):
            pipeline = getattr(diffusers, self.name).from_pretrained(self.folder, local_files_only=True, **given)
        if self.lora:
            self._fuse_lora(pipeline)
        return pipeline

    def _fuse_lora(self, pipeline: Any) -> None:
        if not hasattr(pipeline, "load_lora_weights"):
            raise UsageError(f"--lora has no effect: diffusers loads none into a {self.name}")
        with said_in_one_line(f"the LoRA in {self.lora} does not fit this pipeline"):
            pipeline.load_lora_weights(self.lora)
            if not pipeline.get_active_adapters():  # diffusers passes over tensors of other networks with a warning
                raise ArtifactError(
                    f"the LoRA in {self.lora} does not fit this pipeline: it changes nothing of a {self.name}"
                )
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()


def find_lora(folder: str) -> Path:
    """The file of the LoRA in a folder. Raises UsageError if there is none."""
    path = Path(folder) / LORA
    if not path.is_file():
        raise UsageError(f"--lora {folder} has no {LORA}, which is what diffusers writes")
    return path


@contextmanager
def said_in_one_line(problem: str) -> Iterator[None]:
    """Raise an ArtifactError of the problem for whatever diffusers and transformers raise, which are a dozen types, of
    files and settings that they cannot use. Memory that runs out is another matter."""
    try:
        yield
    except DmgdError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(f"{problem}: {reason}") from error


def _deviation(embedding: Tensor, mask: Tensor | None) -> Tensor:
    """(1,) the standard deviation of the numbers of one embedding, of the tokens that are read."""
    read = embedding[0] if mask is None or embedding.ndim != 3 else embedding[0][mask[0].bool()]
    return read.std().reshape(1) if read.numel() > 1 else torch.ones(1)


def _cut(pipeline: Any, prompt: str) -> int | None:
    """How many tokens of the prompt are read, if it has more."""
    for name, part in pipeline.components.items():
        limit = getattr(part, "model_max_length", None) if name.startswith("tokenizer") else None
        if limit and limit < 1000 and len(part(prompt).input_ids) > limit:
            return limit
    return None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bars, notes and warnings of the two libraries: what matters is checked and said here."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns on its import, too
    try:
        import diffusers.utils.logging
        import transformers.utils.logging
    except ImportError as error:
        raise UsageError("text-to-image priors need more packages: pip install 'dmgd[text]'") from error

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in libraries:
        library.set_verbosity(50)  # critical: their errors are raised, too
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        for library in bars:
            library.enable_progress_bar()
