"""What a person sees of a running training: lines of text, or a bar with a Stop button in a notebook."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from same.errors import InputError

if TYPE_CHECKING:
    from same.engine.launch import Run

POLL_SECONDS = 0.3
STYLES = ("widget", "text", "none")
Event = Mapping[str, Any]


class Progress:
    """The state of a run as its events tell it, in the words every display shares."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.task = 0
        self.fraction = 0.0
        self.line = "starting"

    def update(self, event: Event) -> str | None:
        """Take in an event; returns a line worth keeping on the screen, if it is one."""
        kind = event["kind"]
        if kind == "start":
            self.tasks = list(event["tasks"])
            self.line = "evaluating the untouched backbone"
        elif kind == "task_start":
            self.task, self.fraction = event["task"], 0.0
            self.line = f"{self.place(event)}: {event['rows']} rows, {event['steps']} steps"
        elif kind == "step":
            self.fraction = event["step"] / event["steps"]
            self.line = (
                f"{self.place(event)}: step {event['step']}/{event['steps']}  loss {event['loss']:.3f}  "
                f"{event['samples_per_second']:.0f} samples/s  {duration(event['eta_seconds'])} left"
            )
        elif kind == "evaluate":
            scores = ", ".join(f"{score:.3f} {variant}" for variant, score in event["scores"].items())
            self.line = f"{self.place(event)}: {event['key']} {scores}"
            return self.line
        elif kind == "task_end":
            self.fraction = 1.0
            return f"{self.place(event)}: {event['key']} finished in {duration(event['train_seconds'])}"
        elif kind in ("done", "interrupted", "failed"):
            self.line = {"done": "done", "interrupted": "stopped; finished tasks are kept", "failed": "failed"}[kind]
            return self.line
        return None

    def place(self, event: Event) -> str:
        """Which task an event belongs to, counted from one."""
        index = event["stage"] if event["kind"] == "evaluate" else event["task"]
        if index is None:
            return "zero-shot"
        return f"Task {index + 1} of {len(self.tasks)} ({self.tasks[index]})"

    @property
    def total(self) -> float:
        """Share of the run that is done, counting tasks as equal."""
        return (self.task + self.fraction) / max(1, len(self.tasks))


def duration(seconds: float) -> str:
    """A time a person reads at a glance."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Text:
    """Lines on a stream; on a terminal the current step stays on one line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.progress = Progress()
        self._live = self.stream.isatty()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        kept = self.progress.update(event)
        end = "\n" if kept or not self._live else ""
        line = kept or (self.progress.line if self._live or event["kind"] == "task_start" else None)
        if line is not None:
            self.stream.write(f"\r\033[K{line}{end}" if self._live else f"{line}\n")
            self.stream.flush()


class Widget:
    """A bar, a line and a Stop button in a notebook."""

    def __init__(self, run: "Run") -> None:
        import ipywidgets
        from IPython.display import display

        self.progress = Progress()
        self.bar = ipywidgets.FloatProgress(min=0.0, max=1.0, layout=ipywidgets.Layout(width="30%"))
        self.label = ipywidgets.Label("starting")
        self.button = ipywidgets.Button(description="Stop", icon="stop", tooltip="Stop after this step")
        self.button.on_click(lambda _button: self._stop(run))
        display(ipywidgets.HBox([self.bar, self.button, self.label]))

    def _stop(self, run: "Run") -> None:
        run.stop()
        self.button.set_trait("disabled", True)
        self.label.value = "stopping after this step"

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self.progress.update(event)
        self.bar.value = self.progress.total
        self.label.value = self.progress.line
        if event["kind"] in ("done", "interrupted", "failed"):
            self.bar.set_trait(
                "bar_style", {"done": "success", "interrupted": "warning", "failed": "danger"}[event["kind"]]
            )
            self.bar.value = 1.0 if event["kind"] == "done" else self.bar.value
            self.button.set_trait("disabled", True)


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return hasattr(shell, "kernel")


def display_for(run: "Run", style: str | None) -> Callable[[Event], None]:
    """Choose how to show a run."""
    style = style or ("widget" if in_notebook() else "text")
    if style not in STYLES:
        raise InputError(f"style must be one of {', '.join(STYLES)}; got {style!r}.")
    if style == "widget":
        return Widget(run)
    return Text() if style == "text" else lambda _event: None


async def follow(run: "Run", show: Callable[[Event], None]) -> None:
    """Show a run's events until it ends; the first interrupt or cancellation stops the run, the second the showing."""
    shown, stopping = 0, False
    while True:
        try:
            ended = run.outcome is not None
            for event in run.events()[shown:]:
                shown += 1
                show(event)
            if ended:
                return
            await asyncio.sleep(POLL_SECONDS)
        except (KeyboardInterrupt, asyncio.CancelledError):
            if stopping:
                raise
            stopping = True
            run.stop()
