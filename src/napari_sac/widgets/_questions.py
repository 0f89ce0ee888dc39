"""The dialogs that ask for a decision or a word."""

from __future__ import annotations

from qtpy.QtWidgets import QInputDialog, QMessageBox, QWidget


def ask_yes(parent: QWidget, question: str, yes: str) -> bool:
    """Return whether the user wants what cannot be undone.

    Parameters
    ----------
    parent : QWidget
    question : str
    yes : str
        What the button says that does it; the other one says Keep.
    """
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Segment Any Cell")
    box.setText(question)
    wanted = box.addButton(yes, QMessageBox.ButtonRole.DestructiveRole)
    kept = box.addButton("Keep", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(kept)
    box.exec()
    chosen = box.clickedButton() is wanted
    box.deleteLater()
    return chosen


def ask_text(parent: QWidget, question: str, before: str) -> str | None:
    """Return a line of text; None if the user thought better of it."""
    text, accepted = QInputDialog.getText(
        parent, "Segment Any Cell", question, text=before
    )
    return text if accepted else None
