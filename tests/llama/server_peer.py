"""llama-server as a process: what the tests need of its HTTP interface. Only Python's own library."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request


class Refused(Exception):
    """The server answered with an error; the text is its body."""


class Server:
    """A server on a GGUF file. folder: its --slot-save-path. more: further options."""

    def __init__(self, program, model, folder, *more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._log = (folder / f"server-{port}.log").open("w+b")
        # One thread: llama.cpp's threads wait by spinning, which a busy machine punishes.
        self._process = subprocess.Popen(
            [program, "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--slot-save-path",
             f"{folder}/", "--threads", "1", *map(str, more)],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self):
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise AssertionError(f"llama-server ended:\n{self.log()}")
            try:
                self._ask("/health")
                return
            except (Refused, OSError):
                time.sleep(0.1)
        raise AssertionError(f"llama-server is not ready after two minutes:\n{self.log()}")

    def log(self):
        self._log.flush()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode(errors="replace")) from None

    def slot(self, action, file, slot=0):
        """action: save or restore. file: a name in the folder."""
        return self._ask(f"/slots/{slot}?action={action}", {"filename": file})

    def complete(self, prompt, count, slot=0):
        """The likeliest `count` tokens behind `prompt` (ids, texts, or both in one list), and the server's timings: prompt_n
        tokens were read for it, cache_n were in the slot. slot -1: the server chooses."""
        answer = self._ask("/completion", {"prompt": prompt, "n_predict": count, "temperature": 0, "id_slot": slot,
                                           "return_tokens": True, "cache_prompt": True})
        return answer["tokens"], answer["timings"]
