"""Entries as MLflow runs, in a database of the study's own or on the server of the environment."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateurs.study.tracking.entry import Entry, LogError, one_at_a_time

KEY, PLACE = "secateurs.key", "secateurs.study"
EXPERIMENT = "secateurs"
AT_ONCE = 1000  # metrics a request: MLflow's limit


class MlflowLog:
    """Runs of the experiment `secateurs`, tagged with the study and the entry's key.

    The store is `out`/mlflow/mlflow.db (SQLite) unless MLFLOW_TRACKING_URI names another one.
    MLflow's reports about its use are switched off.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / "mlflow"
        self._uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        # In a store of its own a study has one name, wherever its directory is moved to.
        self._place = str(out.resolve()) if self._uri else "here"

    def check(self) -> None:
        """Ask the server, if there is one, for the experiment; LogError when it does not answer."""
        if self._uri:
            with _quiet():
                self._open()

    def write(self, entry: Entry) -> bool:
        """Write an entry as one run; False when it is there already.

        A run that was not finished, or holds what the entry was before, is deleted. Raises LogError
        when the store does not take it.
        """
        with one_at_a_time(self._folder), _quiet():
            from mlflow.entities import Metric, Param

            client, experiment = self._open()
            for run in self._found(client, experiment, entry.name):
                done = run.info.status == "FINISHED" and run.data.tags.get(KEY) == entry.key
                if done:
                    return False
                client.delete_run(run.info.run_id)
            now = int(time.time() * 1000)
            tags = {KEY: entry.key, PLACE: self._place, "mlflow.source.name": "secateurs"}
            run_id = client.create_run(experiment, run_name=entry.name, tags=tags).info.run_id
            client.log_batch(
                run_id, params=[Param(name, str(value)) for name, value in entry.parameters.items()]
            )
            metrics = [
                Metric(name, value, now, epoch)
                for name, values in entry.curves.items()
                for epoch, value in enumerate(values, start=1)
            ]
            metrics += [Metric(name, value, now, 0) for name, value in entry.metrics.items()]
            for first in range(0, len(metrics), AT_ONCE):
                client.log_batch(run_id, metrics=metrics[first : first + AT_ONCE])
            client.set_terminated(run_id)
        return True

    def _open(self) -> tuple[Any, str]:
        from mlflow.tracking import MlflowClient

        folder = self._folder.resolve()
        client = MlflowClient(tracking_uri=self._uri or f"sqlite:///{folder / 'mlflow.db'}")
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return client, found.experiment_id
        where = None if self._uri else (folder / "artifacts").as_uri()
        return client, client.create_experiment(EXPERIMENT, artifact_location=where)

    def _found(self, client: Any, experiment: str, name: str) -> list[Any]:
        runs = client.search_runs([experiment], f"tags.`{PLACE}` = '{_quoted(self._place)}'")
        return [run for run in runs if run.info.run_name == name]


def _quoted(text: str) -> str:
    return text.replace("'", "''")


@contextmanager
def _quiet() -> Generator[None]:
    """No telemetry, few retries, no warnings or lines on stderr; MLflow's errors as LogError."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.exceptions import MlflowException

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield
        except MlflowException as error:
            raise LogError(" ".join(str(error).split())) from None
