"""A listener to a workflow's progress that keeps its warnings."""

from dmgd.progress import SILENT


class Remarks:
    """Silent, but for `warnings`."""

    def __init__(self):
        self.warnings, self.task, self.note = [], SILENT.task, SILENT.note

    def warn(self, text):
        self.warnings.append(text)
