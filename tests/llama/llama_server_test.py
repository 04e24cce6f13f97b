"""What finchkv stored, restored into a slot of llama-server, and slots that the server saved, stored.

usage: llama_server_test.py FINCHKV SERVER MODEL.gguf GOLDEN.json

The figures that count are the server's own: cache_n tokens of a request were in the slot, prompt_n had to be read.
"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from server_peer import Refused, Server

finchkv, server_program, model_file, golden_file = sys.argv[1:5]
GOLDEN = json.loads(Path(golden_file).read_text())
DOC, PROMPT = GOLDEN["doc"], GOLDEN["prompt"]


def run(*arguments):
    ran = subprocess.run([finchkv, *map(str, arguments)], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise AssertionError(f"finchkv {' '.join(map(str, arguments))}: {ran.returncode}\n{ran.stderr}")
    return ran.stdout


class LlamaServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = Path(cls.folder.name)
        cls.store = cls.path / "store"
        (cls.path / "doc.json").write_text(json.dumps(DOC))
        (cls.path / "prompt.json").write_text(json.dumps(PROMPT))
        cls.cases = [{"policy": "full", **GOLDEN["full"]}, *GOLDEN["finch"]]
        for case in cls.cases:
            how = ["--keep", case["budget"], "--chunk", case["chunk"]] if "budget" in case else []
            made = run("compress", "--json", "--quiet", "--model", model_file, "--store", cls.store, "--doc-tokens",
                       cls.path / "doc.json", "--prompt-tokens", cls.path / "prompt.json", "--policy", case["policy"],
                       "--compute", "f32", "--kv-dtype", "f32", *how)
            case["id"] = json.loads(made)["id"]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def server(self, *more):
        server = Server(server_program, model_file, self.path, "--ctx-size", 2048, *more)
        self.addCleanup(server.close)
        return server

    def export(self, case, *how):
        """The name of the file, and the ids that the server finds in it."""
        made = json.loads(run("export", case["id"], self.path / "slot.bin", "--store", self.store, "--format",
                              "llama-state", "--json", *how))
        self.assertEqual(made["tokens"], len(made["token_ids"]))
        return "slot.bin", made["token_ids"]

    def agreement(self, server, case, slot_tokens, slot=0):
        """How many of the golden tokens the server says too, each behind the golden ones before it."""
        hits, front = 0, slot_tokens + PROMPT
        for i, token in enumerate(case["greedy"]):
            said, timings = server.complete(front + case["greedy"][:i], 1, slot)
            read = len(PROMPT) if i == 0 else 1
            self.assertEqual((timings["cache_n"], timings["prompt_n"]), (len(front) + i - read, read))
            hits += said == [token]
        return hits

    def test_goes_on_along_the_golden_text_without_reading_the_document(self):
        server = self.server("--parallel", 1)
        for moved in (False, True):
            same = total = 0
            for case in self.cases:
                kept = case.get("budget", len(DOC))
                file, tokens = self.export(case, *(["--rope", len(DOC) - kept] if moved else []))
                restored = server.slot("restore", file)
                self.assertEqual(restored["n_restored"], len(tokens))
                if moved or kept == len(DOC):
                    self.assertEqual(tokens, DOC)  # an ordinary request with the whole document is answered
                else:
                    self.assertEqual(len(tokens), kept)
                hits = self.agreement(server, case, tokens)
                print(f"{case['policy']} {kept}, moved {moved}: {hits} of {len(case['greedy'])}")
                same, total = same + hits, total + len(case["greedy"])
            print(f"moved {moved}: {same / total:.1%} of {total} tokens")
            self.assertGreaterEqual(same / total, 0.95)

    def test_slots_that_share_no_cells_without_flash_attention(self):
        server = self.server("--parallel", 2, "--no-kv-unified", "--flash-attn", "off")
        case = self.cases[1]
        file, tokens = self.export(case, "--streams", 2, "--no-flash-attn")
        self.assertEqual(server.slot("restore", file, 1)["n_restored"], len(tokens))
        hits = self.agreement(server, case, tokens, 1)
        self.assertGreaterEqual(hits / len(case["greedy"]), 0.9)
        file, _ = self.export(case, "--streams", 2)
        with self.assertRaisesRegex(Refused, "Unable to restore slot"):
            server.slot("restore", file, 1)

    def test_a_server_as_it_starts_by_itself(self):
        """Four slots that share their cells. The server finds the slot by its tokens, and again after other work, for
        which it puts idle slots aside. A list of ids and text is what a person sends."""
        server = self.server()
        case = self.cases[1]
        file, tokens = self.export(case)
        server.slot("restore", file, 2)
        question = "<|im_end|>\n<|im_start|>assistant\n"
        first, timings = server.complete([*tokens, question], 8, -1)
        self.assertEqual(timings["cache_n"], len(tokens))
        self.assertLess(timings["prompt_n"], 10)
        server.complete("An unrelated request.", 4, -1)
        again, timings = server.complete([*tokens, question], 8, -1)
        self.assertGreaterEqual(timings["cache_n"], len(tokens))
        self.assertEqual(again, first)

    def test_what_the_server_saved_is_stored_and_goes_on_in_another_server(self):
        for layout in ([], ["--no-flash-attn"]):
            more = ["--parallel", 1, *(["--flash-attn", "off"] if layout else [])]
            first = self.server(*more)
            _, timings = first.complete(DOC, 1)
            self.assertEqual((timings["cache_n"], timings["prompt_n"]), (0, len(DOC)))
            self.assertEqual(first.slot("save", "saved.bin")["n_saved"], len(DOC))
            expected, timings = first.complete(DOC + PROMPT, 16)
            self.assertEqual((timings["cache_n"], timings["prompt_n"]), (len(DOC), len(PROMPT)))
            first.slot("save", "later.bin")  # what it read and said since too
            first.close()
            store = self.path / f"taken-{bool(layout)}"
            id_ = run("import", self.path / "saved.bin", "--store", store, "--model", model_file).strip()
            later = json.loads(run("import", self.path / "later.bin", "--store", store, "--model", model_file, "--json"))
            self.assertEqual(later["doc_tokens"], len(DOC) + len(PROMPT) + 15)  # the last one was not read
            made = json.loads(run("export", id_, self.path / "back.bin", "--store", store, "--format", "llama-state",
                                  "--json", *layout))
            self.assertEqual(made["token_ids"], DOC)
            saved, back = ((self.path / name).read_bytes() for name in ("saved.bin", "back.bin"))
            behind_tokens = made["bytes"] - 12 - 4 * len(DOC)  # the server packs its list of tokens in its own way
            self.assertEqual(saved[-behind_tokens:], back[-behind_tokens:])
            second = self.server(*more)
            self.assertEqual(second.slot("restore", "back.bin")["n_restored"], len(DOC))
            answer, timings = second.complete(DOC + PROMPT, 16)
            self.assertEqual((timings["cache_n"], timings["prompt_n"]), (len(DOC), len(PROMPT)))
            self.assertEqual(answer, expected)
            second.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
