"""Distils a labelled image dataset into a few synthetic images per class, without training.

The workflows are functions of the modules in `dmgd.workflows`; `import dmgd` itself is light and imports no torch.
"""

__version__ = "0.1.0"
