"""The prompts that a text-to-image prior is told classes by."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dmgd.classes.info import ClassIndex, ClassInfo
from dmgd.errors import UsageError, listed
from dmgd.sources.labelled import read_mapping
from dmgd.specs import PriorSpec

TEMPLATE = "a photo of a {name}"
_SAYS_NOTHING = {"class", "category", "label", "cls", "id", "no", "number", "type"}


@dataclass(frozen=True)
class Prompts:
    """`template` with {name} in it for most classes, `own` prompts of single ones by name or WordNet id, and the
    negative prompt (None: none)."""

    template: str = TEMPLATE
    own: Mapping[str, str] = field(default_factory=dict)
    negative: str | None = None

    @classmethod
    def of(cls, spec: PriorSpec) -> "Prompts":
        """Those of a spec. Raises UsageError for a template without {name}, and for a file that cannot be read."""
        template = prompt_text(TEMPLATE if spec.prompt is None else spec.prompt, "--prompt")
        if "{name}" not in template:
            raise UsageError(f"the prompt {template!r} is the same for all classes; put {{name}} in the name's place")
        own = read_mapping(Path(spec.prompts), "the file of prompts", "prompts", prompt_text) if spec.prompts else {}
        negative = spec.negative_prompt and prompt_text(spec.negative_prompt, "--negative-prompt")
        return cls(template, own, negative)

    def of_class(self, info: ClassInfo) -> str:
        """The class's own prompt, or the template with its first synonym."""
        index = ClassIndex([info])
        own = (prompt for text, prompt in self.own.items() if index.find(text))
        return next(own, None) or self.template.replace("{name}", first_name(info))

    def check(self, classes: Sequence[ClassInfo]) -> None:
        """Raise UsageError for own prompts of none of these classes, or of several: most likely a typo."""
        index = ClassIndex(classes)
        for text in self.own:
            if len(rows := index.find(text)) != 1:
                problem = "several classes" if rows else "no class of the source"
                known = listed([info.name for info in classes], 3)
                raise UsageError(f"the file of prompts has one for {text!r}, which is {problem} (it has {known})")

    def unclear(self, classes: Sequence[ClassInfo]) -> list[str]:
        """The prompts that are made of class names which are no words, such as "0001" or "cls_a"."""
        prompts = [self.of_class(info) for info in classes if not _has_word(first_name(info))]
        return [prompt for prompt in prompts if prompt not in self.own.values()]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def prompt_text(text: str, where: str) -> str:
    """The prompt itself. Raises UsageError for one that is empty, or no text."""
    if not text.strip() or any(unicodedata.category(letter) == "Cs" for letter in text):
        raise UsageError(f"{where} has the prompt {text[:60]!r}; expected a text in UTF-8 that is not empty")
    return text


def first_name(info: ClassInfo) -> str:
    """The first synonym of a class's name, with blanks for underscores: "tench" of "tench, Tinca tinca"."""
    return " ".join(info.name.split(",")[0].replace("_", " ").split())


def _has_word(name: str) -> bool:
    """Whether there is a word in it that may mean something: letters with a vowel among them, or not of the Latin
    alphabet."""
    words = {word.casefold() for word in re.findall(r"[^\W\d_]{2,}", name)} - _SAYS_NOTHING
    return any(not word.isascii() or re.search("[aeiouy]", word) for word in words)
