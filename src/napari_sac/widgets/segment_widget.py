"""The dock *Segment nuclei*: from an image to points, and from points to labels.

It reads the form, starts the worker and hands results to the session; nothing else.
What its lower half does is in :mod:`~napari_sac.widgets._correcting` and
:mod:`~napari_sac.widgets._keeping`.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDoubleSpinBox, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.staining import looks_brown, looks_like_he
from napari_sac.viewer.adapters import adapter_path, title_of
from napari_sac.viewer.drawing import POINTS_STAY
from napari_sac.viewer.inference import (
    FindRequest,
    Found,
    Segmented,
    SegmentRequest,
    find_nuclei,
    segment,
)
from napari_sac.viewer.layers import name_among, plane_name
from napari_sac.viewer.planes import is_turned, look_at_plane, sample_colours
from napari_sac.viewer.relabelling import KnownLabels
from napari_sac.viewer.reopening import plane_now
from napari_sac.viewer.session import AnnotationSession
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._config_form import ConfigForm
from napari_sac.widgets._correct_panel import CorrectPanel
from napari_sac.widgets._correcting import Correcting
from napari_sac.widgets._docking import Docking
from napari_sac.widgets._image_panel import ImagePanel
from napari_sac.widgets._keeping import EXPORTS, IMPORTS, Keeping
from napari_sac.widgets._model_panel import BROWN_ADAPTER, HE_ADAPTER, ModelPanel
from napari_sac.widgets._panel import (
    FoldingSection,
    ScrollColumn,
    fold,
    form,
    note,
    push_button,
    section,
)
from napari_sac.widgets._refit import Refit
from napari_sac.widgets._review_panel import ReviewPanel
from napari_sac.widgets._session_panel import SessionPanel
from napari_sac.widgets._settings import compute_settings
from napari_sac.widgets._status_panel import StatusPanel
from napari_sac.widgets._wording import (
    IMAGE_GONE,
    NO_IMAGE,
    NO_POINTS,
    POINTS_GONE,
    TURNED,
    describe_cancelled,
    describe_count,
    describe_diameter,
    describe_elsewhere,
    describe_found,
    describe_other_model,
    describe_segmented,
)
from napari_sac.widgets._worker import Worker

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from napari.utils.events import Event

    from napari_sac.core.session.state import Settings
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.planes import ImagePlane


_FILTER_MS = 100
"""Between two times that the points are filtered while the slider moves."""


class SegmentWidget(QWidget):
    """Find nuclei, correct the points, segment.

    Parameters
    ----------
    napari_viewer : ViewerModel
        The name is how napari knows what to pass.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._position: tuple[Any, ...] = ()
        self._shown: Annotation | None = None
        self._filtered: Annotation | None = None
        self._compared: tuple[object, str] = (None, "")
        self._typed: WeakKeyDictionary[Image, float] = WeakKeyDictionary()
        settings = compute_settings()
        self.session = AnnotationSession.of(napari_viewer)
        self.session.cache_bytes = settings.cache_mb << 20
        self.session.device = settings.device
        self.worker = Worker(self)
        self.images = ImagePanel(napari_viewer)
        self.models = ModelPanel(self.session, self.worker, settings.device)
        self.choices = FoldingSection("1 Image and model", self.images, self.models)
        self.diameter = _diameter_box()
        self.measured = note()
        self.find_button = push_button("Find nuclei")
        self.why_not_find = note()
        self.threshold = _threshold_slider()
        self.count = note()
        self.correct = CorrectPanel()
        self.segment_button = push_button("Segment")
        self.why_not_segment = note()
        self.other_model = note()
        self.review = ReviewPanel()
        self.keep = SessionPanel(
            [(k.name, k.title) for k in IMPORTS], [(k.name, k.title) for k in EXPORTS]
        )
        self.status = StatusPanel()
        self.proposal_form = ConfigForm(ProposalConfig, without=("score_threshold",))
        self.decode_form = ConfigForm(DecodeConfig)
        self._filter_soon = QTimer(self)
        self._filter_soon.setSingleShot(True)
        self.correcting = Correcting(
            self,
            self.session,
            self.correct,
            self.review,
            self.status,
            self._annotation,
        )
        self.keeping = Keeping(
            self,
            self.session,
            self.keep,
            self.status,
            self.worker,
            lambda: (self.images.plane(), self._annotation()),
            self._look_at,
            self._chosen_diameter,
        )
        self._lay_out()
        self._connect_inside()
        self._refit = Refit(self, napari_viewer)
        self._docking = Docking(self, self._join, self._leave, self._watch_window)
        self._docking.join()

    def leave(self) -> None:
        """Cancel what is running, and listen to the viewer no more."""
        self._docking.leave()

    def _join(self) -> None:
        self.images.follow_viewer()
        self.models.follow_session()
        self.session.changed.connect(self._refresh)
        self.session.viewer.layers.selection.events.active.connect(self._on_active)
        self.correcting.join()
        self.keeping.join()
        # a dock that was closed before may have set others
        self.decode_form.show(self.session.decode_config)
        self._recall()
        self._refresh()

    def _leave(self) -> None:
        layer = self.images.layer()
        if layer is not None:
            self._typed[layer] = self.diameter.value()
        self.images.leave_viewer()
        self.models.leave_session()
        self.session.changed.disconnect(self._refresh)
        self.session.viewer.layers.selection.events.active.disconnect(self._on_active)
        self._refit.stop()
        self._on_threshold()
        self.worker.stop()
        self.correcting.leave()
        self.keeping.leave()

    def _watch_window(self) -> None:
        self._refit.shown()
        self.keeping.watch_window()
        self.correcting.watch_window()

    def _connect_inside(self) -> None:
        self.find_button.clicked.connect(self._on_find)
        self.segment_button.clicked.connect(self._on_segment)
        self.images.changed.connect(self._on_image_changed)
        self.threshold.valueChanged.connect(self._on_threshold_moved)
        self._filter_soon.timeout.connect(self._on_threshold)
        self.decode_form.changed.connect(self._on_decode_form)
        self.models.changed.connect(self._on_model)
        self.status.cancel_requested.connect(self.worker.cancel)
        self.worker.busy_changed.connect(self._on_busy_changed)
        self.worker.progressed.connect(self.status.show_progress)
        self.worker.failed.connect(self.status.say_error)
        self.worker.cancelled.connect(self._on_cancelled)

    def _on_find(self) -> None:
        plane = self.images.plane()
        if plane is None:
            return
        self.images.keep()
        request = FindRequest(
            plane,
            self.models.choice(),
            self.session.loaded,
            self.proposal_form.config(score_threshold=self.threshold.value()),
            self._chosen_diameter(),
        )
        work = partial(find_nuclei, request)
        done = partial(self._show_found, self.session.find(plane), request)
        self.worker.start("Finding nuclei", work, done)

    def _show_found(
        self, before: Annotation | None, request: FindRequest, found: Found
    ) -> None:
        plane = plane_now(self.session, request.plane, before)
        threshold = request.config.score_threshold
        if plane is None:
            self.status.say_error(IMAGE_GONE, "")
            return
        if self._is_looked_at(plane):
            # it may have been moved meanwhile; else it is that of another image
            threshold = self.threshold.value()
        annotation = self.session.show_proposals(plane, found, threshold)
        self._follow()
        self.status.say(describe_found(found, annotation, self._name(plane)))

    def _on_segment(self) -> None:
        self._on_threshold()
        plane = self.images.plane()
        annotation = None if plane is None else self.session.find(plane)
        if plane is None or annotation is None:
            return
        self.session.sync(annotation)
        self.session.effort.count(annotation, steps=0)
        request = SegmentRequest(
            plane=plane,
            prompts=annotation.prompts,
            choice=self.models.choice(),
            loaded=self.session.loaded,
            config=self.decode_form.config(),
            diameter=self._chosen_diameter() or annotation.diameter,
            embedding=annotation.embedding,
            # live masks come while the worker's thread looks through these
            masks=dict(annotation.masks),
            known=KnownLabels.of(annotation),
            painted=annotation.painted,
            drawn_as=annotation.state.settings.decode.mode,
            foreground=annotation.foreground,
        )
        # a click may have begun to look at the same image
        self.correcting.give_way()
        done = partial(self._show_segmented, annotation, request)
        self.worker.start("Segmenting", partial(segment, request), done)

    def _show_segmented(
        self, annotation: Annotation, request: SegmentRequest, segmented: Segmented
    ) -> None:
        plane = plane_now(self.session, request.plane, annotation)
        if plane is None:
            self.status.say_error(IMAGE_GONE, "")
            return
        if annotation not in self.session.annotations:
            self.status.say_error(POINTS_GONE, "")
            return
        self.session.show_labels(annotation, plane, segmented)
        self._follow()
        semantic = request.config.mode == "semantic"
        told = describe_segmented(segmented, semantic=semantic, image=self._name(plane))
        self.status.say(told)
        # what comes next needs the place
        self.choices.suggest_fold()
        self.session.live.warm_up(annotation)

    def _on_active(self, event: Event) -> None:
        """Choose the image whose nuclei a person turns to."""
        session = self.session
        if not is_alive(self) or session.drawing.adding or event.value is None:
            return
        annotation = session.owner(event.value)
        plane = None if annotation is None else annotation.plane
        if annotation is None or plane is None:
            return
        if plane.layer in session.viewer.layers and (
            plane.layer is not self.images.layer()
        ):
            session.use(annotation)
            self.images.look_at(plane)

    def _on_threshold_moved(self) -> None:
        # it moves faster than thousands of points can be drawn
        if not self._filter_soon.isActive():
            self._filtered = self._annotation()
            self._filter_soon.start(_FILTER_MS)

    def _on_threshold(self) -> None:
        """Filter by where the slider is, where it was moved and that was not done."""
        self._filter_soon.stop()
        annotation, self._filtered = self._filtered, None
        if annotation is not None and annotation in self.session.annotations:
            self.session.set_threshold(annotation, self.threshold.value())

    def _on_decode_form(self) -> None:
        self.session.decode_config = self.decode_form.config()

    def _on_model(self) -> None:
        self.session.device = self.models.choice().device
        self._compared = (None, "")
        self._refresh()

    def _on_busy_changed(self, busy: bool) -> None:
        self.status.show_busy(busy)
        self.correcting.pause(busy, masks_wait=not self.keeping.only_moves_files)
        self._refresh()

    def _on_cancelled(self, title: str) -> None:
        self.status.say(describe_cancelled(title))

    def _on_image_changed(self) -> None:
        plane = self.images.plane()
        position = () if plane is None else (plane.layer, plane.position)
        if position != self._position:
            self._on_threshold()
            before, self._position = self._position, position
            if plane is not None:
                self.session.follow(plane)
            if position[:1] != before[:1]:
                if before:
                    self._typed[before[0]] = self.diameter.value()
                self._recall()
            elif plane is not None:
                self._use(plane)
        self._suggest_adapter(plane)
        self._refresh()

    def _use(self, plane: ImagePlane) -> None:
        """Let the sliders leave the nuclei of a plane shown, which was just chosen."""
        annotation = self.session.find(plane)
        if annotation is not None:
            self.session.use(annotation)

    def _suggest_adapter(self, plane: ImagePlane | None) -> None:
        suggested = ""
        if plane is not None and plane.stain is None:
            colours = sample_colours(plane.layer)
            if looks_like_he(colours):
                suggested = HE_ADAPTER
            elif looks_brown(colours):
                suggested = BROWN_ADAPTER
        self.models.suggest(suggested)

    def _follow(self) -> None:
        """Show the layers about the plane that is seen, and not those of others."""
        plane = self.images.plane()
        if plane is not None:
            self.session.follow(plane)

    def _is_looked_at(self, plane: ImagePlane) -> bool:
        shown = self.images.plane()
        return shown is not None and (shown.layer, shown.position) == (
            plane.layer,
            plane.position,
        )

    def _name(self, plane: ImagePlane) -> str:
        """Return what a plane is called where it could be another one; else nothing."""
        if self._is_looked_at(plane):
            return name_among(self.session.viewer, plane)
        return plane_name(plane)

    def _recall(self) -> None:
        """Look at an image that was annotated before as it was looked at then.

        What was typed for another image goes on for a new one: those of a series are
        alike.
        """
        for annotation in self.session.annotations[::-1]:
            plane = annotation.plane
            if plane is not None and plane.layer is self.images.layer():
                self.images.look_at(plane)
                self._show_settings(annotation)
                return
        layer = self.images.layer()
        if layer in self._typed:
            self.diameter.setValue(self._typed[layer])

    def _show_settings(self, annotation: Annotation) -> None:
        """Show how an image was segmented: to do so again must not change it."""
        layer = None if annotation.plane is None else annotation.plane.layer
        typed = 0.0 if layer is None else self._typed.get(layer, 0.0)
        self.diameter.setValue(typed)
        self.decode_form.show(annotation.state.settings.decode)

    def _look_at(self, annotation: Annotation) -> None:
        """Show what a session that was opened is about."""
        plane = annotation.plane
        if plane is not None and plane.layer in self._viewer.layers:
            look_at_plane(self.session.viewer, plane)
            self.images.look_at(plane)
        self._follow()
        self._show_settings(annotation)
        if annotation.labels is not None:
            self.choices.suggest_fold()

    def _show_stain(self, annotation: Annotation | None) -> None:
        """Show the stain of an annotation that was not shown just before."""
        if annotation is not self._shown:
            self._shown = annotation
            if annotation is not None and annotation.plane is not None:
                self.images.show_stain(annotation.plane.stain)

    def _note_choice(self) -> None:
        """Let others look at the image as it is looked at here."""
        plane = self.images.plane()
        if plane is not None:
            self.session.seen_as[plane.layer] = plane.channels, plane.stain

    def _annotation(self) -> Annotation | None:
        """Return what is known about the plane that is seen.

        Nuclei whose image is gone are meant where no other image is open, or while one
        of their layers is the active one: they can be corrected and exported.
        """
        plane, session = self.images.plane(), self.session
        active = session.viewer.layers.selection.active
        own = None if active is None else session.owner(active)
        if own is not None and own.plane is None:
            return own
        if plane is not None:
            return session.find(plane)
        left = (a for a in reversed(session.annotations) if a.plane is None)
        return next(left, None)

    def _chosen_diameter(self) -> float | None:
        return self.diameter.value() or None

    def _refresh(self) -> None:
        """Make the dock say what is the case."""
        if not is_alive(self):
            return
        plane, annotation = self.images.plane(), self._annotation()
        self._show_stain(annotation)
        self._note_choice()
        self.choices.name("" if plane is None else str(plane.layer.name))
        loaded = self.session.loaded
        self.models.show_device(None if loaded is None else loaded.model)
        turned = plane is not None and is_turned(self.session.viewer, plane.layer)
        self.why_not_find.setText(TURNED if turned else NO_IMAGE)
        _allow(self.find_button, self.why_not_find, plane is not None and not turned)
        found = plane is not None and self.session.find(plane) is not None
        self.why_not_segment.setText(TURNED if turned else self._why_no_points(plane))
        _allow(self.segment_button, self.why_not_segment, found and not turned)
        if self.worker.busy:
            self.find_button.setEnabled(False)
            self.segment_button.setEnabled(False)
        other = "" if annotation is None else self._other_model(annotation)
        self.other_model.setText(other)
        self.other_model.setVisible(bool(other))
        self.count.setVisible(annotation is not None)
        self.measured.setVisible(plane is not None and annotation is not None)
        if annotation is not None:
            self.count.setText(describe_count(annotation))
            self._show_threshold(annotation.threshold)
        if plane is not None and annotation is not None:
            self.measured.setText(describe_diameter(annotation.diameter, plane))
        self.correcting.refresh()
        self.keeping.refresh()

    def _other_model(self, annotation: Annotation) -> str:
        """Return that the nuclei were drawn with another model than is chosen."""
        drawn, chosen = annotation.state.settings, self.session.chosen_model
        if annotation.labels is None or drawn.model_key is None:
            return ""
        known = (drawn.model, drawn.adapter, chosen)
        # a refresh comes with each step, and adapters are files
        if self._compared[0] != known:
            self._compared = (known, _describe_other(drawn, chosen))
        return self._compared[1]

    def _why_no_points(self, plane: ImagePlane | None) -> str:
        """Return that nuclei are to be found first, or where the image has some."""
        if plane is None:
            return NO_POINTS
        drawing, known = self.session.drawing, self.session.remembered
        if any(drawing.hides_points(a) for a in known if a.is_about(plane)):
            return POINTS_STAY
        for annotation in reversed(self.session.annotations):
            there = annotation.plane
            if there is None or annotation.points is None:
                continue
            away = there.data is plane.data and there.position != plane.position
            if away and len(annotation.prompts):
                return describe_elsewhere(there)
        return NO_POINTS

    def _show_threshold(self, threshold: float) -> None:
        if not self._filter_soon.isActive():
            blocked = self.threshold.blockSignals(True)
            self.threshold.setValue(threshold)
            self.threshold.blockSignals(blocked)

    def _lay_out(self) -> None:
        self.why_not_find.setText(NO_IMAGE)
        advanced = fold("Advanced", self.proposal_form.native, self.decode_form.native)
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(6, 6, 6, 0)
        layout.setSpacing(8)
        layout.addWidget(self.keeping.bar)
        layout.addWidget(self.choices)
        for part in (
            section(
                "2 Find",
                form(("Nucleus diameter", self.diameter)),
                self.measured,
                self.find_button,
                self.why_not_find,
                form(("Minimum score", self.threshold)),
                self.count,
            ),
            section(
                "3 Segment",
                self.segment_button,
                self.why_not_segment,
                self.other_model,
            ),
            section("4 Correct", self.correct),
            section("5 Review", self.review),
            section("6 Session", self.keep),
        ):
            layout.addLayout(part)
        layout.addWidget(advanced)
        layout.addStretch()
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 6)
        whole.addWidget(ScrollColumn(inside), 1)
        whole.addWidget(self.status)


