"""A progress that records a workflow's notes and warnings."""

from dmgd.progress import SILENT


class Recorder:
    """Silent, except that it collects `notes` and `warnings`."""

    def __init__(self):
        self.notes, self.warnings, self.task = [], [], SILENT.task

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)
