"""A MONAI Label server of its own process, and what is asked of it over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

__all__ = ["Server", "serving"]

OFFLINE = {"zoo_source": "ngc", "sam2": "false"}  # the defaults ask for lists and weights on the net
SECONDS_TO_START = 300
SECONDS_TO_ANSWER = 1200
BUSY = 429


class Server:
    """Requests to a server at ``address``."""

    def __init__(self, address: str) -> None:
        self.address = address

    def info(self) -> dict[str, Any]:
        return self._answer(requests.get(f"{self.address}/info/", timeout=SECONDS_TO_ANSWER)).json()

    def infer(self, model: str, image: str, target: Path) -> None:
        """Write the label map of an image of the studies folder."""
        where = {"image": image, "output": "image"}
        answer = requests.post(
            f"{self.address}/infer/{model}",
            params=where,
            data={"params": json.dumps({"device": "cpu"})},
            timeout=SECONDS_TO_ANSWER,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self._answer(answer).content)

    def train(self, model: str, **settings: object) -> None:
        """One training, as the viewers' button starts it, and until it is over."""
        settings = {"device": "cpu", "multi_gpu": False, **settings}
        self._run(f"train/{model}", settings)

    def score(self, method: str, **settings: object) -> dict[str, Any]:
        return self._run(f"scoring/{method}", {"device": "cpu", **settings}).json()

    def image_info(self, image: str) -> dict[str, Any]:
        where = {"image": image}
        return self._answer(
            requests.get(f"{self.address}/datastore/image/info", params=where, timeout=SECONDS_TO_ANSWER)
        ).json()

    def _run(self, what: str, settings: Mapping[str, object]) -> requests.Response:
        end = time.monotonic() + SECONDS_TO_ANSWER
        while True:
            answer = requests.post(
                f"{self.address}/{what}", params={"run_sync": "true"}, json=dict(settings), timeout=SECONDS_TO_ANSWER
            )
            if answer.status_code != BUSY or time.monotonic() > end:
                return self._answer(answer)
            time.sleep(2)  # a server scores of its own accord after a training

    @staticmethod
    def _answer(answer: requests.Response) -> requests.Response:
        if not answer.ok:
            raise RuntimeError(f"{answer.url}: HTTP {answer.status_code}, {answer.text[:500]}")
        return answer


@contextmanager
def serving(app: Path, studies: Path, log: Path, **conf: str) -> Iterator[Server]:
    """``monailabel start_server`` on a free port of this machine, ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = ["monailabel", "start_server", "--app", str(app), "--studies", str(studies)]
    call += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in {**OFFLINE, **conf}.items():
        call += ["--conf", name, value]
    with log.open("w") as out:  # it starts `python` of the PATH, which run.py has made this environment's
        process = subprocess.Popen(
            call, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        )
    server = Server(f"http://127.0.0.1:{port}")
    try:
        _wait(server, process, log)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            server.info()
            return
        except requests.ConnectionError:
            time.sleep(1)
    raise RuntimeError(f"the server did not answer in {SECONDS_TO_START} s: {log.read_text()[-2000:]}")