def _describe_other(drawn: Settings, chosen: tuple[str, str | None]) -> str:
    """Return with what nuclei were drawn; empty where that is what is chosen."""
    model, adapter = chosen
    if drawn.model == model and drawn.adapter == adapter:
        return ""
    if drawn.model == model and drawn.adapter and adapter:
        # one by its folder, the other by its name
        same = adapter_path(drawn.adapter)
        if same is not None and same == adapter_path(adapter):
            return ""
    return describe_other_model(title_of(drawn.model, drawn.adapter))


def _allow(button: QPushButton, reason: QLabel, allowed: bool) -> None:
    """Enable a button, or disable it and show the reason why."""
    button.setEnabled(allowed)
    reason.setVisible(not allowed)


def _diameter_box() -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0, 2000)
    box.setDecimals(1)
    box.setSuffix(" px")
    box.setSpecialValueText("measure")
    box.setToolTip(
        "Typical diameter of a nucleus in pixels. At 0 it is measured in the image."
    )
    return box


def _threshold_slider() -> QLabeledDoubleSlider:
    option = next(f for f in fields(ProposalConfig) if f.name == "score_threshold")
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(option.metadata["min"], option.metadata["max"])
    slider.setSingleStep(option.metadata["step"])
    slider.setDecimals(2)
    slider.setValue(option.default)
    slider.setToolTip(option.metadata["tooltip"])
    return slider
