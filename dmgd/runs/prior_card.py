"""The card of a trained prior: README.md of its folder."""

import shlex
from typing import Any

from dmgd.errors import listed, one_line
from dmgd.priors.recipe import MINUTES, TrainingConfig
from dmgd.priors.training_plan import TrainingPlan
from dmgd.sources.source import Source

TEMPLATE = """---
license: other
library_name: diffusers
tags: [dit, class-conditional, {space}-space]
---
# The prior `{name}`

A class-conditional diffusion transformer for {classes} classes at {size} pixels, trained on {source}.

![Eight plain samples of each of the first ten classes](samples.png)

```sh
{command}
dmgd distill --source {spec} --prior FOLDER
```

- **Data**: {source} ({variant}), {images:,} training images{flips}; {held_out:,} more were held out. No image of
  the test split was used.
- **Classes**: {names}.
- **Model**: {depth} blocks of width {width}, {heads} heads, patches of {patch}×{patch} in {latent}; a null class (label
  dropout 0.1); predicts ε. float16; numerics are stock diffusers'.
- **Training**: {steps:,} steps of batch {batch}, AdamW {learning_rate:g} with warm-up and cosine decay, gradient
  clipping 1, averaged weights, linear β 1e-4 … 0.02 over 1,000 steps{snr}; {device}.
- **Losses**: {loss:.4f} in the last steps{weighted}; {held_loss}.
- **Licence**: the weights were made from the data, whose terms apply: {licence}.{codec}
"""


def prior_card(source: Source, config: TrainingConfig, plan: TrainingPlan, result: dict[str, Any], name: str) -> str:
    """The card of the prior `name`, trained on the source with this result; without local paths."""
    recipe, held = plan.recipe, result["held_out_loss"]
    shape = "×".join(map(str, plan.latent))
    return TEMPLATE.format(
        space="latent" if plan.vae else "pixel",
        name=one_line(name),
        classes=plan.classes,
        size=plan.size,
        source=one_line(source.name),
        command=one_line(train_command(source, config)),
        spec=shlex.quote(one_line(source.spec.published().name)),
        variant=one_line(source.variant),
        images=plan.images,
        flips=" and their mirror images" if plan.flip else "",
        held_out=plan.held_out,
        names=one_line(listed([info.name for info in source.classes], 100)),
        depth=recipe.depth,
        width=recipe.width,
        heads=recipe.heads,
        patch=recipe.patch,
        latent=f"latents of {shape} (`{one_line(plan.vae)}`)" if plan.vae else f"{shape} pixels",
        steps=result["steps"],
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        snr=f", Min-SNR {recipe.snr_cap:g}" if recipe.snr_cap else "",
        device=plan.device,
        loss=result["loss"],
        weighted=" (weighted)" if recipe.snr_cap else "",
        held_loss="too few images to hold some out"
        if held is None
        else f"{held:.4f} on the held-out images: the mean squared error of ε over all noise levels",
        licence=one_line(source.licence),
        codec=" The autoencoder has a licence of its own." if plan.vae else "",
    )


def train_command(source: Source, config: TrainingConfig) -> str:
    """The shortest command of this training, without local paths."""
    spec = source.spec.published()
    given: dict[str, Any] = {"source": spec.name, "data": spec.data, "variant": spec.variant, "columns": spec.columns}
    given |= {"class-map": spec.class_map, "size": config.size, "vae": config.vae}
    given |= {"steps": config.steps, "minutes": None if config.minutes in (None, MINUTES) else f"{config.minutes:g}"}
    given |= {"seed": config.seed or None, "out": "FOLDER"}
    flip = [] if config.flip is None else ["--flip" if config.flip else "--no-flip"]
    options = [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]
    return shlex.join(["dmgd", "train-prior", *options, *flip])
