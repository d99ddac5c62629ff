"""The thread that keeps the model up to date: it follows the topics, `read_committed`, from their beginnings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka.follow import TopicFollower
from stream_interp.observe.board import Board, Snapshot
from stream_interp.settings import KafkaSettings
from stream_interp.ui.model.model import Model

log = logging.getLogger(__name__)

TOPICS_READ = "topics_read"
_IDLE_S = 0.25
_AGAIN_S = 5.0
_END_S = 10.0
Answer = TypeVar("Answer")


class FeedState(NamedTuple):
    """How far the model is to be trusted: it has read what was there at the start, and Kafka still answers."""

    caught_up: bool
    fault: str


def ui_board() -> Board:
    """Of a page that has not begun."""
    return Board("ui", [TOPICS_READ])


class Feed:
    """A model that a thread of its own keeps up to date, from `with` to its end.

    Args:
        kafka: how to reach Kafka.
        board: where it shows how it does; ready once all that was there at the start is read.

    Raises:
        DependencyUnreachable: on entering: Kafka does not answer, refuses us, or has no such topics. Later on it is
            `state.fault`, and the thread tries again every five seconds.
    """

    def __init__(self, kafka: KafkaSettings, board: Board | None = None) -> None:
        self._kafka, self._model, self._lock = kafka, Model(), threading.Lock()
        self._board = board or ui_board()
        self._stop, self.caught_up = threading.Event(), threading.Event()
        self._fault = ""
        self._followers: dict[str, TopicFollower] = {}
        self._thread = threading.Thread(target=self._run, name="ui-feed", daemon=True)

    def __enter__(self) -> Self:
        self._followers = self._open()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_END_S)

    @property
    def state(self) -> FeedState:
        """How far to trust it now."""
        return FeedState(self.caught_up.is_set(), self._fault)

    def ask(self, view: Callable[[Model], Answer]) -> Answer:
        """The answer of a pure view of the model; what it returns must not share what the model changes."""
        with self._lock:
            return view(self._model)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._followers = self._followers or self._open()
                self._follow(self._followers)
            except Exception as error:  # whatever it is, the page says so and tries again
                self._fault = str(error) if isinstance(error, DependencyUnreachable) else repr(error)
                log.warning("ui: %s", self._fault)
                self._board.turn(self._describe)
                self._stop.wait(_AGAIN_S)
            finally:
                for follower in self._followers.values():
                    follower.close()
                self._followers = {}

    def _describe(self) -> Snapshot:
        caught_up, fault = self.state
        return Snapshot(missing=() if caught_up and not fault else (TOPICS_READ,))

    def _open(self) -> dict[str, TopicFollower]:
        followers: dict[str, TopicFollower] = {}
        try:
            for topic in self._model.topics:
                followers[topic] = TopicFollower(self._kafka, topic)
        except DependencyUnreachable:
            for follower in followers.values():
                follower.close()
            raise
        return followers

    def _follow(self, followers: dict[str, TopicFollower]) -> None:
        """A fresh model from the beginnings; the old one is shown until it has caught up."""
        model = Model()
        if not self.caught_up.is_set():
            self._model = model
        while not self._stop.is_set():
            self._board.turn(self._describe)
            n_new = sum(self._take(model, topic, follower) for topic, follower in followers.items())
            if model is not self._model or not self.caught_up.is_set():
                self._catch_up(model, followers)
            if not n_new:
                self._stop.wait(_IDLE_S)

    def _take(self, model: Model, topic: str, follower: TopicFollower) -> int:
        records = follower.poll()
        with self._lock:
            for record in records:
                model.take(topic, record)
        return len(records)

    def _catch_up(self, model: Model, followers: dict[str, TopicFollower]) -> None:
        if all(follower.at_end for follower in followers.values()):
            with self._lock:
                self._model, self._fault = model, ""
            self.caught_up.set()
