"""A progress that records a workflow's warnings."""

from dmgd.progress import SILENT


class Recorder:
    """Silent, except that it collects `warnings`."""

    def __init__(self):
        self.warnings, self.task, self.note = [], SILENT.task, SILENT.note

    def warn(self, text):
        self.warnings.append(text)
