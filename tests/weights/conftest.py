"""A weights file in the layout of others, a server of files on this machine, and no network."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARRAYS = {
    "f.conv.weight": np.arange(8, dtype=np.float32).reshape(4, 2),
    "last.weight": np.full((3, 4), 2, np.float32),
    "last.bias": np.zeros(3, np.float32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a weights file in the layout of others."""
    path = tmp_path / "theirs.safetensors"
    tensorfile.write_tensors(path, ARRAYS, {})
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the test's folder on this machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()
